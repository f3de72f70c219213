"""The look that all figures share: colours, type sizes, axes and labels at the ends of lines."""

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np


P = ParamSpec("P")
R = TypeVar("R")

# M. Okabe and K. Ito, "Color Universal Design", 2008: distinct for every kind of colour vision.
# Yellow is left out, because a thin yellow line on white cannot be seen by anybody.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
INK, PALE = "#262626", "#8C8C8C"

_RC: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 2.2,
    "text.color": INK,
    "xtick.color": "#4D4D4D",
    "ytick.color": "#4D4D4D",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "mathtext.fontset": "dejavusans",
}


class Look(NamedTuple):
    """How one method is drawn; colour, marker and dashes all differ, so grey prints work too."""

    color: str
    marker: str
    linestyle: Any


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by the order of first appearance."""
    unique = list(dict.fromkeys(names))
    return {
        name: Look(
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            DASHES[(i // len(COLOURS)) % len(DASHES)],
        )
        for i, name in enumerate(unique)
    }


def styled(fn: Callable[P, R]) -> Callable[P, R]:
    """Runs a plotting function under the shared look; the user's settings stay untouched."""

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with _style():
            return fn(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches, that no global state of pyplot knows about.

    Notebooks show it through `_repr_png_`; there is nothing to close and nothing leaks.
    """
    matplotlib_figure = _matplotlib("figure")

    class Figure(matplotlib_figure.Figure):
        def _repr_png_(self):
            stream = BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    Figure.__qualname__ = "Figure"
    return Figure(figsize=(width, height), layout="constrained")


def label_ends(axes: Any, ends: Iterable[tuple[str, float, float, str]], gap: float = 0.062):
    """Writes each name beside the end of its line, moved apart where they would overlap.

    `ends` holds `(name, x, y, colour)`; `gap` is the least distance, in heights of the axes.
    Call it when the limits are final.
    """
    ends = list(ends)
    # Limits are computed late: before they are asked for, `transData` is that of an empty figure.
    axes.get_xlim()
    axes.get_ylim()
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [to_axes.transform((x, y)) for _, x, y, _ in ends]
    heights = spread([float(np.clip(point[1], 0.0, 1.0)) for point in points], gap)
    for (name, x, y, colour), point, height in zip(ends, points, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "alpha": 0.45, "linewidth": 0.7}
        beside = point[0] > 0.93 and abs(point[1] - height) < 0.2 * gap
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.025, height),
            textcoords="axes fraction",
            va="center",
            ha="left",
            color=colour,
            annotation_clip=False,
            arrowprops=None if beside else {**leader, "shrinkA": 0.5, "shrinkB": 3.0},
        )


def spread(wanted: list[float], gap: float) -> list[float]:
    """The heights nearest to `wanted` (least squares) that keep order and distance `gap`.

    They stay in [0, 1] as long as there is room.
    """
    order = np.argsort(np.asarray(wanted), kind="stable")
    # Pool adjacent violators: in the shifted positions the constraint is monotonicity.
    blocks: list[list[float]] = []
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - gap * rank])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    shifted = [float(np.mean(block)) for block in blocks for _ in block]
    # In shifted positions the bounds are the same for all, so clipping keeps the optimum.
    shifted = np.clip(shifted, 0.0, max(0.0, 1.0 - gap * (len(wanted) - 1)))
    result = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        result[index] = float(shifted[rank]) + gap * rank
    return result


def _style() -> AbstractContextManager[Any]:
    return _matplotlib(None).rc_context(_RC)


def _matplotlib(module: str | None) -> Any:
    import importlib

    try:
        return importlib.import_module("matplotlib" if module is None else f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            'jinv.plot needs matplotlib, which is not installed: pip install "jinv[images]"'
        ) from error
