"""Random geometries and coefficients: what linear solvers are trained and tested on."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..operators._checks import as_inexact, as_shape
from ._diffusion import FLUID, SOLID, Diffusion


def random_obstacles(
    shape: int | Sequence[int], *, key: PRNGKeyArray, count: int = 3
) -> Int[Array, "..."]:
    """Cells of a fluid (0) among solid obstacles (1): balls, tilted bars and thin plates.

    `count` of each kind, a third of them absent at random; sizes are relative to the domain, and
    plates are one to three cells thick, so that the same key gives the same picture at
    every size but for the plates.

    **Arguments:**

    - `shape`: cells along each axis.
    - `key`: a JAX PRNG key.
    - `count`: the largest number of obstacles of each kind.

    **Returns:** integers for [`jinv.linear.pressure_poisson`][].

    !!! example
        ```python
        >>> import jax, jinv
        >>> cells = jinv.linear.random_obstacles((64, 64), key=jax.random.key(0))
        >>> A = jinv.linear.pressure_poisson(cells, open_sides=[(0, 1)])

        ```
    """
    shape = as_shape(shape)
    longest = max(shape)
    centres = [(jnp.arange(n, dtype=float) + 0.5) / longest for n in shape]
    x = jnp.stack(jnp.meshgrid(*centres, indexing="ij"))
    extent = jnp.asarray([n / longest for n in shape])

    def one(key):
        keys = jax.random.split(key, 5)
        places = jax.random.uniform(keys[0], (3, len(shape))) * extent[None]
        away = x[None] - places.reshape(3, len(shape), *[1] * len(shape))
        radius, thin = jax.random.uniform(
            keys[1], (2,), minval=jnp.asarray([0.03, 0.01]), maxval=jnp.asarray([0.16, 0.05])
        )
        long = jax.random.uniform(keys[2], (2,), minval=0.08, maxval=0.3)
        ball = jnp.sum(away[0] ** 2, axis=0) < radius**2
        frame = _frame(jax.random.normal(keys[3], (len(shape),) * 2))
        bar = _box(jnp.abs(jnp.tensordot(frame, away[1], axes=1)), thin, long[0])
        thick = jax.random.randint(keys[4], (), 1, 4).astype(x.dtype) / (2 * longest)
        axis = jax.random.randint(keys[4], (), 0, len(shape))
        plate = _box(jnp.roll(jnp.abs(away[2]), axis, axis=0), thick, long[1])
        there = jax.random.uniform(jax.random.fold_in(key, 5), (3,)) < 2 / 3
        return (ball & there[0]) | (bar & there[1]) | (plate & there[2])

    solid = jnp.any(jax.vmap(one)(jax.random.split(key, count)), axis=0)
    return jnp.where(solid, SOLID, FLUID)


def random_source(operator: Diffusion, *, key: PRNGKeyArray) -> Float[Array, "..."]:
    r"""A random right-hand side in the range of the operator, whatever regions are cut off: half
    (in norm) the divergence of a random flux, which has the operator itself as covariance, half
    the operator applied to random walks along an axis, which excite the smooth errors.

    **Arguments:**

    - `operator`: a [`jinv.linear.Diffusion`][].
    - `key`: a JAX PRNG key.

    **Returns:** an array of the shape of the grid.

    !!! example
        ```python
        >>> import jax, jinv
        >>> A = jinv.linear.poisson((32, 32), boundary="neumann")
        >>> b = jinv.linear.random_source(A, key=jax.random.key(0))
        >>> bool(abs(b.sum()) < 1e-3)
        True

        ```
    """
    keys = jax.random.split(key, len(operator.faces) + 1)
    shape, dtype = operator.shape, operator.sink.dtype
    rough = jnp.zeros(shape, dtype)
    for axis, w in enumerate(operator.faces):
        flux = jnp.sqrt(w) * jax.random.normal(keys[axis], w.shape, dtype)
        rough = rough + jnp.diff(flux, axis=axis)
    steps = jax.random.normal(keys[-1], shape, dtype)
    smooth = operator.mv(jnp.where(operator.active(), jnp.cumsum(steps, axis=0), 0))
    return _unit(rough) + _unit(smooth)


def _unit(x):
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0, norm, 1)


def _frame(vectors):
    """Orthonormal vectors from independent ones."""
    frame = []
    for v in vectors:
        for u in frame:
            v = v - jnp.vdot(u, v) * u
        frame.append(v / jnp.linalg.norm(v))
    return jnp.stack(frame)


def _box(away, thin, long):
    if len(away) == 1:
        return away[0] <= thin
    return (away[0] <= thin) & jnp.all(away[1:] <= long, axis=0)


def random_coefficient(
    shape: int | Sequence[int],
    *,
    key: PRNGKeyArray,
    contrast: float = 1e3,
    length: float = 0.1,
    smooth: bool = False,
    dtype=None,
) -> Float[Array, "..."]:
    """A random coefficient with jumps: `contrast` inside and 1 outside the level sets of a
    smooth Gaussian field; with `smooth` the lognormal field itself, of about that range.

    **Arguments:**

    - `shape`: cells along each axis.
    - `key`: a JAX PRNG key.
    - `contrast`: the ratio of the two values.
    - `length`: the correlation length, relative to the longest side.
    - `smooth`: a coefficient without jumps.
    - `dtype`: the default floating-point dtype if `None`.

    **Returns:** positive values for [`jinv.linear.heterogeneous_diffusion`][].

    Raises `ValueError` for a contrast or a length that is not positive.

    !!! example
        ```python
        >>> import jax, jinv
        >>> k = jinv.linear.random_coefficient((64, 64), key=jax.random.key(0))
        >>> A = jinv.linear.heterogeneous_diffusion(k)

        ```
    """
    shape, dtype = as_shape(shape), as_inexact(dtype)
    if not contrast > 0 or not length > 0:
        raise ValueError(f"contrast and length must be positive, got {contrast}, {length}.")
    frequencies = [jnp.fft.fftfreq(n) * max(shape) for n in shape]
    squares = sum(jnp.square(f) for f in jnp.meshgrid(*frequencies, indexing="ij"))
    white = jnp.fft.fftn(jax.random.normal(key, shape, dtype))
    window = jnp.exp(-0.5 * (2 * jnp.pi * length / 2) ** 2 * squares).astype(dtype)
    field = jnp.fft.ifftn(white * window.astype(white.dtype)).real.astype(dtype)
    field = field - jnp.mean(field)
    logarithm = jnp.log(jnp.asarray(contrast, dtype))
    if smooth:
        # Four standard deviations span the range.
        return jnp.exp(field / jnp.std(field) * logarithm / 4)
    return jnp.exp(jnp.where(field > 0, logarithm, 0))
