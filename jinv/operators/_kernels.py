"""Blur kernels with unit sum."""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from ._checks import as_inexact


def gaussian_kernel(
    std: Real[ArrayLike, ""], size: int, ndim: int = 2, *, dtype=None
) -> Float[Array, "..."]:
    r"""The sampled Gaussian $k_i \propto \exp(-|i - c|^2 / (2 s^2))$, $c = \lfloor n/2 \rfloor$.

    Differentiable in `std`. About $6 s + 1$ taps hold all but a thousandth of the weight.

    **Arguments:**

    - `std`: the standard deviation $s > 0$ in pixels.
    - `size`: the number of taps $n$ along each axis; odd ones are symmetric.
    - `ndim`: the number of axes.
    - `dtype`: by default the default float.

    !!! example
        ```python
        >>> import jinv
        >>> jinv.operators.gaussian_kernel(1.0, 3, ndim=1)
        Array([0.27406862, 0.45186275, 0.27406862], dtype=float32)

        ```
    """
    if size < 1 or ndim < 1:
        raise ValueError(f"size and ndim must be at least 1, got {size} and {ndim}.")
    dtype = as_inexact(dtype)
    offset = jnp.arange(size, dtype=dtype) - size // 2
    line = jnp.exp(-0.5 * (offset / jnp.asarray(std, dtype=dtype)) ** 2)
    line = line / jnp.sum(line)
    kernel = line
    for _ in range(ndim - 1):
        kernel = kernel[..., None] * line.reshape((1,) * kernel.ndim + (-1,))
    return kernel


def motion_kernel(length: float | int, angle: float | int, *, dtype=None) -> Float[Array, "n n"]:
    r"""A straight uniform motion: each pixel weighs the length of the path inside it, exactly.

    **Arguments:**

    - `length`: of the path in pixels, at least 0.
    - `angle`: of the path in radians, from the second axis (columns, to the right) towards
        the top of an image whose first axis points down.
    - `dtype`: by default the default float.

    !!! example
        ```python
        >>> import jinv
        >>> jinv.operators.motion_kernel(2.0, 0.0)
        Array([[0.  , 0.  , 0.  ],
               [0.25, 0.5 , 0.25],
               [0.  , 0.  , 0.  ]], dtype=float32)

        ```
    """
    if not length >= 0:
        raise ValueError(f"length must be at least 0, got {length}.")
    grid = _grid(length / 2)
    if length == 0:
        return jnp.ones((1, 1), dtype=as_inexact(dtype))
    # Slab method: the times at which the path t (dy, dx) is inside the rows and columns.
    (y0, y1), (x0, x1) = _slab(grid, -math.sin(angle)), _slab(grid, math.cos(angle))
    enter = np.maximum(np.maximum(y0[:, None], x0[None, :]), -length / 2)
    leave = np.minimum(np.minimum(y1[:, None], x1[None, :]), length / 2)
    weights = np.maximum(leave - enter, 0)
    return jnp.asarray(weights / weights.sum(), dtype=as_inexact(dtype))


def disk_kernel(radius: float | int, *, dtype=None) -> Float[Array, "n n"]:
    r"""A uniform disk (defocus): each pixel weighs its area inside the disk, exactly.

    **Arguments:**

    - `radius`: in pixels, positive.
    - `dtype`: by default the default float.

    !!! example
        ```python
        >>> import jinv, numpy as np
        >>> print(np.asarray(jinv.operators.disk_kernel(1.0)).round(3))
        [[0.025 0.145 0.025]
         [0.145 0.318 0.145]
         [0.025 0.145 0.025]]

        ```
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}.")
    grid = _grid(radius)
    edges = np.append(grid - 0.5, grid[-1] + 0.5)
    below = _disk_area(edges[:, None], edges[None, :], radius)
    weights = np.maximum(np.diff(np.diff(below, axis=0), axis=1), 0)
    return jnp.asarray(weights / weights.sum(), dtype=as_inexact(dtype))


def _grid(reach):
    half = max(math.ceil(reach - 0.5), 0)
    return np.arange(-half, half + 1.0)


def _slab(grid, speed):
    """When a point that starts at 0 with this speed is within half a pixel of each grid line."""
    if abs(speed) < 1e-12:
        inside = np.where(grid == 0, np.inf, -np.inf)
        return -inside, inside
    times = (grid[:, None] + np.array([-0.5, 0.5])) / speed
    return times.min(1), times.max(1)


def _disk_area(y, x, radius):
    """The signed area of the disk inside the rectangle from the origin to the corner (y, x)."""
    sign = np.sign(y) * np.sign(x)
    y, x = np.minimum(np.abs(y), radius), np.minimum(np.abs(x), radius)
    turn = np.minimum(np.sqrt(radius**2 - y**2), x)

    def under(u):
        return 0.5 * (u * np.sqrt(radius**2 - u**2) + radius**2 * np.arcsin(u / radius))

    return sign * (turn * y + under(x) - under(turn))
