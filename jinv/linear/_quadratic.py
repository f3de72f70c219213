"""Quadratic forms of a few features: the smallest trainable functions."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Quadratic(eqx.Module):
    r"""$\sum_{i \le j} c_{ij} \phi_i \phi_j$ with $\phi = (1, \text{features})$, limited to
    $\pm$ `limit`; elementwise over arrays."""

    coefficients: Float[Array, " terms"]
    limit: float = eqx.field(static=True)

    def __init__(self, features: int, *, limit: float = 3.0, dtype=None):
        self.coefficients = jnp.zeros((features + 1) * (features + 2) // 2, dtype)
        self.limit = limit

    def __call__(self, *features: Float[Array, "..."]) -> Float[Array, "..."]:
        terms = iter(self.coefficients.astype(features[0].dtype))
        total = next(terms) + jnp.zeros_like(features[0])
        for i, x in enumerate(features):
            total = total + next(terms) * x
            for y in features[i:]:
                total = total + next(terms) * x * y
        return self.limit * jnp.tanh(total / self.limit)
