"""Pictures side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .. import metrics
from ._style import new_figure, styled


_WIDTH = 2.15  # of one picture, in inches
_FRAME = "#D55E00"


@styled
def images(
    pictures: Mapping[str, Any] | Sequence[Any],
    *,
    reference: ArrayLike | None = None,
    columns: int | None = None,
    limits: tuple[float | int, float | int] | None = (0.0, 1.0),
    cmap: str = "gray",
    zoom: tuple[int, int, int] | None = None,
) -> Any:
    r"""Pictures side by side, on one grey scale, each with its name and its PSNR.

    All pictures share `limits`, so brightness can be compared; values outside are shown as
    black or white. Under a picture equal to the reference stands the word PSNR instead of a number.

    **Arguments:**

    - `pictures`: names and arrays, or only arrays, of shape `(H, W)` or `(H, W, 3)`.
    - `reference`: the truth, of the same shape; adds the PSNR in dB (`jinv.metrics.psnr`, with
        the width of `limits` as range) to each title.
    - `columns`: pictures per row; by default all in a row up to five.
    - `limits`: the values of black and white; `None` takes the extremes over all pictures.
    - `cmap`: matplotlib's name of the colours for pictures of shape `(H, W)`.
    - `zoom`: `(row, column, size)` of a square in pixels, shown enlarged in the corner that is
        farthest away.

    **Returns:** a `matplotlib.figure.Figure`. A notebook shows it; `save` writes it.

    **Raises:** `ValueError` for no pictures, wrong shapes, complex values, or a `zoom` outside;
    `ImportError` without matplotlib.

    !!! example
        ```python
        >>> import jinv.data, jinv.plot
        >>> truth = jinv.data.shepp_logan(64)
        >>> pictures = {"truth": truth, "darker": 0.9 * truth}
        >>> figure = jinv.plot.images(pictures, reference=truth)
        >>> [axes.get_title().split("\n") for axes in figure.axes]
        [['truth', 'PSNR'], ['darker', '32.05 dB']]

        ```
    """
    named = _named(pictures)
    low, high = _limits(named, limits)
    truth = None if reference is None else _picture("reference", reference)
    columns = columns or _columns(len(named))
    rows = -(-len(named) // columns)
    aspect = max(array.shape[0] / array.shape[1] for array in named.values())
    title_height = 0.42 if truth is not None else 0.27
    figure = new_figure(_WIDTH * columns, rows * (_WIDTH * aspect + title_height))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, array) in zip(grid, named.items(), strict=False):
        shown = np.clip((array - low) / (high - low), 0.0, 1.0)
        axes.imshow(shown, cmap=cmap, vmin=0.0, vmax=1.0)
        title = name
        if truth is not None:
            title = f"{name}\n{_decibels(name, array, truth, high - low)}"
        axes.set_title(title, fontsize=9.0, pad=4.0, linespacing=1.3)
        axes.grid(False)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if zoom is not None:
            _inset(axes, shown, cmap, zoom)
    for axes in grid[len(named) :]:
        axes.set_axis_off()
    return figure


def _named(pictures) -> dict[str, np.ndarray]:
    if not isinstance(pictures, Mapping):
        pictures = {f"{i + 1}": picture for i, picture in enumerate(pictures)}
    if not pictures:
        raise ValueError("`pictures` must hold at least one picture; got none.")
    return {name: _picture(f"pictures[{name!r}]", array) for name, array in pictures.items()}


def _picture(argument: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[-1] == 3
    if not (grey or colour) or 0 in array.shape:
        raise ValueError(f"`{argument}` must have shape (H, W) or (H, W, 3); got {array.shape}.")
    if array.dtype.kind not in "fbiuV":
        raise ValueError(f"`{argument}` must be real; got {array.dtype}: take its absolute value.")
    return array.astype(np.float64)


def _limits(named: dict[str, np.ndarray], limits) -> tuple[float, float]:
    if limits is None:
        finite = np.concatenate([array[np.isfinite(array)] for array in named.values()])
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        limits = limits if limits[0] < limits[1] else (limits[0], limits[0] + 1.0)
    low, high = limits
    if not low < high:
        raise ValueError(f"`limits` must be (black, white) with black < white; got {limits}.")
    return low, high


def _columns(count: int) -> int:
    # As few rows as five per row allow, and the rows as even as possible.
    rows = -(-count // 5)
    return -(-count // rows)


def _decibels(name: str, array: np.ndarray, truth: np.ndarray, data_range: float) -> str:
    if array.shape != truth.shape:
        raise ValueError(
            f"`reference` must have the shape of `pictures[{name!r}]`, {array.shape}; "
            f"got {truth.shape}."
        )
    if np.array_equal(array, truth):
        return "PSNR"
    value = metrics.psnr(jnp.asarray(array), jnp.asarray(truth), data_range)
    return f"{float(value):.2f} dB"


def _inset(axes, shown: np.ndarray, cmap: str, zoom: tuple[int, int, int]) -> None:
    row, column, size = zoom
    height, width = shown.shape[:2]
    if min(row, column) < 0 or size < 1 or row + size > height or column + size > width:
        raise ValueError(
            f"`zoom` must be (row, column, size) inside {height} x {width} pixels; got {zoom}."
        )
    share = 0.42
    left = 0.0 if column + size / 2 > width / 2 else 1.0 - share * min(1.0, height / width)
    bottom = 0.0 if row + size / 2 < height / 2 else 1.0 - share * min(1.0, width / height)
    box = (left, bottom, share * min(1.0, height / width), share * min(1.0, width / height))
    inset = axes.inset_axes(box)
    inset.imshow(shown[row : row + size, column : column + size], cmap=cmap, vmin=0.0, vmax=1.0)
    inset.grid(False)
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(visible=True, color=_FRAME, linewidth=1.4)
    outline = {"fill": False, "edgecolor": _FRAME, "linewidth": 1.2}
    axes.add_patch(_rectangle((column - 0.5, row - 0.5), size, size, **outline))


def _rectangle(*args, **kwargs):
    from matplotlib.patches import Rectangle

    return Rectangle(*args, **kwargs)
