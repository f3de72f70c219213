"""Weights that are never negative: by a projection after each step, or by a parametrisation."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


Rule = Literal["clip", "softplus", "square"]


class NonNegative(eqx.Module):
    r"""An array whose `value` has no negative entry, whatever is stored.

    `"clip"` stores the entries themselves and reads $\max(w, 0)$; train it with
    [`jinv.nn.keep_nonnegative`][] at the end of the optax chain, which puts entries that would
    become negative at zero (an entry below zero has no gradient and would stay there).
    `"softplus"` reads $\log(1 + e^w)$ and `"square"` reads $w^2$: no projection, but entries
    never become exactly zero, or leave zero slowly.

    **Arguments:**

    - `value`: the entries, not negative.
    - `rule`: how they are stored.

    **Raises:** `ValueError` for an unknown `rule`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> weights = jinv.nn.NonNegative(jnp.array([0.5, 2.0]), "square")
        >>> jnp.round(weights.value, 3)
        Array([0.5, 2. ], dtype=float32)

        ```
    """

    stored: Float[Array, "..."]
    rule: Rule = eqx.field(static=True)

    def __init__(self, value: Float[Array, "..."], rule: Rule = "clip"):
        if rule not in ("clip", "softplus", "square"):
            raise ValueError(f"`rule` must be 'clip', 'softplus' or 'square', got {rule!r}")
        self.rule = rule
        if rule == "softplus":
            # The inverse; below 1e-8 it would be minus infinity.
            value = jnp.maximum(value, 1e-8)
            value = value + jnp.log(-jnp.expm1(-value))
        self.stored = jnp.sqrt(value) if rule == "square" else value

    @property
    def value(self) -> Float[Array, "..."]:
        if self.rule == "softplus":
            return jax.nn.softplus(self.stored)
        if self.rule == "square":
            return self.stored**2
        # Unlike `maximum`, this has the full derivative at zero, so that entries can return.
        return jnp.where(self.stored >= 0, self.stored, 0)


def keep_nonnegative() -> optax.GradientTransformation:
    """The projection for `NonNegative` weights of rule `"clip"`: the last of an optax chain.

    `optax.keep_params_nonnegative`, for these weights of a model only.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv, optax
        >>> weights = jinv.nn.NonNegative(jnp.array([0.5, 2.0]))
        >>> chain = optax.chain(optax.sgd(1.0), jinv.nn.keep_nonnegative())
        >>> slope = jinv.nn.NonNegative(jnp.array([1.0, 1.0]))
        >>> updates, _ = chain.update(slope, chain.init(weights), weights)
        >>> optax.apply_updates(weights, updates).stored
        Array([0., 1.], dtype=float32)

        ```
    """
    is_node = lambda node: isinstance(node, NonNegative)
    clipped = lambda node: is_node(node) and node.rule == "clip"

    def mask(params):
        return jax.tree.map(clipped, params, is_leaf=is_node)

    return optax.masked(optax.keep_params_nonnegative(), mask)
