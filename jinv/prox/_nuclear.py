"""Low-rank functionals: the nuclear norm and its ball."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Real

from jinv._functional import AbstractFunctional

from ._simplex import l1_threshold
from ._spectral import shrink_singular_values
from ._util import indicator, like, parameter, slack


class NuclearNorm(AbstractFunctional):
    r"""The nuclear norm of a matrix, $g(X) = w \sum_i \sigma_i(X)$.

    The prox soft-thresholds the singular values: the convex way to low rank. One SVD; the
    derivative is exact also at repeated and zero singular values.

    **Arguments:**

    - `weight`: $w \ge 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> X = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> jinv.prox.NuclearNorm(2.0).prox(X, 1.0).round(3) + 0.0
        Array([[1., 0.],
               [0., 0.]], dtype=float32)

        ```

    Source: J.-F. Cai, E. J. Candès and Z. Shen, "A Singular Value Thresholding Algorithm for
    Matrix Completion", SIAM J. Optim., 2010.
    """

    weight: Real[Array, ""]

    def __init__(self, weight: Real[ArrayLike, ""] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: Inexact[Array, "m n"]) -> Real[Array, ""]:
        return like(self.weight, x) * jnp.sum(jnp.linalg.svd(x, compute_uv=False))

    def prox(self, v: Inexact[Array, "m n"], step_size: Real[ArrayLike, ""]) -> Array:
        return shrink_singular_values(v, like(step_size, v) * like(self.weight, v))

    def conjugate(self, z: Inexact[Array, "m n"]) -> Real[Array, ""]:
        r"""$g^*(Z)$: 0 where the largest singular value is at most $w$, else infinite."""
        w = like(self.weight, z)
        return indicator(jnp.linalg.norm(z, ord=2) <= w + slack(z, w), z)


class NuclearBall(AbstractFunctional):
    r"""The indicator of $\{X : \sum_i \sigma_i(X) \le r\}$, matrices of bounded nuclear norm.

    The projection puts the singular values on the l1 ball. Two SVDs, one of them of values only.

    **Arguments:**

    - `radius`: $r \ge 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> X = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> jinv.prox.NuclearBall(2.0).prox(X, 1.0).round(3) + 0.0
        Array([[2., 0.],
               [0., 0.]], dtype=float32)

        ```
    """

    radius: Real[Array, ""]

    def __init__(self, radius: Real[ArrayLike, ""] = 1.0):
        self.radius = parameter("radius", radius, least=0.0)

    def __call__(self, x: Inexact[Array, "m n"]) -> Real[Array, ""]:
        r = like(self.radius, x)
        return indicator(jnp.sum(jnp.linalg.svd(x, compute_uv=False)) <= r + slack(x, r), x)

    def prox(self, v: Inexact[Array, "m n"], step_size: Real[ArrayLike, ""]) -> Array:
        values = jnp.linalg.svd(v, compute_uv=False)
        return shrink_singular_values(v, l1_threshold(values, like(self.radius, v)))
