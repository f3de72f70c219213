"""Accuracy against cost, and cost against size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._records import (
    axis_label,
    checked_records,
    fingerprint,
    measured,
    method_name,
    problem_name,
    quantity,
    repeats,
    succeeded,
)
from ._style import PALE, label_ends, looks, new_figure, styled


@styled
def work_precision(
    records: Sequence[Mapping[str, Any]],
    *,
    metric: str = "relative_error",
    cost: str = "run_s",
    title: str | None = None,
) -> Any:
    """The error reached against the cost paid: one line per method, one point per setting.

    Lower and further left is better, and a horizontal cut compares methods at equal accuracy.
    A point is the median over all seeds and repeats of one problem and one setting, with bars
    over the middle half (quartiles); where solves failed, it is hollow. A method that never
    got as far as a measurement keeps its place in the key.

    **Arguments:**

    - `records`: benchmark records: dictionaries with `method` (`name`, `params`), `problem`
        (`name`), `seed`, `result` ("successful" or the reason of a failure), `metrics` and
        costs such as `run_s` (one number, or the list of repeats). Results, metrics and costs
        may also be nested under `outcome` and `cost`, as the benchmarks of jinv write them.
    - `metric`: which error, of `record["metrics"]`.
    - `cost`: which field is the cost.
    - `title`: of the figure.

    **Returns:** a `matplotlib.figure.Figure`, with one panel for each problem.

    **Raises:** `ValueError` for no records, or for records without the metric or the cost;
    `ImportError` without matplotlib.

    !!! example
        ```python
        >>> import jinv.plot
        >>> records = [
        ...     {"method": {"name": "CG", "params": {"rtol": r}}, "problem": {"name": "poisson"},
        ...      "result": "successful", "metrics": {"relative_error": r}, "run_s": [t, 1.1 * t]}
        ...     for r, t in [(1e-2, 0.01), (1e-4, 0.02), (1e-6, 0.03)]
        ... ]
        >>> figure = jinv.plot.work_precision(records)
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('time (s)', 'relative error')

        ```
    """
    records = checked_records(records)
    problems = list(dict.fromkeys(problem_name(record) for record in records))
    style = looks(method_name(record) for record in records)
    figure = new_figure(1.9 + 3.5 * len(problems), 3.6)
    panels = figure.subplots(1, len(problems), squeeze=False, sharey=True).ravel()
    for axes, problem in zip(panels, problems, strict=True):
        mine = [record for record in records if problem_name(record) == problem]
        _work_precision_panel(axes, mine, style, metric, cost)
        axes.set_xlabel(axis_label(cost))
        if len(problems) > 1:
            axes.set_title(problem, loc="left")
    panels[0].set_ylabel(axis_label(metric))
    _key(figure, style, any(not succeeded(record) for record in records))
    if title is not None:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _work_precision_panel(axes, records, style, metric: str, cost: str) -> None:
    for method in dict.fromkeys(method_name(record) for record in records):
        settings: dict[str, list] = {}
        for record in records:
            if method_name(record) == method and measured(record, metric, cost):
                params = record["method"].get("params") if _mapped(record) else None
                settings.setdefault(fingerprint(params), []).append(record)
        if not settings:
            continue
        points = [_point(group, metric, cost) for group in settings.values()]
        x, y = np.array([point[0] for point in points]), np.array([point[1] for point in points])
        order = np.argsort(x[:, 1])
        look = style[method]
        axes.plot(x[order, 1], y[order, 1], color=look.color, linestyle=look.linestyle, zorder=2)
        bars = {"color": look.color, "linewidth": 0.9, "alpha": 0.6, "zorder": 2}
        axes.hlines(y[:, 1], x[:, 0], x[:, 2], **bars)
        axes.vlines(x[:, 1], y[:, 0], y[:, 2], **bars)
        for (_, cx, _), (_, cy, _), sound in points:
            _marker(axes, cx, cy, look, sound)
    axes.set(xscale="log", yscale="log")


def _point(records, metric: str, cost: str):
    """Quartiles of cost and error over seeds and repeats, and whether all solves succeeded."""
    costs = np.concatenate([repeats(record, cost) for record in records])
    errors = np.array([quantity(record, metric) for record in records])
    quartiles = (25.0, 50.0, 75.0)
    sound = all(succeeded(record) for record in records)
    return np.percentile(costs, quartiles), np.percentile(errors, quartiles), sound


@styled
def scaling(
    records: Sequence[Mapping[str, Any]],
    *,
    cost: str = "run_s",
    xlabel: str = "number of unknowns $n$",
    guides: Sequence[float | int] = (1.0,),
    title: str | None = None,
) -> Any:
    r"""Cost against the size of the problem, with the measured exponent beside each line.

    Both axes are logarithmic, so a cost $c\,n^p$ is a line of slope $p$. The exponent is
    the least-squares slope over the successful points of the larger half of the sizes (at least
    two), where fixed overheads matter least; read it with the spread in mind.

    **Arguments:**

    - `records`: benchmark records as in `work_precision`, with `record["problem"]["size"]`.
    - `cost`: which field is the cost.
    - `xlabel`: what the size counts.
    - `guides`: exponents of thin reference lines.
    - `title`: of the figure.

    **Returns:** a `matplotlib.figure.Figure`.

    **Raises:** `ValueError` for no records, or for records without size or cost; `ImportError`
    without matplotlib.

    !!! example
        ```python
        >>> import jinv.plot
        >>> records = [
        ...     {"method": {"name": "FFT"}, "problem": {"name": "blur", "size": n},
        ...      "run_s": [1e-8 * n]}
        ...     for n in (10_000, 100_000, 1_000_000)
        ... ]
        >>> figure = jinv.plot.scaling(records)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['$n^{1}$', 'FFT  $n^{1.00}$']

        ```
    """
    records = checked_records(records)
    style = looks(method_name(record) for record in records)
    figure = new_figure(5.6, 3.5)
    axes = figure.subplots()
    ends, curves = [], {}
    for method, look in style.items():
        groups: dict[float, list] = {}
        for record in records:
            if method_name(record) == method and measured(record, cost):
                groups.setdefault(_size(record), []).append(record)
        if not groups:
            continue
        sizes = np.array(sorted(groups))
        costs = np.array([_quartiles(groups[size], cost) for size in sizes])
        sound = np.array([all(succeeded(record) for record in groups[size]) for size in sizes])
        axes.plot(sizes, costs[:, 1], color=look.color, linestyle=look.linestyle)
        axes.fill_between(
            sizes, costs[:, 0], costs[:, 2], color=look.color, alpha=0.16, linewidth=0
        )
        for size, middle, ok in zip(sizes, costs[:, 1], sound, strict=True):
            _marker(axes, size, middle, look, bool(ok))
        slope = _exponent(sizes[sound], costs[sound, 1])
        ends.append((f"{method}{slope}", float(sizes[-1]), float(costs[-1, 1]), look.color))
        curves[method] = (sizes, costs[:, 1])
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=axis_label(cost))
    axes.margins(x=0.04, y=0.08)
    if curves:
        _guides(axes, curves, guides)
    if title is not None:
        axes.set_title(title, loc="left")
    if any(not succeeded(record) for record in records):
        axes.plot([], [], "o", color=PALE, markerfacecolor="white", label="some solves failed")
        axes.legend(loc="upper left")
    label_ends(axes, ends)
    return figure


def _guides(axes, curves, exponents: Sequence[float | int]) -> None:
    """Thin lines of known slope below all curves, over the larger half of the sizes."""
    sizes = np.concatenate([size for size, _ in curves.values()])
    costs = np.concatenate([cost for _, cost in curves.values()])
    unique = np.unique(sizes)
    if unique.size < 2:
        return
    ends = unique[[min(unique.size // 2, unique.size - 2), -1]]
    sizes, costs = sizes[sizes >= ends[0]], costs[sizes >= ends[0]]
    for exponent in exponents:
        # As high as possible while staying below every measured point.
        level = 0.55 * np.min(costs / sizes**exponent)
        line = level * ends**exponent
        axes.plot(ends, line, color=PALE, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            f"$n^{{{exponent:g}}}$",
            xy=(ends[1], line[1]),
            xytext=(0, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color=PALE,
            fontsize=8.5,
        )


def _exponent(sizes: np.ndarray, costs: np.ndarray) -> str:
    half = min(len(sizes) // 2, max(len(sizes) - 2, 0))
    sizes, costs = sizes[half:], costs[half:]
    if len(sizes) < 2:
        return ""
    return f"  $n^{{{np.polyfit(np.log(sizes), np.log(costs), 1)[0]:.2f}}}$"


def _quartiles(records, cost: str) -> np.ndarray:
    return np.percentile(
        np.concatenate([repeats(record, cost) for record in records]), (25.0, 50.0, 75.0)
    )


def _size(record) -> float:
    problem = record.get("problem")
    size = problem.get("size") if isinstance(problem, Mapping) else None
    if size is None or not np.all(np.asarray(size, dtype=np.float64) > 0):
        raise ValueError(f"a record needs a positive record['problem']['size']; got {size!r}.")
    return float(np.prod(np.asarray(size, dtype=np.float64)))


def _mapped(record) -> bool:
    return isinstance(record["method"], Mapping)


def _marker(axes, x: float, y: float, look, sound: bool) -> None:
    axes.plot(
        [x],
        [y],
        linestyle="",
        marker=look.marker,
        color=look.color,
        markerfacecolor=look.color if sound else "white",
        markeredgewidth=1.2,
        zorder=3,
    )


def _key(figure, style, failures: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.linestyle, label=name)
        for name, look in style.items()
    ]
    if failures:
        handles.append(
            Line2D(
                [],
                [],
                color=PALE,
                marker="o",
                markerfacecolor="white",
                linestyle="",
                label="some solves failed",
            )
        )
    figure.legend(handles=handles, loc="outside right center")
