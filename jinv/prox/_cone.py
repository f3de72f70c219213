"""Cones: positive semidefinite matrices and the second-order cone."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Real

from jinv._functional import AbstractFunctional

from ._spectral import positive_part
from ._util import indicator, like, norm, slack, times


class PositiveSemidefinite(AbstractFunctional):
    r"""The indicator of the cone of Hermitian positive semidefinite matrices.

    The projection takes the Hermitian part and drops the negative eigenvalues: one
    eigendecomposition. The derivative is exact also at repeated eigenvalues.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> X = jnp.array([[2.0, 0.0], [0.0, -1.0]])
        >>> jinv.prox.PositiveSemidefinite().prox(X, 1.0)
        Array([[2., 0.],
               [0., 0.]], dtype=float32)

        ```

    Source: N. J. Higham, "Computing a Nearest Symmetric Positive Semidefinite Matrix", Linear
    Algebra Appl., 1988.
    """

    def __call__(self, x: Inexact[Array, "n n"]) -> Real[Array, ""]:
        skew = norm(x - x.conj().T)
        least = jnp.linalg.eigvalsh((x + x.conj().T) / 2)[0]
        tol = slack(x, x)
        return indicator((least >= -tol) & (skew <= tol), x)

    def prox(self, v: Inexact[Array, "n n"], step_size: Real[ArrayLike, ""]) -> Array:
        return positive_part((v + v.conj().T) / 2)


class SecondOrderCone(AbstractFunctional):
    r"""The indicator of the second-order (ice-cream) cone $\{(x, s) : \|x\|_2 \le s\}$ on pairs.

    Inside stays, the polar cone $\|x\| \le -s$ goes to zero, everything else to the boundary:
    $\tfrac12 (1 + s / \|x\|) (x, \|x\|)$.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> point = (jnp.array([3.0, 4.0]), jnp.array(1.0))
        >>> jinv.prox.SecondOrderCone().prox(point, 1.0)
        (Array([1.8000001, 2.4      ], dtype=float32), Array(3., dtype=float32))

        ```

    Source: N. Parikh and S. Boyd, "Proximal Algorithms", Found. Trends Optim., 2014.
    """

    def __call__(self, x: tuple[Inexact[Array, "..."], Real[Array, ""]]) -> Real[Array, ""]:
        size = norm(x[0])
        return indicator(size <= x[1] + slack(size, size), x[1])

    def prox(
        self, v: tuple[Inexact[Array, "..."], Real[Array, ""]], step_size: Real[ArrayLike, ""]
    ) -> tuple[Array, Array]:
        x, s = v
        size = norm(x)
        inside, polar = size <= s, size <= -s
        middle = ~(inside | polar)
        half = (1 + s / jnp.where(middle, size, 1)) / 2
        keep = jnp.where(inside, 1, jnp.where(middle, half, 0))
        last = jnp.where(inside, s, jnp.where(middle, (size + s) / 2, 0))
        return times(x, like(keep, x)), last
