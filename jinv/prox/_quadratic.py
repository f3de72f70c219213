"""Squared Euclidean norm, and the elastic net built on it."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from ._separable import AbstractSeparable
from ._util import leafwise, over, parameter, shrink, squares, times, total


class SquaredL2(AbstractSeparable):
    r"""Half the weighted squared norm, $g(x) = \tfrac12 \sum_i w_i |x_i|^2$ (ridge, Tikhonov).

    The prox is the division by $1 + t w_i$. As a data term $\tfrac12\|x - y\|^2$ write
    `Translated(SquaredL2(), y)`.

    **Arguments:**

    - `weight`: $w \ge 0$; a scalar, an array that broadcasts against `x`, or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.SquaredL2(3.0).prox(jnp.array([4.0, -8.0]), 1.0)
        Array([ 1., -2.], dtype=float32)

        ```
    """

    weight: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w: w * squares(u), x, self.weight) / 2

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(lambda u, t, w: over(u, 1 + t * w), v, step_size, self.weight)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(lambda u, s, w: times(u, w / (w + s)), z, step_size, self.weight)

    def has_fast_prox(self):
        return True

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z) = \tfrac12 \sum_i |z_i|^2 / w_i$, with $0/0 = 0$."""

        def entry(u, w):
            size, free = squares(u), jnp.broadcast_to(w > 0, u.shape)
            closed = jnp.where(size > 0, jnp.inf, jnp.zeros_like(size))
            return jnp.where(free, size / jnp.where(w > 0, w, 1), closed)

        return total(entry, z, self.weight) / 2


class ElasticNet(AbstractSeparable):
    r"""The elastic net, $g(x) = \lambda_1 \|x\|_1 + \tfrac{\lambda_2}{2} \|x\|_2^2$.

    The prox is soft thresholding by $t\lambda_1$ followed by the division by $1 + t\lambda_2$.
    Sparse like `L1`, but strongly convex: solvers converge linearly.

    **Arguments:**

    - `l1`, `l2`: $\lambda_1, \lambda_2 \ge 0$; scalars, arrays or PyTrees like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.ElasticNet(1.0, 3.0).prox(jnp.array([5.0, -0.5]), 1.0)
        Array([1., 0.], dtype=float32)

        ```

    Source: H. Zou and T. Hastie, "Regularization and Variable Selection via the Elastic Net",
    J. R. Stat. Soc. B, 2005.
    """

    l1: PyTree[Array]
    l2: PyTree[Array]

    def __init__(self, l1: PyTree[ArrayLike] = 1.0, l2: PyTree[ArrayLike] = 1.0):
        self.l1 = parameter("l1", l1, least=0.0)
        self.l2 = parameter("l2", l2, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, a, b: a * jnp.abs(u) + b * squares(u) / 2, x, self.l1, self.l2)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, a, b):
            return over(shrink(u, t * a), 1 + t * b)

        return leafwise(entry, v, step_size, self.l1, self.l2)
