"""Fourier neural operators."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PRNGKeyArray

from ._channels import (
    at_least_one,
    at_most_3d,
    coordinates,
    gelu,
    num_weights,
    on_channels,
    with_channels,
    without_channels,
)
from ._mlp import MLP
from ._potential import in_dtype


def _frequencies(n, modes, real):
    """Those of the modes that an axis of n points has, in the order of the transform."""
    if real:
        return np.arange(min(modes, n // 2 + 1))
    return np.r_[: min(modes, (n + 1) // 2), -min(modes, n // 2) : 0]


# With up to so many frequencies of an axis a product with the matrix of the transform replaces the
# fast transform: it computes only what is kept, at the speed of matrix products, and the channels
# stay last.
_MATRIX_UP_TO = 64


def _transform(z, frequencies):
    """The Fourier transform along the second of the axes (others, n, parts, others).

    There is one part if the input is real; the result has its real and imaginary parts before
    the frequencies.
    """
    (before, n, parts, after), real = z.shape, z.shape[2] == 1
    if len(frequencies) <= _MATRIX_UP_TO:
        sizes = {"n": n, "frequencies": tuple(frequencies.tolist()), "parts": parts}
        rows = z.reshape(before, n * parts, after)
        found = _product_p.bind(rows, transposed=False, **sizes)
        return found.reshape(before, 2, len(frequencies), after)
    if real:
        found = jnp.fft.rfft(z[:, :, 0], axis=1)[:, : len(frequencies)]
    else:
        found = jnp.fft.fft(jax.lax.complex(z[:, :, 0], z[:, :, 1]), axis=1)
        negative = np.count_nonzero(frequencies < 0)
        parts = found[:, : len(frequencies) - negative], found[:, n - negative :]
        found = jnp.concatenate(parts, 1)
    return jnp.stack([found.real, found.imag], 1)


def _product(z, *, n, frequencies, parts, transposed):
    """With the matrix of the transform along the second axis. Products of many small matrices need
    no transposes of `z`, which on CPUs is twice as fast as one large product."""
    angles = 2 * np.pi / n * (np.outer(frequencies, np.arange(n)) % n)
    cos, sin = np.cos(angles), np.sin(angles)
    matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)])[..., :parts]
    matrix = matrix.reshape(2 * len(frequencies), n * parts)
    matrix = jnp.asarray(matrix.T if transposed else matrix, z.dtype)

    def many(z):
        each = jnp.broadcast_to(matrix, (len(z), *matrix.shape))
        numbers = ((2,), (1,)), ((0,), (0,))
        return jax.lax.dot_general(each, z, numbers, precision="highest")

    one = lambda z: jnp.einsum("kn,lnr->lkr", matrix, z, precision="highest")
    return jax.lax.platform_dependent(z, cpu=many, default=one)


def _batched(args, dims, **params):
    (z,), (dim,) = args, dims
    z = jnp.moveaxis(z, dim, 0)
    found = _product_p.bind(z.reshape(-1, *z.shape[2:]), **params)
    return found.reshape(*z.shape[:2], *found.shape[1:]), 0


def _transposed(cotangent, z, **params):
    params["transposed"] = not params["transposed"]
    return [_product_p.bind(cotangent, **params)]


# A primitive, because batches (`vmap`) are further small products.
_product_p = Primitive("jinv_transform")
_product_p.def_impl(jax.jit(_product, static_argnames=("n", "frequencies", "parts", "transposed")))
mlir.register_lowering(_product_p, mlir.lower_fun(_product, multiple_results=False))
batching.primitive_batchers[_product_p] = _batched
ad.deflinear2(_product_p, _transposed)


@_product_p.def_abstract_eval
def _(z, *, n, frequencies, parts, transposed):
    rows = n * parts if transposed else 2 * len(frequencies)
    return z.update(shape=(z.shape[0], rows, z.shape[2]))


def _kept(weight, frequencies):
    """The weights of those frequencies of each axis."""
    for axis, found in enumerate(frequencies):
        if len(found) < weight.shape[axis]:
            weight = weight.take(found % weight.shape[axis], axis)
    return weight


class SpectralConvolution(eqx.Module):
    r"""$u \mapsto F^{-1}(R \cdot F u)$ with a complex matrix $R_k$ for each kept frequency
    $k$: from $-m$ to $m - 1$ along all axes but the last, from 0 to $m - 1$ along that.

    A grid too coarse for some of the frequencies leaves them out, so that the weights are those
    of an operator between functions, on every grid.
    """

    real: Float[Array, "*modes channels out"]
    imag: Float[Array, "*modes channels out"]

    def __init__(self, channels: int, out: int, modes: tuple[int, ...], *, key: PRNGKeyArray):
        shape = (*(2 * m for m in modes[:-1]), modes[-1], channels, out)
        draw = lambda key: jax.random.uniform(key, shape, maxval=1 / (channels * out))
        self.real, self.imag = map(draw, jax.random.split(key))

    def __call__(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid out"]:
        grid, last = u.shape[:-1], u.ndim - 2
        halves = [*(size // 2 for size in self.real.shape[:last]), self.real.shape[last]]
        kept = [_frequencies(n, halves[i], i == last) for i, n in enumerate(grid)]

        def analysis(u):
            # From the last axis on, each a product of one matrix with all that follows.
            z = u[..., None, :]
            for axis in range(last, -1, -1):
                parts = 1 if axis == last else 2
                z = z.reshape(math.prod(grid[:axis]), grid[axis], parts, -1)
                z = _transform(z, kept[axis])
            return z.reshape(2, *map(len, kept), u.shape[-1])

        # Products of real matrices, so that all derivatives are real too.
        z = analysis(u)
        by_real, by_imag = (
            jnp.einsum("p...i,...io->p...o", z, _kept(w, kept)) for w in (self.real, self.imag)
        )
        z = jnp.stack([by_real[0] - by_imag[1], by_real[1] + by_imag[0]])
        # The inverse is the transpose: frequencies that are not stored are conjugates of others.
        k = kept[-1]
        scale = np.where((k == 0) | (2 * k == grid[-1]), 1, 2) / math.prod(grid)
        z = z * jnp.asarray(scale, u.dtype).reshape(*(1,) * (last + 1), -1, 1)
        like = jax.ShapeDtypeStruct((*grid, z.shape[-1]), z.dtype)
        return jax.linear_transpose(analysis, like)(z)[0]


class FactorisedConvolution(eqx.Module):
    """The sum of one-dimensional spectral convolutions, one along each axis."""

    along: tuple[SpectralConvolution, ...]

    def __init__(self, channels: int, out: int, modes: tuple[int, ...], *, key: PRNGKeyArray):
        keys = jax.random.split(key, len(modes))
        self.along = tuple(
            SpectralConvolution(channels, out, (m,), key=k)
            for m, k in zip(modes, keys, strict=True)
        )

    def __call__(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid out"]:
        found = []
        for axis, convolution in enumerate(self.along):
            v = jnp.moveaxis(u, axis, -2)
            z = jax.vmap(convolution)(v.reshape(-1, *v.shape[-2:]))
            found.append(jnp.moveaxis(z.reshape(*v.shape[:-1], -1), -2, axis))
        return sum(found[1:], found[0])


class FNO(eqx.Module):
    r"""A Fourier neural operator, $u \mapsto Q\, v_L$ with $v_0 = P u$ and layers

    $$v_{l+1} = s\big(F^{-1}(R_l \cdot F v_l) + W_l v_l + b_l\big),$$

    where $F$ is the Fourier transform of a function on a regular grid with 1 to 3 axes, the
    matrices $R_l$ are zero but for the lowest frequencies, $P$ and $Q$ act at each point and
    $s$ is GELU, which the last layer goes without. With `channel_mlp` this is $w_l$ in place of
    $v_{l+1}$, and $v_{l+1} = s(M_l w_l + g_l v_l)$ with a network $M_l$ at each point and one
    number $g_l$ for each channel.

    For smooth solution operators, best on periodic domains. The same weights work on every
    grid, also on those that have fewer frequencies than `modes`; the spectral layers then are one
    operator between functions, but the activation makes frequencies that coarse grids confuse,
    so that results differ by what the grids do not resolve. A layer costs $O(n m c)$ for the
    transforms of $n$ points and $c$ channels to $m$ frequencies of an axis, or
    $O(n c \log n)$ for many frequencies, and $O(n c^2)$ for $W_l$. There is one complex
    $c \times c$ matrix for each of the $2^{d-1} m^d$ frequencies of $d$ axes, or for each of
    $d\, m$ if they are factorised.

    **Arguments:**

    - `in_channels`, `out_channels`: of the input and output.
    - `modes`: $m$, one number or one for each axis: frequencies from $-m$ to $m - 1$, with the
        last axis from 0 to $m - 1$.
    - `channels`, `num_layers`: of the Fourier layers.
    - `ndim`: the number of axes of the grid, up to 3.
    - `coordinates`: whether the coordinates of the points, from 0 to 1 along each axis with both
        ends, are further inputs. Without them, and without `padding`, the network commutes with
        translations of periodic functions.
    - `factorised`: the sum of one-dimensional spectral convolutions in place of one in all axes.
    - `padding`: how much longer zeros make each axis for the Fourier layers, in lengths of the
        axis, for functions that are not periodic.
    - `lifting`, `projection`: the widths of the hidden layers of $P$ and $Q$.
    - `channel_mlp`: the width of the hidden layer of the $M_l$; by default there are none.
    - `key`: for the initial weights.

    **Attributes:**

    - `num_weights`: the number of trained real numbers; a complex one counts as two.

    **Returns:** when called with `u` of shape `(*grid, in_channels)`, an array of shape
    `(*grid, out_channels)`. A single channel has no axis in the output, and needs none in the
    input. Batches are `jax.vmap`.

    **Raises:** `ValueError` for sizes below 1, `ndim` other than 1 to 3, as many `modes` as are
    not axes, a negative `padding`, and inputs of another number of axes or channels.

    !!! example
        The published network for Darcy flow:
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> fno = jinv.nn.FNO(1, 1, 12, key=jax.random.key(0))
        >>> fno.num_weights
        2368001
        >>> fno(jnp.ones((32, 20))).shape
        (32, 20)
        >>> jax.vmap(fno)(jnp.ones((3, 16, 16))).shape
        (3, 16, 16)

        ```
        The default of neuraloperator 2.0 with 12 modes of both signs:
        ```python
        >>> widths = {"lifting": (64,), "projection": (64,), "channel_mlp": 16}
        >>> jinv.nn.FNO(1, 1, (6, 7), **widths, key=jax.random.key(0)).num_weights
        701281

        ```

    ??? cite "Source"
        Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart, Anandkumar, Fourier neural
        operator for parametric partial differential equations, 2021, eq. 2 to 5; Tran, Mathews,
        Xie, Ong, Factorized Fourier neural operators, 2023 (the sum over the axes); Kossaifi,
        Kovachki, Li, Pitt, Liu-Schiaffini, et al., A library for learning neural operators, 2024,
        version 2.0 (the MLP and the gates, which begin with 1). Deviations:
        the padding is a part of the axis and not a number of points, so that it is the same on
        all grids; of the factorised network only the convolution, not its residual blocks and
        shared weights; low frequencies are computed by products with the matrix of the
        transform, which is the same up to rounding.
    """

    lifting: MLP
    spectral: tuple[SpectralConvolution | FactorisedConvolution, ...]
    skips: tuple[MLP, ...]
    projection: MLP
    mixers: tuple[MLP, ...]
    gates: tuple[Float[Array, " channels"], ...]
    in_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    coordinates: bool = eqx.field(static=True)
    padding: float = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: int | Sequence[int],
        channels: int = 32,
        num_layers: int = 4,
        *,
        ndim: int = 2,
        coordinates: bool = True,
        factorised: bool = False,
        padding: float = 0.0,
        lifting: Sequence[int] = (),
        projection: Sequence[int] = (128,),
        channel_mlp: int | None = None,
        key: PRNGKeyArray,
    ):
        at_least_one(in_channels=in_channels, out_channels=out_channels, modes=modes)
        at_least_one(channels=channels, num_layers=num_layers)
        at_least_one(lifting=lifting, projection=projection)
        at_least_one(channel_mlp=() if channel_mlp is None else channel_mlp)
        at_most_3d(ndim)
        sizes = (modes,) * ndim if isinstance(modes, int) else tuple(modes)
        if len(sizes) != ndim:
            raise ValueError(f"`modes` must be one number or {ndim}, one per axis, got {modes}")
        if not 0 <= padding < math.inf:
            raise ValueError(f"`padding` must not be negative, got {padding}")
        keys = jax.random.split(key, 2 * num_layers + 2)
        first = in_channels + ndim * coordinates
        layer = FactorisedConvolution if factorised else SpectralConvolution
        self.lifting = MLP([first, *lifting, channels], key=keys[0])
        self.projection = MLP([channels, *projection, out_channels], key=keys[1])
        self.spectral = tuple(layer(channels, channels, sizes, key=k) for k in keys[2::2])
        self.skips = tuple(MLP([channels, channels], key=k) for k in keys[3::2])
        self.mixers = self.gates = ()
        if channel_mlp is not None:
            widths, of_mixers = (channels, channel_mlp, channels), jax.random.fold_in(key, 0)
            self.mixers = tuple(MLP(widths, key=k) for k in jax.random.split(of_mixers, num_layers))
            self.gates = tuple(jnp.ones(channels) for _ in range(num_layers))
        self.in_channels, self.ndim = in_channels, ndim
        self.coordinates, self.padding = coordinates, float(padding)

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        self, v = in_dtype(self, u.dtype), with_channels(u, self.in_channels, self.ndim)
        grid = v.shape[:-1]
        if self.coordinates:
            v = jnp.concatenate([v, coordinates(grid, v.dtype)], -1)
        v = self.lifting(v)
        v = jnp.pad(v, [*((0, round(self.padding * n)) for n in grid), (0, 0)])
        for i, (spectral, skip) in enumerate(zip(self.spectral, self.skips, strict=True)):
            activation = gelu if i < len(self.skips) - 1 else lambda v: v
            before, v = v, activation(spectral(v) + skip(v))
            if self.mixers:
                v = activation(self.mixers[i](v) + on_channels(self.gates[i], v) * before)
        v = v[tuple(slice(n) for n in grid)]
        return without_channels(self.projection(v))

    @property
    def num_weights(self) -> int:
        return num_weights(self)
