"""The standard figures from records: the only place that knows `jinv.plot`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ._harness import problem_label
from ._linear_figures import linear_figures
from ._report import latest, method_label


Record = dict[str, Any]


def save_figures(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write every figure the records allow as PNG and return the paths.

    For each problem the convergence against iterations and against CPU time, and work against
    precision; for each benchmark a performance profile over its problems and, with several
    sizes, the scaling.
    """
    import jinv.plot as plot

    saved: list[Path] = []

    def save(name: str, draw: Callable[[], Any]) -> None:
        path = folder / f"{_file_name(name)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        plot.save(draw(), path)
        saved.append(path)

    newest = latest(records)
    for benchmark in dict.fromkeys(record["benchmark"] for record in newest):
        mine = [record for record in newest if record["benchmark"] == benchmark]
        if benchmark == "linear":
            for name, draw in linear_figures(mine, problem_label):
                save(name, draw)
            continue
        for problem in dict.fromkeys(problem_label(record["problem"]) for record in mine):
            here = [record for record in mine if problem_label(record["problem"]) == problem]
            label = f"{benchmark} {problem}"
            for abscissa, text in (("num_steps", "iteration"), ("cpu_s", "CPU time (s)")):
                curves = _gap_curves(here, abscissa)
                if curves:
                    save(
                        f"{label} convergence {abscissa}",
                        lambda curves=curves, text=text, problem=problem: plot.convergence(
                            curves,
                            xlabel=text,
                            ylabel="relative objective gap",
                            logx=True,
                            title=problem,
                        ),
                    )
            if points := _gap_points(here):
                save(
                    f"{label} work_precision",
                    lambda points=points: plot.work_precision(points, metric="gap", cost="cpu_s"),
                )
        profile = [point for point in _gap_points(mine) if point["result"] == "successful"]
        if len({point["problem"]["name"] for point in profile}) > 1:
            save(
                f"{benchmark} performance_profile",
                lambda profile=profile: plot.performance_profile(profile, cost="cpu_s"),
            )
        sizes = [_per_step(record) for record in mine if record["cost"]["cpu_s"]]
        if len({record["problem"]["size"] for record in sizes}) > 1:
            save(f"{benchmark} scaling", lambda sizes=sizes: plot.scaling(sizes, cost="cpu_s"))
    return saved


def _gap_curves(records: list[Record], abscissa: str) -> dict[str, tuple]:
    curves = {}
    for record in records:
        trajectory = record["outcome"].get("trajectory", {})
        gaps = [float("nan") if gap is None else gap for gap in trajectory.get("gap", [])]
        if gaps:
            curves[method_label(record)] = (trajectory[abscissa], gaps)
    return curves


def _gap_points(records: list[Record]) -> list[dict[str, Any]]:
    """One flat record for each target gap that was reached."""
    return [
        {
            "method": {"name": method_label(record), "params": {"gap": entry["gap"]}},
            "problem": {"name": problem_label(record["problem"])},
            "result": "successful",
            "seed": record["seed"],
            "metrics": {"gap": entry["gap"]},
            "cpu_s": entry["cpu_s"],
        }
        for record in records
        for entry in record["outcome"].get("to_gap", [])
        if entry["cpu_s"] is not None
    ]


def _per_step(record: Record) -> dict[str, Any]:
    steps = record["cost"]["window_steps"]
    return {
        "method": {"name": method_label(record)},
        "problem": {"name": record["problem"]["name"], "size": record["problem"]["size"] ** 2},
        "result": record["outcome"]["result"],
        "metrics": {},
        "cpu_s": [value / steps for value in record["cost"]["cpu_s"]],
    }


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)
