"""How an error falls while a solver runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._records import method_name
from ._style import label_ends, looks, new_figure, styled


@styled
def convergence(
    histories: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    xlabel: str = "iteration",
    ylabel: str = "relative error",
    logx: bool = False,
    logy: bool = True,
    title: str | None = None,
) -> Any:
    r"""One line for each method: an error (or a residual, or an objective gap) against the work.

    Several runs of one method are drawn as their median, in a band from the least to the
    largest. Values that are not finite, as solvers leave them behind the last step, end a line;
    on a logarithmic axis so do zero and negative ones.

    **Arguments:**

    - `histories`: for each name either one history of shape `(steps,)`, or several runs of
        shape `(runs, steps)`, or a pair `(x, history)` with the abscissae, for instance seconds.
        Or benchmark records: dictionaries with `record["method"]["name"]` and
        `record["history"]`, where records of one method are several runs.
    - `xlabel`, `ylabel`: what the axes show, with the unit.
    - `logx`, `logy`: whether the axes are logarithmic.
    - `title`: of the figure.

    **Returns:** a `matplotlib.figure.Figure`.

    **Raises:** `ValueError` for no histories, or shapes that do not fit; `ImportError` without
    matplotlib.

    !!! example
        ```python
        >>> import numpy as np, jinv.plot
        >>> k = np.arange(50)
        >>> runs = {"gradient": 0.9**k, "conjugate gradients": (k[:20], 0.5 ** k[:20])}
        >>> figure = jinv.plot.convergence(runs, ylabel="relative residual")
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('iteration', 'relative residual')

        ```
    """
    curves = {name: _curve(name, value) for name, value in _grouped(histories).items()}
    if not curves:
        raise ValueError("`histories` must hold at least one history; got none.")
    style = looks(curves)
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    ends = []
    for name, (x, runs) in curves.items():
        x, low, middle, high = _band(x, runs, logx, logy)
        look = style[name]
        axes.plot(x, middle, color=look.color, linestyle=look.linestyle, label=name)
        if runs.shape[0] > 1:
            axes.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0)
        if x.size:
            axes.plot(x[-1:], middle[-1:], color=look.color, marker=look.marker, linestyle="")
            ends.append((name, float(x[-1]), float(middle[-1]), look.color))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_xscale("log" if logx else "linear")
    axes.set_yscale("log" if logy else "linear")
    axes.margins(x=0.02)
    if title is not None:
        axes.set_title(title, loc="left")
    label_ends(axes, ends)
    return figure


def _grouped(histories) -> dict[str, Any]:
    if isinstance(histories, Mapping):
        return dict(histories)
    groups: dict[str, list[np.ndarray]] = {}
    for i, record in enumerate(histories):
        if record.get("history") is None:
            raise ValueError(f"`histories[{i}]` must have a field 'history'; got {sorted(record)}.")
        groups.setdefault(method_name(record), []).append(np.asarray(record["history"], float))
    return {name: _padded(runs) for name, runs in groups.items()}


def _padded(runs: list[np.ndarray]) -> np.ndarray:
    """Runs of different lengths as one array, with NaN behind the end of the short ones."""
    table = np.full((len(runs), max(run.size for run in runs)), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[: run.size] = run.ravel()
    return table


def _curve(name: str, value) -> tuple[np.ndarray, np.ndarray]:
    x, runs = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
    runs = np.atleast_2d(np.asarray(runs, dtype=np.float64))
    x = np.arange(runs.shape[-1]) if x is None else np.asarray(x, dtype=np.float64)
    if runs.ndim != 2 or x.shape != runs.shape[1:]:
        raise ValueError(
            f"`histories[{name!r}]` must have shape (steps,) or (runs, steps), with abscissae of "
            f"shape (steps,); got {runs.shape} and {x.shape}."
        )
    return x, runs


def _band(x, runs, logx: bool, logy: bool):
    """Abscissae, least, median and largest value, where at least half of the runs go on."""
    shown = np.isfinite(runs) & (runs > 0 if logy else True)
    keep = 2 * shown.sum(axis=0) >= runs.shape[0]
    keep &= (x > 0) if logx else np.isfinite(x)
    runs = np.where(shown, runs, np.nan)[:, keep]
    if runs.size == 0:
        return x[keep], *(np.zeros(0),) * 3
    return x[keep], np.nanmin(runs, axis=0), np.nanmedian(runs, axis=0), np.nanmax(runs, axis=0)
