"""Hyperplane and half-space."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import (
    indicator,
    inner,
    like,
    like_data,
    parameter,
    slack,
    spread,
    squares,
    times,
    total,
)


class Hyperplane(AbstractFunctional):
    r"""The indicator of the hyperplane $\{\langle a, x\rangle = b\}$.

    For many equations at once use `AffineSet`. Inside means: up to
    $\sqrt\varepsilon\max(1, |b|, |a|)$.

    **Arguments:**

    - `a`: the normal, like `x`, not zero.
    - `b`: a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Hyperplane(jnp.array([1.0, 1.0]), 2.0).prox(jnp.array([3.0, 1.0]), 1.0)
        Array([2., 0.], dtype=float32)

        ```
    """

    a: PyTree[Array]
    b: Real[Array, ""]

    def __init__(self, a: PyTree[ArrayLike], b: Real[ArrayLike, ""] = 0.0):
        self.a = parameter("a", a)
        self.b = parameter("b", b)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        gap, tol = _gap(self.a, self.b, x)
        return indicator(jnp.abs(gap) <= tol, x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        gap, _ = _gap(self.a, self.b, v)
        return _move(v, self.a, gap)


class HalfSpace(AbstractFunctional):
    r"""The indicator of the half-space $\{\langle a, x\rangle \le b\}$.

    **Arguments:**

    - `a`: the outward normal, like `x`, not zero.
    - `b`: a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.HalfSpace(jnp.array([1.0, 1.0]), 2.0).prox(jnp.array([1.0, 0.0]), 1.0)
        Array([1., 0.], dtype=float32)

        ```
    """

    a: PyTree[Array]
    b: Real[Array, ""]

    def __init__(self, a: PyTree[ArrayLike], b: Real[ArrayLike, ""] = 0.0):
        self.a = parameter("a", a)
        self.b = parameter("b", b)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        gap, tol = _gap(self.a, self.b, x)
        return indicator(gap <= tol, x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        gap, _ = _gap(self.a, self.b, v)
        return _move(v, self.a, jax.nn.relu(gap))


def _gap(a, b, x):
    product = inner(a, x)
    b = like(b, product)
    return product - b, slack(product, b, *jax.tree.leaves(a))


def _move(v, a, gap):
    a = jax.tree.map(lambda p, x: jnp.broadcast_to(like_data(p, x), x.shape), spread(a, v), v)
    length = total(squares, a)
    factor = gap / jnp.where(length > 0, length, 1)
    return jax.tree.map(lambda x, p: x - times(p, like(factor, x)), v, a)
