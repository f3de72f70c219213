"""Boundary values that a network meets exactly."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._channels import at_most_3d, coordinates, num_weights


Side = Literal["both", "lower", "upper", "none"]


def _checked(sides, ndim):
    sides = ("both",) * ndim if sides is None else tuple(sides)
    if len(sides) != ndim or not set(sides) <= set(get_args(Side)) or set(sides) == {"none"}:
        raise ValueError(
            f"`sides` must be {ndim} of {get_args(Side)}, one per axis and not all 'none', "
            f"got {sides}"
        )
    return sides


def _wide_enough(name, grid, sides):
    if any(n < 2 for n, side in zip(grid, sides, strict=True) if side != "none"):
        raise ValueError(
            f"`{name}` must have 2 or more nodes along each axis with `sides`, got the grid {grid}"
        )


class Dirichlet(eqx.Module):
    r"""A network with values on the boundary of a box that it meets exactly, whatever its weights
    are:

    $$u(x) = g(x) + d(x)\, N(x), \qquad d(x) = \prod_i d_i\Big(\frac{x_i - a_i}{b_i - a_i}\Big),$$

    where $N$ is the network, $g$ an extension of the boundary values into the box, and $d_i(t)$ is
    $4 t (1 - t)$ for both sides of an axis, $t$ for the lower one, $1 - t$ for the upper one and 1
    for none. $d$ is zero on these sides and positive inside, with slopes that are not zero on the
    sides, so that $N$ is free to give any smooth $u$ with these boundary values.

    For networks on grids whose outermost nodes are on the boundary, and for networks at points.
    What the network learns is $(u - g) / d$, which is smooth where $u$ and $g$ are. A network with
    the scales of its data, a [`jinv.train.Normalised`][], goes inside. The cost is that of a few
    numbers per point.

    **Arguments:**

    - `network`: called with `u`, or with `u` and points.
    - `ndim`: the number of axes, up to 3.
    - `sides`: for each axis where there are boundary values: `"both"`, `"lower"`, `"upper"` or
        `"none"`; by default both everywhere.
    - `values`: $g$: a number, by default 0, or a function of `u` and of the points
        `(..., ndim)`. With `lambda u, points: u` the boundary values of the input stay, as in a
        step in time, and $d N$ is the change; with [`jinv.nn.transfinite`][] it may be made
        of values on the boundary alone.
    - `box`: $(a_i, b_i)$ for each axis, by default $(0, 1)$.

    **Returns:** when called with `u`, values on the grid; when called with `u` and `points` of
    shape `(..., ndim)`, values there; in both cases as the network returns them, with or without
    channels last. Batches are `jax.vmap`.

    **Raises:** `ValueError` for an `ndim` that is not 1, 2 or 3, unknown `sides` or all of them
    `"none"`, an empty `box`, `points` of another number of axes, grids with a single node between
    two sides, and `values` of another shape.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> options = {"channels": 4, "num_layers": 1, "smoothing": [(1, 0), (1, 0)]}
        >>> network = jinv.nn.mgno(**options, key=jax.random.key(0))
        >>> model = jinv.nn.Dirichlet(network, values=lambda u, points: points[..., 0])
        >>> found = model(jnp.ones((9, 17)))
        >>> float(abs(found[0]).max()), float(abs(found[-1] - 1).max())
        (0.0, 0.0)

        ```

    ??? cite "Source"
        Lagaris, Likas, Fotiadis, Artificial neural networks for solving ordinary and partial
        differential equations, 1998, with $x (1 - x)$ for $d_i$; the code of Zang, Koutsourelakis,
        DGenNO, 2025, has $\sin \pi x$, which is not zero at 1 in floating-point numbers.
    """

    network: Callable[..., Array]
    values: float | Callable[..., Array]
    sides: tuple[Side, ...] = eqx.field(static=True)
    box: tuple[tuple[float, float], ...] = eqx.field(static=True)

    def __init__(
        self,
        network: Callable[..., Array],
        ndim: int = 2,
        *,
        sides: Sequence[Side] | None = None,
        values: float | Callable[..., Array] = 0.0,
        box: Sequence[tuple[float, float]] | None = None,
    ):
        at_most_3d(ndim)
        self.network = network
        self.values = values if callable(values) else float(values)
        self.sides = _checked(sides, ndim)
        self.box = ((0.0, 1.0),) * ndim if box is None else tuple((a, b) for a, b in box)
        if len(self.box) != ndim or not all(a < b for a, b in self.box):
            raise ValueError(f"`box` must be {ndim} pairs of rising numbers, got {box}")

    def __call__(
        self, u: Any, points: Float[Array, "... ndim"] | None = None
    ) -> Float[Array, "..."]:
        if points is None:
            found = self.network(u)
            grid = found.shape[: self.ndim]
            _wide_enough("u", grid, self.sides)
            points = coordinates(grid, found.dtype, self.box)
        elif points.shape[-1:] != (self.ndim,):
            raise ValueError(
                f"`points` must have {self.ndim} entries along their last axis, got {points.shape}"
            )
        else:
            found = self.network(u, points)
        factor = self.factor(points)
        has_channels = found.ndim > factor.ndim
        inside = found * (factor[..., None] if has_channels else factor)
        if not callable(self.values):
            return jnp.asarray(self.values, found.dtype) + inside
        values = self.values(u, points)
        if has_channels and values.shape == factor.shape:
            values = values[..., None]
        elif values.shape != found.shape:
            raise ValueError(
                f"`values` must return an array of shape {factor.shape} or {found.shape}, got "
                f"{values.shape}"
            )
        return values.astype(found.dtype) + inside

    def factor(self, points: Float[Array, "... ndim"]) -> Float[Array, "..."]:
        """$d$ at points."""
        factors = []
        for axis, (side, (low, high)) in enumerate(zip(self.sides, self.box, strict=True)):
            x = points[..., axis]
            above, below = (x - low) / (high - low), (high - x) / (high - low)
            named = {"lower": above, "upper": below, "both": 4 * above * below}
            factors.append(named.get(side, jnp.ones_like(x)))
        return math.prod(factors[1:], start=factors[0])

    @property
    def ndim(self) -> int:
        return len(self.sides)

    @property
    def num_weights(self) -> int:
        return num_weights(self)


def transfinite(
    values: Float[Array, "*grid"], ndim: int = 2, *, sides: Sequence[Side] | None = None
) -> Float[Array, "*grid"]:
    r"""An extension of boundary values to a grid by transfinite interpolation,

    $$g - \prod_i (1 - P_i)\, g,$$

    where $P_i$ interpolates linearly along axis $i$ between the values on its two sides, or
    continues those of the only one. Of `values` only those on the sides are used, and there they
    are returned bit by bit; elsewhere the extension is exact for sums of functions each of which
    is linear along one of the axes with two sides.

    **Arguments:**

    - `values`: at the nodes of a grid, the outermost ones on the boundary, `ndim` axes first.
    - `ndim`: the number of these, up to 3.
    - `sides`: as for [`jinv.nn.Dirichlet`][].

    **Raises:** `ValueError` as there.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> ring = jnp.pad(jnp.zeros((3, 3)), 1, constant_values=2.0)
        >>> float(jinv.nn.transfinite(ring)[2, 2])
        2.0

        ```

    ??? cite "Source"
        Gordon, Hall, Transfinite element methods: blending-function interpolation over arbitrary
        curved element domains, 1973.
    """
    at_most_3d(ndim)
    sides, grid = _checked(sides, ndim), values.shape[:ndim]
    if values.ndim < ndim:
        raise ValueError(f"`values` must have {ndim} axes first, got the shape {values.shape}")
    _wide_enough("values", grid, sides)
    rest, found = values, jnp.zeros_like(values)
    on_side = np.zeros(grid, bool)
    for axis, side in enumerate(sides):
        if side == "none":
            continue
        low, high = rest.take(np.array([0]), axis), rest.take(np.array([-1]), axis)
        if side == "both":
            column = [-1 if a == axis else 1 for a in range(values.ndim)]
            t = jnp.linspace(0, 1, grid[axis], dtype=values.dtype).reshape(column)
            part = low * (1 - t) + high * t
        else:
            part = low if side == "lower" else high
        rest, found = rest - part, found + part
        ends = {"lower": [0], "upper": [-1], "both": [0, -1]}[side]
        np.moveaxis(on_side, axis, 0)[ends] = True
    on_side = on_side.reshape(*grid, *(1,) * (values.ndim - ndim))
    return jnp.where(jnp.asarray(on_side), values, found)
