"""The (weighted) l1 norm."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from ._separable import AbstractSeparable
from ._util import all_true, clip_modulus, indicator, leafwise, parameter, shrink, slack, total


class L1(AbstractSeparable):
    r"""The weighted l1 norm $g(x) = \sum_i w_i |x_i|$.

    The prox is soft thresholding by $t w_i$ (of the modulus for complex entries), the prox of
    the conjugate is clipping to $[-w_i, w_i]$. Use it for sparsity, and as
    `Translated(L1(), y)` for the robust data term $\|x - y\|_1$. Two operations per entry.

    **Arguments:**

    - `weight`: $w \ge 0$; a scalar, an array that broadcasts against `x`, or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.L1(0.5).prox(jnp.array([2.0, -0.3, -1.0]), 1.0)
        Array([ 1.5,  0. , -0.5], dtype=float32)

        ```

    Source: A. Beck and M. Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for
    Linear Inverse Problems", SIAM J. Imaging Sci., 2009.
    """

    weight: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w: w * jnp.abs(u), x, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(lambda u, t, w: shrink(u, t * w), v, step_size, self.weight)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(clip_modulus, z, self.weight)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where all $|z_i| \le w_i$, else infinite."""
        return indicator(all_true(lambda u, w: jnp.abs(u) <= w + slack(u, w), z, self.weight), z)
