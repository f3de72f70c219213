"""Performance profiles: how often a method is within a factor of the best one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._records import (
    axis_label,
    checked_records,
    fingerprint,
    method_name,
    problem_name,
    quantity,
    succeeded,
)
from ._style import label_ends, looks, new_figure, styled


@styled
def performance_profile(
    records: Sequence[Mapping[str, Any]],
    *,
    cost: str = "run_s",
    max_ratio: float | int | None = None,
    title: str | None = None,
) -> Any:
    r"""The share of problems that a method solves within a factor $\tau$ of the best cost.

    With $t_{p,s}$ the cost of method $s$ on problem $p$, infinite where it failed, the curve is
    $\rho_s(\tau) = \#\{p : t_{p,s} \le \tau \min_{s'} t_{p,s'}\} / \#\{p\}$. Its left end is how
    often the method is the fastest, its right end how often it succeeds at all. The curves
    depend on which methods take part; compare two of them with a profile of those two.

    **Arguments:**

    - `records`: benchmark records as in `work_precision`. A problem is one combination of
        problem, parameters, size and seed; a method that lacks one counts as failed there.
        Several records of a method on a problem (repeats, settings) count with the least cost.
    - `cost`: which field is the cost; repeats count with their median.
    - `max_ratio`: where the axis ends; by default at the largest finite ratio.
    - `title`: of the figure.

    **Returns:** a `matplotlib.figure.Figure`.

    **Raises:** `ValueError` for no records, or for records without a positive cost;
    `ImportError` without matplotlib.

    !!! example
        ```python
        >>> import jinv.plot
        >>> times = {"CG": (1.0, 2.0, 8.0), "multigrid": (2.0, 1.0, 1.0)}
        >>> records = [
        ...     {"method": {"name": name}, "problem": {"name": f"problem {i}"}, "run_s": t}
        ...     for name, run in times.items() for i, t in enumerate(run)
        ... ]
        >>> figure = jinv.plot.performance_profile(records)
        >>> figure.axes[0].lines[0].get_ydata().round(2)
        array([0.33, 0.67, 1.  , 1.  ])

        ```

    ??? cite
        E. D. Dolan and J. J. Moré, "Benchmarking optimization software with performance
        profiles", Mathematical Programming 91, 2002.
    """
    ratios = performance_ratios(checked_records(records), cost)
    finite = [r for ratio in ratios.values() for r in ratio if np.isfinite(r)]
    if not finite:
        raise ValueError("`records` must hold at least one successful solve; all failed.")
    right = 1.04 * (max(2.0, *finite) if max_ratio is None else max_ratio)
    style = looks(ratios)
    figure = new_figure(5.6, 3.3)
    axes = figure.subplots()
    ends = []
    for name, ratio in ratios.items():
        steps, counts = np.unique(ratio[np.isfinite(ratio) & (ratio <= right)], return_counts=True)
        share = np.cumsum(counts) / ratio.size
        if not steps.size or steps[0] > 1.0:
            steps, share = np.append(1.0, steps), np.append(0.0, share)
        steps, share = np.append(steps, right), np.append(share, share[-1])
        look = style[name]
        axes.step(steps, share, where="post", color=look.color, linestyle=look.linestyle)
        ends.append((name, float(right), float(share[-1]), look.color))
    axes.set_xscale("log", base=2)
    axes.set(xlim=(1.0, right), ylim=(-0.02, 1.03))
    axes.xaxis.set_major_formatter(_plain)
    what = axis_label(cost).partition(" (")[0]
    axes.set(xlabel=rf"factor $\tau$ over the best {what}", ylabel="share of problems")
    if title is not None:
        axes.set_title(title, loc="left")
    label_ends(axes, ends)
    return figure


def performance_ratios(
    records: Sequence[Mapping[str, Any]], cost: str = "run_s"
) -> dict[str, np.ndarray]:
    """For each method the ratios of its cost to the best, over the problems that anyone solved
    or tried; infinite where it failed or is missing."""
    table: dict[str, dict[str, float]] = {}
    problems: dict[str, None] = {}
    for record in records:
        problem = fingerprint([problem_name(record), record["problem"], record.get("seed")])
        problems.setdefault(problem)
        value = quantity(record, cost) if succeeded(record) else np.inf
        if not value > 0:
            raise ValueError(f"`records` must have a positive {cost!r}; got {value}.")
        row = table.setdefault(method_name(record), {})
        row[problem] = min(value, row.get(problem, np.inf))
    best = {p: min(row.get(p, np.inf) for row in table.values()) for p in problems}
    return {
        name: np.array(
            [row.get(p, np.inf) / best[p] if np.isfinite(best[p]) else np.inf for p in problems]
        )
        for name, row in table.items()
    }


def _plain(value: float, _) -> str:
    return f"{value:g}"
