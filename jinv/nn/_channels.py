"""What networks on grids have in common: values with channels last."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._apart import apart


def at_least_one(**sizes: int | Sequence[int]) -> None:
    """Names the argument that is not positive."""
    for name, size in sizes.items():
        if np.min(size, initial=1) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {size}")


def at_most_3d(ndim: int) -> None:
    if ndim not in (1, 2, 3):
        raise ValueError(f"`ndim` must be 1, 2 or 3, got {ndim}")


def with_channels(u: Array, channels: int, ndim: int) -> Array:
    """The values at the points with a last axis of channels, after a check."""
    if not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(f"`u` must have a real floating dtype, got {u.dtype}")
    v = u[..., None] if u.ndim == ndim and channels == 1 else u
    if v.ndim != ndim + 1 or v.shape[-1] != channels or v.size == 0:
        expected = f"{ndim} axes of points and {channels} channels last"
        expected += " or without their axis" if channels == 1 else ""
        raise ValueError(f"`u` must have {expected}, got the shape {u.shape}")
    return v


def without_channels(v: Array) -> Array:
    """One channel needs no axis."""
    return v[..., 0] if v.shape[-1] == 1 else v


def coordinates(
    grid: tuple[int, ...], dtype, box: Sequence[tuple[float, float]] | None = None
) -> Array:
    """Those of the points, between both ends of the box along every axis, by default 0 and 1."""
    box = [(0, 1)] * len(grid) if box is None else box
    axes = [jnp.linspace(*ends, n, dtype=dtype) for ends, n in zip(box, grid, strict=True)]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """By the error function, whose one rational function takes a third of the time of the
    complementary one in `jax.nn.gelu`; as exact but far below zero, where both vanish."""
    return x * _below(x)


@gelu.defjvp
def _(primals, tangents):
    # For the derivative one array is stored, and not all that `x` is made of.
    (x,), (t,) = primals, tangents
    return gelu(x), t * jax.lax.platform_dependent(x, cpu=apart(_slope), default=_slope)


def _slope(x):
    return _below(x) + x * (math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * x * x))


def _below(x):
    """The normal distribution function."""
    return 0.5 * (1 + jax.lax.erf(math.sqrt(0.5) * x))


def num_weights(model: eqx.Module) -> int:
    return sum(x.size for x in jax.tree.leaves(model) if eqx.is_inexact_array(x))


def on_channels(x: Array, like: Array) -> Array:
    """A vector, one number for each channel, against an array with channels last."""
    return x.reshape((1,) * (like.ndim - 1) + (-1,))
