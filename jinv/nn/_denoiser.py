"""Denoisers that are no proximal maps, to compare with."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._convolution import convolve
from ._potential import in_dtype
from ._tiled import Tiling


class ConvDenoiser(eqx.Module):
    r"""A convolutional network that predicts the noise, $D(y) = y - N(y)$: 3 x 3 convolutions
    with rectifiers, for images of any size, without any constraint.

    Trained by the squared error it is the usual plug-and-play denoiser; nothing is known about
    the convergence with it, and there is no functional behind it. Use it in solvers through
    [`jinv.prox.PlugIn`][].

    **Arguments:**

    - `channels`, `depth`: of the hidden layers.
    - `key`: for the initial weights; the last layer starts small.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> denoiser = jinv.nn.ConvDenoiser(8, 2, key=jax.random.key(0))
        >>> denoiser(jnp.ones((12, 10))).shape
        (12, 10)
        >>> prior = jinv.prox.PlugIn(lambda v, step_size: denoiser(v))

        ```

    ??? cite "Source"
        Zhang, Zuo, Chen, Meng, Zhang, Beyond a Gaussian denoiser: residual learning of deep CNN
        for image denoising, 2017. Deviation: no batch normalisation.
    """

    kernels: tuple[Float[Array, "3 3 _ _"], ...]
    biases: tuple[Float[Array, " _"], ...]

    def __init__(self, channels: int = 32, depth: int = 4, *, key: PRNGKeyArray):
        if channels < 1 or depth < 1:
            raise ValueError(f"`channels` and `depth` must be positive, got {channels}, {depth}")
        keys = jax.random.split(key, depth + 1)
        sizes = [1, *[channels] * depth, 1]
        scale = lambda i: (2 / (9 * sizes[i])) ** 0.5 if i < depth else 0.01
        self.kernels = tuple(
            scale(i) * jax.random.normal(keys[i], (3, 3, sizes[i], sizes[i + 1]))
            for i in range(depth + 1)
        )
        self.biases = tuple(jnp.zeros(channels) for _ in range(depth))

    def __call__(self, y: Float[Array, "H W"]) -> Float[Array, "H W"]:
        self = in_dtype(self, y.dtype)
        z = y[..., None]
        for kernel, bias in zip(self.kernels[:-1], self.biases, strict=True):
            z = jax.nn.relu(convolve(z, kernel, 1) + bias[None, None])
        return y - convolve(z, self.kernels[-1], 1)[..., 0]


class _Sandwich(eqx.Module):
    r"""$\sqrt2 A^T \Psi s(\sqrt2 \Psi^{-1} B h + b)$ with $A A^T + B B^T = I$: 1-Lipschitz."""

    square: Float[Array, "out out"]
    rest: Float[Array, "size out"]
    log_scale: Float[Array, " out"]
    bias: Float[Array, " out"]

    def maps(self):
        """$A$ and $B$, by the Cayley transform of a skew matrix."""
        skew = self.square - self.square.T + self.rest.T @ self.rest
        eye = jnp.eye(len(skew), dtype=skew.dtype)
        inverse = jnp.linalg.inv(eye + skew)
        return ((eye - skew) @ inverse).T, -2 * (self.rest @ inverse).T

    def __call__(self, h):
        a, b = self.maps()
        scale, root = jnp.exp(self.log_scale), 2.0**0.5
        z = jax.nn.relu(root * (b @ h) / scale + self.bias)
        return root * a.T @ (scale * z)


class LipschitzDenoiser(eqx.Module):
    r"""A denoiser with Lipschitz constant at most 1, whatever its weights are, for arrays or, on
    patches with equal cover of every pixel, images of any size.

    The half of the sum with the identity, $\tfrac12(y + N(y))$ with a 1-Lipschitz $N$ of sandwich
    layers, is firmly non-expansive: plug-and-play with it converges to a fixed point, but no
    functional is behind it, as its Jacobian is not symmetric.

    **Arguments:**

    - `shape`: of the patches.
    - `widths`: the units of the hidden layers.
    - `stride`: of the patches, a divisor of their sides; `None` for arrays of `shape` only.
    - `key`: for the initial weights.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> denoiser = jinv.nn.LipschitzDenoiser((4, 4), (24,), stride=2, key=jax.random.key(0))
        >>> denoiser(jnp.ones((9, 6))).shape
        (9, 6)

        ```

    ??? cite "Source"
        Wang and Manchester, Direct parameterization of Lipschitz-bounded deep networks, 2023,
        eq. 8 to 10 (the sandwich layer).
    """

    layers: tuple[_Sandwich, ...]
    last: _Sandwich
    shape: tuple[int, ...] = eqx.field(static=True)
    tiling: Tiling | None

    def __init__(
        self,
        shape: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        stride: int | None = None,
        key: PRNGKeyArray,
    ):
        if not widths or min(*shape, *widths) < 1:
            raise ValueError(f"`shape` and `widths` must be positive, got {shape}, {widths}")
        size = math.prod(shape)
        keys = iter(jax.random.split(key, 2 * len(widths) + 2))
        sizes = [size, *widths, size]
        layers: list[Any] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            square = jax.random.normal(next(keys), (after, after)) / after**0.5
            rest = jax.random.normal(next(keys), (before, after)) / before**0.5
            layers.append(_Sandwich(square, rest, jnp.zeros(after), jnp.zeros(after)))
        self.layers, self.last = tuple(layers[:-1]), layers[-1]
        self.shape = tuple(shape)
        self.tiling = None if stride is None else Tiling((shape[0], shape[1]), stride)

    def __call__(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        self = in_dtype(self, y.dtype)
        tiling = self.tiling
        if tiling is None:
            return 0.5 * (y + self._one(y))
        return 0.5 * (y + tiling.mean(jax.vmap(self._one)(tiling.patches(y)), y.shape))

    def _one(self, y):
        h = y.reshape(-1)
        for layer in self.layers:
            h = layer(h)
        # A last layer without activation is the product with a matrix of norm at most 1.
        return (self.last.maps()[1] @ h).reshape(y.shape)
