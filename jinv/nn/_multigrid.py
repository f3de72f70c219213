"""A multigrid cycle of trained convolutions, and what makes its kernels."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._channels import on_channels
from ._convolution import pointwise
from ._grids import Boundary, on_grid, transposed


Transfer = Literal["nested", "published", "valid"]


class Kernel(eqx.Module):
    """A kernel `(*kernel, in, out)`, in transposed use `(*kernel, out, in)`."""

    weight: Float[Array, "..."]
    bias: Float[Array, " out"] | None = None

    def __call__(self, x, boundary, **options):
        found = on_grid(x, self.weight, boundary, **options)
        if self.bias is None:
            return found
        return found + on_channels(self.bias, found)


class Pointwise(eqx.Module):
    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | None = None

    def __call__(self, x):
        found = pointwise(x, self.weight)
        if self.bias is None:
            return found
        return found + on_channels(self.bias, found)


class _Smoothing(eqx.Module):
    """A step $u + S * (f - A * u)$, of $u = 0$ if there is none yet."""

    a: Kernel | None
    s: Kernel

    def __call__(self, u, f, boundary):
        if u is None:
            return self.s(f, boundary)
        assert self.a is not None
        return u + self.s(f - self.a(u, boundary), boundary)


class Norm(eqx.Module):
    """Layer normalisation over grid and channels, with factors that fix the grid."""

    scale: Float[Array, "*grid channels"]
    shift: Float[Array, "*grid channels"]

    def __call__(self, u):
        if u.shape != self.scale.shape:
            raise ValueError(
                f"`u` must be on the grid of the published normalisation, {self.scale.shape[:-1]} "
                f"at this level, got {u.shape[:-1]}"
            )
        centred = u - jnp.mean(u)
        return centred / jnp.sqrt(jnp.mean(centred**2) + 1e-5) * self.scale + self.shift


class _Level(eqx.Module):
    before: tuple[_Smoothing, ...]
    after: tuple[_Smoothing, ...]
    # To the next level: of u, of f, and what gives the residual; from it; none on the coarsest.
    down_u: Kernel | None = None
    down_f: Kernel | None = None
    a: Kernel | None = None
    up: Kernel | None = None
    norm: Norm | None = None


# From three weights of a restriction, and four of a prolongation, to four taps along one axis. On
# an even number of cells the coarse ones are pairs, and the grids have the same middle: three
# weights are averaged over the pair. On an odd number the coarse grid is every second point: three
# taps. Sums of weights, thus constants, are the same in both.
_DOWN = {
    0: np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2,
    1: np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]) * 1.0,
}
_UP = {
    0: np.eye(4),
    1: np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]) / 2,
}


def _taps(weight, matrices, shape):
    for axis, size in enumerate(shape):
        matrix = jnp.asarray(matrices[size % 2], weight.dtype)
        weight = jnp.moveaxis(jnp.tensordot(matrix, weight, (1, axis)), 0, axis)
    return weight


class MultigridConvolution(eqx.Module):
    r"""A linear map of arrays on a grid: one multigrid V-cycle whose matrices are trained
    convolutions,

    $$u \leftarrow u + S_{l,i} * (f_l - A_{l,i} * u), \quad f_{l+1} = R_l * (f_l - A_l * u_l), \quad
    u_l \leftarrow u_l + P_l\, u_{l+1},$$

    from $u_0 = 0$, with $\Pi_l * u_l$ as the first iterate on the next level. It is a part of the
    layers of [`jinv.nn.MgNO`][].

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> options = {"channels": 8, "smoothing": [(1, 0), (1, 0)]}
        >>> cycle = jinv.nn.mgno(**options, key=jax.random.key(0)).layers[1]
        >>> f = jax.random.normal(jax.random.key(1), (8, 8, 8))
        >>> bool(jnp.allclose(cycle(3 * f), 3 * cycle(f), atol=1e-5))
        True

        ```
    """

    levels: tuple[_Level, ...]
    boundary: Boundary = eqx.field(static=True)
    transfer: Transfer = eqx.field(static=True)

    def __call__(self, f: Float[Array, "*grid f"]) -> Float[Array, "*grid u"]:
        found, u = [], None
        for level in self.levels:
            for step in level.before:
                u = step(u, f, self.boundary)
            found.append((u, f))
            if level.down_u is not None:
                rest = f if level.a is None else f - level.a(u, self.boundary)
                u, f = self._down(level.down_u, u), self._down(level.down_f, rest)
        for level, (finer, f) in zip(self.levels[-2::-1], found[-2::-1], strict=True):
            u = finer + self._up(level.up, u, finer.shape[:-1])
            u = u if level.norm is None else level.norm(u)
            for step in level.after:
                u = step(u, f, self.boundary)
        assert u is not None
        return u

    def _down(self, kernel, x):
        grid = x.shape[:-1]
        if self.transfer == "published":
            return kernel(x, self.boundary, stride=2)
        if self.transfer == "valid":
            return kernel(x, "zero", stride=2, before=0, out=tuple((n - 1) // 2 for n in grid))
        return on_grid(x, _taps(kernel.weight, _DOWN, grid), self.boundary, stride=2)

    def _up(self, kernel, z, shape):
        if self.transfer == "nested":
            return transposed(z, _taps(kernel.weight, _UP, shape), shape, self.boundary)
        return transposed(z, kernel.weight, shape, "zero", before=int(self.transfer == "published"))


class Maker:
    """Makes kernels of fresh random numbers, or of arrays with the names of the authors' code."""

    def __init__(self, ndim: int, key: Any = None, arrays: Any = None):
        self.ndim, self.key, self.arrays = ndim, key, arrays
        self.count, self.used = 0, set()

    def _array(self, name, shape, bound):
        """Of a kernel the axes `(first, second, *kernel)`."""
        self.count += 1
        if self.arrays is None:
            key = jax.random.fold_in(self.key, self.count)
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        if name not in self.arrays:
            raise ValueError(f"`arrays` must have {name}, which is missing")
        found = jnp.asarray(self.arrays[name])
        if found.shape != shape:
            raise ValueError(f"`arrays` must have {name} of shape {shape}, got {found.shape}")
        self.used.add(name)
        return found

    def kernel(self, name, size, inputs, outputs, *, bias=False, up=False):
        """For `up` the transpose of a convolution from `outputs`; bounds as of PyTorch."""
        first, second = (inputs, outputs) if up else (outputs, inputs)
        shape = (first, second) + (size,) * self.ndim
        bound = (size**self.ndim * second) ** -0.5
        weight = jnp.moveaxis(self._array(f"{name}.weight", shape, bound), (0, 1), (-1, -2))
        return Kernel(weight, self._array(f"{name}.bias", (outputs,), bound) if bias else None)

    def pointwise(self, name, inputs, outputs, *, bias=False):
        shape, bound = (outputs, inputs) + (1,) * self.ndim, inputs**-0.5
        weight = self._array(f"{name}.weight", shape, bound).reshape(outputs, inputs).T
        return Pointwise(weight, self._array(f"{name}.bias", (outputs,), bound) if bias else None)

    def norm(self, name, size, channels):
        shape = (channels,) + (size,) * self.ndim
        if self.arrays is None:
            scale, shift = jnp.ones(shape), jnp.zeros(shape)
        else:
            scale, shift = (self._array(f"{name}.{kind}", shape, 0) for kind in ("weight", "bias"))
        return Norm(jnp.moveaxis(scale, 0, -1), jnp.moveaxis(shift, 0, -1))

    def cycle(
        self,
        name: str,
        u: int,
        f: int,
        *,
        smoothing: Sequence[tuple[int, int]],
        boundary: Boundary,
        transfer: Transfer,
        residual: bool = False,
        bias: bool = False,
        grows: bool = False,
        grid: int | None = None,
        normalised: bool = False,
    ) -> MultigridConvolution:
        """`grows`: level l has l + 1 times the channels, and a first A that is never used."""
        levels, last = [], len(smoothing) - 1
        for level, (first, then) in enumerate(smoothing):
            here, below = (level + 1, level + 2) if grows else (1, 1)

            def step(place, with_a=True, here=here):
                a = None
                if with_a:
                    a = self.kernel(f"{place}.A", 3, u * here, f * here, bias=bias)
                return _Smoothing(a, self.kernel(f"{place}.S", 3, f * here, u * here, bias=bias))

            start = int(level > 0)
            before = [
                step(f"{name}.layer{level}.{i + start}", level > 0 or i > 0 or grows)
                for i in range(first)
            ]
            after = [step(f"{name}.post_smooth_layer{level}.{i}") for i in range(then)]
            options: dict[str, Any] = {}
            if level < last:
                size, coarse = 4, f"{name}.layer{level + 1}.0"
                options["down_u"] = self.kernel(f"{coarse}.Pi", 3, u * here, u * below)
                options["down_f"] = self.kernel(f"{coarse}.R", 3, f * here, f * below)
                if residual:
                    options["a"] = self.kernel(f"{coarse}.A", 3, u * here, f * here, bias=bias)
                if normalised:
                    options["norm"] = self.norm(f"{name}.norm_layer_list.{level}", grid, u)
                if grid is not None:
                    # What leads back to just this grid.
                    size = 4 - grid % 2
                    grid = (grid - 1) // 2 if transfer == "valid" else -(-grid // 2)
                up = f"{name}.RTlayers.{level}"
                options["up"] = self.kernel(up, size, u * below, u * here, up=True)
            levels.append(_Level(tuple(before), tuple(after), **options))
        return MultigridConvolution(tuple(levels), boundary, transfer)
