"""Gaussian random fields on the unit interval, square or cube."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..operators._checks import as_shape
from ._checks import check_count, check_positive


Boundary = Literal["neumann", "dirichlet", "periodic"]
Grid = Literal["nodes", "cells"]


class GaussianField(eqx.Module):
    r"""The Gaussian random field $N(0, \sigma^2 (-\Delta + \tau^2)^{-\alpha})$ of mean zero on
    $(0, 1)^d$: $\sum_k \sigma (\lambda_k + \tau^2)^{-\alpha/2} \xi_k \phi_k(x)$ over the
    non-constant eigenfunctions of the Laplacian, with independent standard normal $\xi_k$.

    With Neumann conditions $\phi_k = \prod_a \sqrt{2}\cos(\pi k_a x_a)$ (without the root where
    $k_a = 0$) and $\lambda_k = \pi^2|k|^2$; with Dirichlet conditions sines alone, so that samples
    are zero on the boundary; periodic ones have sines too, and $4\pi^2|k|^2$.
    Larger $\tau$ gives shorter correlation lengths, larger $\alpha$ smoother fields:
    samples have less than $\alpha - d/2$ derivatives.

    **Arguments:**

    - `alpha`: $\alpha$, more than $d/2$ for a variance that does not depend on the grid.
    - `tau`: $\tau$, in units of 1 / length.
    - `sigma`: $\sigma$; if left out $\tau^{\alpha - d/2}$, for which the variance is about that
        of unit scale whatever $\tau$ is.
    - `boundary`: `"neumann"`, `"dirichlet"` or `"periodic"`.
    - `num_modes`: keep the terms of smallest $|k|^2$ only (ties in lexicographic order; Neumann
        only). By default as many as the grid has points.

    Raises `ValueError` for numbers that are not positive and for an unknown boundary.

    !!! example
        ```python
        >>> import jax, jinv
        >>> field = jinv.pde.GaussianField(alpha=2.0, tau=3.0)
        >>> field.sample((64, 64), key=jax.random.key(0)).shape
        (64, 64)

        ```

    ??? cite "Source"
        Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart and
        A. Anandkumar, "Fourier Neural Operator for Parametric Partial Differential Equations",
        ICLR 2021, appendix A.3, and the data generation published with it. As there, the
        constant mode is left out.
    """

    alpha: float | int = eqx.field(static=True)
    tau: float | int = eqx.field(static=True)
    sigma: float | int | None = eqx.field(static=True, default=None)
    boundary: Boundary = eqx.field(static=True, default="neumann")
    num_modes: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_positive(self.alpha, "alpha")
        check_positive(self.tau, "tau")
        if self.sigma is not None:
            check_positive(self.sigma, "sigma")
        if self.boundary not in get_args(Boundary):
            raise ValueError(
                f"`boundary` must be one of {get_args(Boundary)}, got {self.boundary!r}."
            )
        if self.num_modes is not None:
            check_count(self.num_modes, "num_modes")
            if self.boundary != "neumann":
                raise ValueError("`num_modes` needs `boundary` to be 'neumann'.")

    def sample(
        self, shape: int | Sequence[int], *, key: PRNGKeyArray, grid: Grid = "nodes"
    ) -> Float[Array, "..."]:
        r"""One sample in JAX's default float, for `jit` and `vmap` over keys.

        The noise is drawn in float32 whatever the dtype, so that a key means the same field
        with and without x64. It costs $d$ products with a matrix of cosines or sines, or an FFT.

        **Arguments:**

        - `shape`: points along each axis.
        - `key`: a JAX PRNG key.
        - `grid`: where the points are of a field that is not periodic: `"nodes"` at
            $i/(n - 1)$, ends included, or `"cells"` at $(i + 1/2)/n$, where the sum is an inverse
            cosine or sine transform. Periodic fields are at $i/n$.

        **Returns:** the values, of shape `shape`.

        Raises `ValueError` for a wrong shape or grid.
        """
        shape = as_shape(shape)
        if grid not in get_args(Grid):
            raise ValueError(f"`grid` must be one of {get_args(Grid)}, got {grid!r}.")
        if min(shape) < 2:
            raise ValueError(f"`shape` must be at least 2 points along each axis, got {shape}.")
        if self.boundary == "periodic":
            return self._periodic(shape, key)
        dtype = jnp.result_type(float)
        values = self._coefficients(shape, key, dtype)
        for axis, n in enumerate(shape):
            points = np.linspace(0, 1, n) if grid == "nodes" else (np.arange(n) + 0.5) / n
            k = np.arange(values.shape[axis])
            wave, angles = np.cos, np.pi * np.outer(points, k)
            if self.boundary == "dirichlet":
                wave, angles = np.sin, np.where(points[:, None] < 1, angles, 0)
            basis = np.where(k > 0, math.sqrt(2), 1) * wave(angles)
            values = jnp.tensordot(
                jnp.asarray(basis, dtype), values, (1, axis), precision="highest"
            )
            values = jnp.moveaxis(values, 0, axis)
        return values

    def _decay(self, squares):
        """The standard deviation of each term, by its |k|^2."""
        dim, unit = squares.ndim, 2 * np.pi if self.boundary == "periodic" else np.pi
        sigma = self.tau ** (self.alpha - dim / 2) if self.sigma is None else self.sigma
        decay = sigma * (unit**2 * squares + self.tau**2) ** (-self.alpha / 2)
        return np.where(squares > 0, decay, 0)

    def _coefficients(self, shape, key, dtype):
        if self.num_modes is None:
            decay = self._decay(_squares([np.arange(n) for n in shape]))
            return jnp.asarray(decay, dtype) * _noise(key, shape, dtype)
        # The box holds the lowest modes: they lie in a ball, and the box has more than enough.
        side = math.ceil((4 * self.num_modes) ** (1 / len(shape))) + 2
        squares = _squares([np.arange(side)] * len(shape))
        order = sorted(itertools.product(range(side), repeat=len(shape)), key=squares.__getitem__)
        chosen = tuple(np.array(order[1 : self.num_modes + 1]).T)
        terms = jnp.asarray(self._decay(squares)[chosen], dtype)
        terms = terms * _noise(key, (self.num_modes,), dtype)
        return jnp.zeros(squares.shape, dtype).at[chosen].set(terms)

    def _periodic(self, shape, key):
        dtype = jnp.result_type(float)
        last = np.fft.rfftfreq(shape[-1]) * shape[-1]
        squares = _squares([*(np.fft.fftfreq(n) * n for n in shape[:-1]), last])
        filtered = jnp.fft.rfftn(_noise(key, shape, dtype))
        # White noise on the grid has a transform of variance `size`.
        factor = self._decay(squares) * math.sqrt(math.prod(shape))
        return jnp.fft.irfftn(filtered * jnp.asarray(factor, filtered.dtype), s=shape)


def _noise(key, shape, dtype):
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def _squares(frequencies):
    return np.sum(np.square(np.meshgrid(*frequencies, indexing="ij")), axis=0)
