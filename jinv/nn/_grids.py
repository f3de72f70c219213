"""Convolutions on grids of one to three axes with a boundary condition, channels last."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._convolution import convolve, convolve_transposed


Boundary = Literal["zero", "reflect", "symmetric", "circular"]

_PAD = {"reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
_AXES = "DHW"


def on_grid(
    x: Float[Array, "*grid channels"],
    weight: Float[Array, "*kernel channels out"],
    boundary: Boundary,
    *,
    stride: int = 1,
    before: int = 1,
    out: tuple[int, ...] | None = None,
) -> Float[Array, "..."]:
    """The convolution, from `before` places outside the grid on, where `boundary` continues it."""
    grid, kernel = x.shape[:-1], weight.shape[0]
    out = tuple(-(-n // stride) for n in grid) if out is None else out
    if boundary != "zero":
        after = [stride * (m - 1) + kernel - before - n for m, n in zip(out, grid, strict=True)]
        pads = [(before, max(a, 0)) for a in after]
        x, before = jnp.pad(x, [*pads, (0, 0)], mode=_PAD[boundary]), 0
    if len(grid) == 2:
        return convolve(x, weight, stride, before=before, out=out)
    return _plain(x, weight, stride, before, out)


def transposed(
    z: Float[Array, "*grid channels"],
    weight: Float[Array, "*kernel out channels"],
    shape: tuple[int, ...],
    boundary: Boundary,
    *,
    stride: int = 2,
    before: int = 1,
) -> Float[Array, "..."]:
    """The transpose of the convolution (without boundary) of arrays of `shape`, for coarse values
    that `boundary` continues."""
    if boundary != "zero":
        z = jnp.pad(z, [*[(1, 1)] * len(shape), (0, 0)], mode=_PAD[boundary])
        before = before + stride
    if len(shape) == 2:
        return convolve_transposed(z, weight, stride, shape, before=before)
    like = jax.ShapeDtypeStruct((*shape, weight.shape[-2]), z.dtype)
    fn = lambda x: _plain(x, weight, stride, before, z.shape[:-1])
    return jax.linear_transpose(fn, like)(z)[0]


def _plain(x, weight, stride, before, out):
    ndim, kernel = len(out), weight.shape[0]
    pads = [
        (before, stride * (m - 1) + kernel - before - n)
        for m, n in zip(out, x.shape[:-1], strict=True)
    ]
    axes = _AXES[3 - ndim :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    strides = (stride,) * ndim
    return jax.lax.conv_general_dilated(x[None], weight, strides, pads, dimension_numbers=layout)[0]
