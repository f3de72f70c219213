"""Figures of linear solves: convergence against work, and the growth with size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._linear_report import least


Record = dict[str, Any]

# More lines than this cannot be told apart; the tables have everyone.
_DRAWN = (
    "jinv PCG, Multigrid",
    "jinv PCG, Multigrid trained",
    "pyamg Ruge-Stuben + CG",
    "pyamg smoothed aggregation + CG",
    "scipy CG, transform of the box",
    "ilupp CG, ICT",
    "jax.scipy CG",
    "jinv DCDM",
)


def linear_figures(
    records: Sequence[Record], label: Callable[[Any], str]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names of figures and what draws them; `label` names a problem."""
    import jinv.plot as plot

    drawn = [record for record in records if _method(record) in _DRAWN]
    drawn.sort(key=lambda record: _DRAWN.index(_method(record)))
    for setting in dict.fromkeys(_setting(record) for record in drawn):
        mine = [record for record in drawn if _setting(record) == setting]
        ending = " ".join(str(part) for part in setting)
        for problem in dict.fromkeys(label(record["problem"]) for record in mine):
            curves = _curves([r for r in mine if label(r["problem"]) == problem])
            if curves:
                yield (
                    f"linear {problem} convergence {ending}",
                    lambda curves=curves, problem=problem: plot.convergence(
                        curves,
                        xlabel="work (products with the matrix)",
                        ylabel="relative residual",
                        logx=True,
                        title=problem,
                    ),
                )
        for dim, guide in (("2-D", 1 / 2), ("3-D", 1 / 3)):
            points = [point for record in mine if (point := _point(record, dim)) is not None]
            if len({point["problem"]["size"] for point in points}) < 2:
                continue
            for cost, exponent in (("run_s", 1.0), ("num_steps", guide)):
                yield (
                    f"linear obstacles {dim} scaling {cost} {ending}",
                    lambda points=points, cost=cost, exponent=exponent, dim=dim: plot.scaling(
                        points, cost=cost, guides=(exponent,), title=f"obstacles, {dim}"
                    ),
                )


def _curves(records: Sequence[Record]) -> dict[str, tuple]:
    curves = {}
    for record in records:
        trajectory = record["outcome"].get("trajectory", {})
        residuals = trajectory.get("relative_residual", [])
        if residuals:
            values = [float("nan") if value is None else value for value in residuals]
            # Zero work has no place on a logarithmic axis.
            curves[_method(record)] = (trajectory["matvecs"][1:], values[1:])
    return curves


def _point(record: Record, dim: str) -> Record | None:
    """A flat record of a whole solve among the standard obstacles."""
    problem, outcome = record["problem"], record["outcome"]
    params = problem["params"]
    if (problem["name"], params.get("geometry"), params.get("dim")) != (
        "obstacles",
        "standard",
        dim,
    ):
        return None
    if outcome["result"] != "successful" or least(record, "both") is None:
        return None
    return {
        "method": {"name": _method(record)},
        "problem": {"name": f"obstacles {dim}", "size": outcome["metrics"]["unknowns"]},
        "result": outcome["result"],
        "run_s": record["cost"]["run_s"],
        "num_steps": outcome["num_steps"],
    }


def _method(record: Record) -> str:
    return f"{record['method']['library']} {record['method']['name']}"


def _setting(record: Record) -> tuple[str, str, str]:
    threads = record["provenance"]["threads"]
    return record["dtype"], f"threads {threads}", f"seed {record['seed']}"
