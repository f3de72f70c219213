"""Convolutional networks that make a search direction from a residual."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _tree
from ._diffusion import Diffusion
from ._direction import AbstractDirection, as_diffusion


class DirectionNet(eqx.Module):
    r"""The published network of deep conjugate directions, on grids of any size.

    A linear convolution, residual pairs of convolutions on the grid, on one of half the
    resolution, and again on the fine one with what was there before; then a linear combination
    of the channels. All convolutions have width 3 and zero padding, as a Dirichlet boundary has.
    Trained at one size, it is used at others; it sees no obstacles.

    Most of its $2 (1 + \sum \texttt{pairs})\, 3^d c^2$ weights, with $c$ channels, are applied
    in every cell: at $64^3$ cells a direction of the published network takes 32 GFLOP. Computes
    in the dtype of its weights, and returns the dtype of the residual.

    **Arguments:**

    - `ndim`: the dimension of the grid, 1 to 3.
    - `channels`: their number, 16 in the paper.
    - `pairs`: residual pairs before the pooling, on the coarse grid, and after it. The authors
        have `(1, 3, 2)` for training at $64^3$ and `(2, 5, 3)` at $128^3$.
    - `key`: of the initial weights: Glorot's uniform distribution, and zero biases.
    - `dtype`: of the weights.

    **Returns** (of a call): a direction, of the shape of the residual. Odd sizes are padded by
    cells of zero residual.

    Raises `ValueError` for numbers that are too small, and for a residual of another rank.

    Source: A. Kaneda et al., *A Deep Conjugate Direction Method for Iteratively Solving Linear
    Systems*, 2023, with the layers of the authors' program. Deviations: one and two dimensions,
    and odd sizes. A 3-D convolution is written as one in 2-D with the neighbours along the first
    axis as channels: the same sum, and many times faster on CPUs.

    !!! example
        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, jinv
        >>> net = jinv.linear.DirectionNet(3, key=jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(eqx.filter(net, eqx.is_array)))
        97457
        >>> net(jnp.ones((8, 8, 7))).shape
        (8, 8, 7)

        ```
    """

    enter: "_Convolution"
    first: "_Convolution"
    fine: "_Pairs"
    middle: "_Convolution"
    coarse: "_Pairs"
    last: "_Pairs"
    leave: "_Convolution"

    def __init__(
        self,
        ndim: int,
        channels: int = 16,
        *,
        pairs: Sequence[int] = (1, 3, 2),
        key: PRNGKeyArray,
        dtype=jnp.float32,
    ):
        if len(pairs) != 3:
            raise ValueError(f"pairs must be three numbers, got {pairs}.")
        make = _Maker(ndim, channels, min(pairs), key, dtype)
        self.enter, self.first, self.middle = make(1), make(channels), make(channels)
        self.fine, self.coarse, self.last = (make.pairs(count) for count in pairs)
        self.leave = make.pointwise()

    def __call__(self, residual: Float[Array, "..."]) -> Float[Array, "..."]:
        def network(x):
            x = self.fine(jax.nn.relu(self.first(self.enter(x))))
            x = jax.nn.relu(self.middle(x))
            return self.leave(self.last(_enlarge(self.coarse(_pool(x))) + x))

        return _on_grid(network, residual, (), self.enter.weight, 2)


class UNetDirection(AbstractDirection):
    r"""A small U-Net that sees the geometry of a [`jinv.linear.Diffusion`][] besides the residual.

    The scheme of [`jinv.linear.DirectionNet`][] with more levels, on each of which the grid has
    half the resolution, so that a direction reaches across the domain; and with two more input
    channels: which cells have open faces, and how much of a cell's diagonal leads out (the row
    sum over the diagonal, positive beside Dirichlet walls, air and sinks). Both are taken from
    the operator of the solve, so one network serves all geometries. It scales the residual to a
    mean square of one in these cells, which makes the input alike on grids of all sizes.

    **Arguments:**

    - `ndim`: the dimension of the grid, 1 to 3.
    - `channels`: their number, on all levels.
    - `levels`: the number of grids; sizes are padded to a multiple of `2**(levels - 1)`.
    - `pairs`: residual pairs on each level, on the way down and on the way up.
    - `geometry`: whether there are the two channels; without them any operator on a grid will do.
    - `key`: of the initial weights.
    - `dtype`: of the weights.

    **Returns** (of `init(operator)`): a function from a residual to a direction of its shape.

    Raises `ValueError` for numbers that are too small, for another operator than a `Diffusion`
    where there is `geometry`, and for a residual of another rank.

    Source: O. Ronneberger, P. Fischer, T. Brox, *U-Net*, 2015, for the scheme. Deviations: the
    layers are those of A. Kaneda et al., 2023, and skips are added.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> net = jinv.linear.UNetDirection(2, 8, key=jax.random.key(0))
        >>> solid = jnp.zeros((16, 12), int).at[4:8, 5:7].set(1)
        >>> A = jinv.linear.pressure_poisson(solid, open_sides=[(0, 1)])
        >>> net.init(A)(jnp.ones((16, 12))).shape
        (16, 12)

        ```
    """

    enter: "_Convolution"
    down: tuple["_Pairs", ...]
    bottom: "_Pairs"
    up: tuple["_Pairs", ...]
    leave: "_Convolution"
    geometry: bool = eqx.field(static=True)

    def __init__(
        self,
        ndim: int,
        channels: int = 16,
        *,
        levels: int = 4,
        pairs: int = 1,
        geometry: bool = True,
        key: PRNGKeyArray,
        dtype=jnp.float32,
    ):
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}.")
        make = _Maker(ndim, channels, pairs, key, dtype)
        self.geometry = geometry
        self.enter = make(3 if geometry else 1)
        self.down = tuple(make.pairs(pairs) for _ in range(levels - 1))
        self.bottom = make.pairs(pairs)
        self.up = tuple(make.pairs(pairs) for _ in range(levels - 1))
        self.leave = make.pointwise()

    def init(self, operator):
        more = ()
        if self.geometry:
            grid = as_diffusion(operator)
            if grid is None:
                raise ValueError(
                    "UNetDirection with geometry needs a Diffusion operator, got "
                    f"{type(operator).__name__}."
                )
            more = _features(grid)
        return jax.tree_util.Partial(_apply_unet, self, more)


def _apply_unet(net, more, residual):
    cells = _tree.cast(jnp.sum(more[0]) if more else residual.size, residual)
    norm = _tree.norm(residual)
    unit = residual * (jnp.sqrt(cells) / jnp.where(norm > 0, norm, 1))

    def network(x):
        x, skips = net.enter(x), []
        for pairs in net.down:
            skips.append(pairs(x))
            x = _pool(skips[-1])
        x = net.bottom(x)
        for pairs in net.up:
            x = pairs(_enlarge(x) + skips.pop())
        return net.leave(x)

    return _on_grid(network, unit, more, net.enter.weight, 2 ** len(net.down))


def _features(grid: Diffusion) -> tuple[Array, Array]:
    diagonal = grid.diagonal()
    outward = grid.mv(jnp.ones_like(diagonal)) / jnp.where(diagonal > 0, diagonal, 1)
    return grid.active().astype(diagonal.dtype), outward


def _on_grid(network: Callable, residual, more, weight, multiple: int):
    """`network`, from input channels to one, on the residual padded to a multiple."""
    ndim = weight.ndim - 2
    if residual.ndim != ndim:
        raise ValueError(f"residual must have rank {ndim}, got shape {residual.shape}.")
    x = jnp.stack([y.astype(weight.dtype) for y in (residual, *more)], axis=-1)
    x = jnp.pad(x, [*((0, -n % multiple) for n in residual.shape), (0, 0)])
    out = network(x)[..., 0]
    return out[tuple(slice(n) for n in residual.shape)].astype(residual.dtype)


class _Convolution(eqx.Module):
    """A convolution of width 3, or of width 1, with zero padding; channels are the last axis."""

    weight: Float[Array, "..."]
    bias: Float[Array, " out"]

    def __call__(self, x):
        weight, ndim = self.weight, x.ndim - 1
        bias = self.bias.reshape(*[1] * ndim, -1)
        if weight.shape[0] == 1:
            return jnp.tensordot(x, weight.reshape(weight.shape[-2:]), 1) + bias
        if ndim == 3:
            # XLA's 3-D convolution is slow on CPUs; planes are its samples in 2-D.
            ahead = jnp.pad(x[1:], [(0, 1), (0, 0), (0, 0), (0, 0)])
            behind = jnp.pad(x[:-1], [(1, 0), (0, 0), (0, 0), (0, 0)])
            x = jnp.concatenate([behind, x, ahead], axis=-1)
            weight = jnp.moveaxis(weight, 0, 2)
            weight = weight.reshape(*weight.shape[:2], -1, weight.shape[-1])
        else:
            x = x[None]
        space = "HW"[: x.ndim - 2]
        layout = f"N{space}C", f"{space}IO", f"N{space}C"
        y = jax.lax.conv_general_dilated(
            x, weight, (1,) * len(space), "SAME", dimension_numbers=layout
        )
        return (y if ndim == 3 else y[0]) + bias


class _Pairs(eqx.Module):
    """Pairs of convolutions with rectifiers; each adds to what came in."""

    layers: tuple[tuple[_Convolution, _Convolution], ...]

    def __call__(self, x):
        for inner, outer in self.layers:
            x = x + jax.nn.relu(outer(jax.nn.relu(inner(x))))
        return x


class _Maker:
    """Makes layers with fresh keys."""

    def __init__(self, ndim, channels, pairs, key, dtype):
        for name, value, least in [("channels", channels, 1), ("pairs", pairs, 0)]:
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if ndim not in (1, 2, 3):
            raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}.")
        self.ndim, self.channels, self.key, self.dtype = ndim, channels, key, dtype

    def __call__(self, inputs, outputs=None, width=3):
        self.key, key = jax.random.split(self.key)
        outputs = self.channels if outputs is None else outputs
        shape = (width,) * self.ndim + (inputs, outputs)
        weight = jax.nn.initializers.glorot_uniform()(key, shape, self.dtype)
        return _Convolution(weight, jnp.zeros(outputs, self.dtype))

    def pairs(self, count):
        both = lambda: (self(self.channels), self(self.channels))
        return _Pairs(tuple(both() for _ in range(count)))

    def pointwise(self):
        return self(self.channels, 1, width=1)


def _pool(x):
    """The means of blocks of two cells along every axis."""
    blocks = [m for n in x.shape[:-1] for m in (n // 2, 2)]
    return jnp.mean(x.reshape(*blocks, x.shape[-1]), axis=tuple(range(1, 2 * x.ndim - 2, 2)))


def _enlarge(x):
    """Every cell as a block of two along every axis."""
    for axis in range(x.ndim - 1):
        x = jnp.repeat(x, 2, axis=axis)
    return x
