"""A potential in other units."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from ._potential import AbstractConvexPotential


class Rescaled(AbstractConvexPotential):
    r"""The potential $\psi_c(y) = \psi(c y) / c^2$, with the gradient $f(c y) / c$.

    A network trained at noise $\sigma$ becomes one for noise $\sigma / c$ and data scaled
    likewise: the knob for the noise level that leaves a prox a prox, of $R(c x) / c^2$.

    **Arguments:**

    - `potential`: $\psi$.
    - `scale`: $c > 0$.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> potential = jinv.nn.dense_icnn(2, (8, 8), key=jax.random.key(0))
        >>> y = jnp.array([1.0, 2.0])
        >>> half = jinv.nn.Rescaled(potential, 2.0).gradient(y)
        >>> bool(jnp.allclose(half, potential.gradient(2 * y) / 2))
        True

        ```
    """

    potential: AbstractConvexPotential
    scale: Real[Array, ""]
    shape: tuple[int, ...] = eqx.field(static=True)
    strong_convexity: float = eqx.field(static=True)

    def __init__(self, potential: AbstractConvexPotential, scale: Real[ArrayLike, ""]):
        if isinstance(scale, float | int) and not scale > 0:
            raise ValueError(f"`scale` must be positive, got {scale}")
        self.potential, self.scale = potential, jnp.asarray(scale)
        self.shape, self.strong_convexity = potential.shape, potential.strong_convexity

    def __call__(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        c = jnp.asarray(self.scale, y.dtype)
        return self.potential(c * y) / c**2

    def recession(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        return self.potential.recession(direction) / jnp.asarray(self.scale, direction.dtype)

    def value_and_gradient(self, y):
        c = jnp.asarray(self.scale, y.dtype)
        value, gradient = self.potential.value_and_gradient(c * y)
        return value / c**2, gradient / c

    def gradient(self, y):
        return self.value_and_gradient(y)[1]
