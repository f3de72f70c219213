"""Norms of the whole array: Euclidean and maximum norm."""

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._simplex import l1_threshold
from ._util import clip_modulus, indicator, like, norm, parameter, shrink, slack, times, total


class L2(AbstractFunctional):
    r"""The Euclidean norm of everything, $g(x) = w \|x\|_2$ (not squared).

    The prox shortens the whole vector by $t w$ and is zero when it is shorter than that (group
    lasso with one group; use `GroupL2` for many). One reduction.

    **Arguments:**

    - `weight`: $w \ge 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.L2(2.5).prox(jnp.array([3.0, 4.0]), 1.0)
        Array([1.5, 2. ], dtype=float32)

        ```
    """

    weight: Real[Array, ""]

    def __init__(self, weight: Real[ArrayLike, ""] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        size = norm(x)
        return like(self.weight, size) * size

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        size = norm(v)
        threshold = like(step_size, size) * like(self.weight, size)
        keep = size > threshold
        factor = jnp.where(keep, 1 - threshold / jnp.where(keep, size, 1), 0)
        return jax.tree.map(lambda x: times(x, like(factor, x)), v)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        size = norm(z)
        bound = like(self.weight, size)
        out = size > bound
        factor = jnp.where(out, bound / jnp.where(out, size, 1), 1)
        return jax.tree.map(lambda x: times(x, like(factor, x)), z)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where $\|z\| \le w$, else infinite."""
        size = norm(z)
        bound = like(self.weight, size)
        return indicator(size <= bound + slack(size, bound), z)


class LInf(AbstractFunctional):
    r"""The maximum norm, $g(x) = w \max_i |x_i|$.

    The prox cuts the largest entries down to a common level: $v$ minus its projection onto the
    l1 ball of radius $t w$ (Moreau). A few passes over the data (see `Simplex`).

    **Arguments:**

    - `weight`: $w \ge 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.LInf(3.0).prox(jnp.array([5.0, -4.0, 1.0]), 1.0)
        Array([ 3., -3.,  1.], dtype=float32)

        ```
    """

    weight: Real[Array, ""]

    def __init__(self, weight: Real[ArrayLike, ""] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        largest = [jnp.max(jnp.abs(u)) for u in jax.tree.leaves(x)]
        size = jnp.max(jnp.stack(largest))
        return like(self.weight, size) * size

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        flat, unravel = jax.flatten_util.ravel_pytree(v)
        radius = like(step_size, flat) * like(self.weight, flat)
        return unravel(clip_modulus(flat, l1_threshold(jnp.abs(flat), radius)))

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        flat, unravel = jax.flatten_util.ravel_pytree(z)
        return unravel(shrink(flat, l1_threshold(jnp.abs(flat), like(self.weight, flat))))

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where $\|z\|_1 \le w$, else infinite."""
        size = total(jnp.abs, z)
        bound = like(self.weight, size)
        return indicator(size <= bound + slack(size, bound), z)
