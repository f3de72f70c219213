"""Affine sets given by linear equations."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import indicator, like_data, norm, parameter, slack


class AffineSet(AbstractFunctional):
    r"""The indicator of $\{x : A x = b\}$.

    The projection is $v - A^+ (A v - b)$ with one minimum-norm lineax solve, so derivatives with
    respect to `v`, `A` and `b` follow lineax's rule. By default that solve is a dense QR (for an
    $m \times n$ matrix, $m \le n$ of full rank: $O(m^2 n)$ per call). For an operator that is too
    large for a matrix, or several projections in a loop, choose the solver, for example
    `lineax.Normal(lineax.CG(rtol, atol))`.

    Inside means: $\|A x - b\| \le \sqrt\varepsilon \max(1, \|b\|)$.

    **Arguments:**

    - `operator`: $A$, a matrix of shape `(m, n)` (for vectors `x`) or any lineax operator.
    - `b`: like the output of $A$.
    - `solver`: a lineax solver that returns minimum-norm solutions; `lineax.SVD()` for a matrix
        without full rank.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.AffineSet(jnp.array([[1.0, 1.0, 0.0]]), jnp.array([2.0]))
        >>> g.prox(jnp.array([0.0, 0.0, 5.0]), 1.0).round(5)
        Array([1., 1., 5.], dtype=float32)

        ```
    """

    operator: Inexact[Array, "m n"] | lx.AbstractLinearOperator
    b: PyTree[Array]
    solver: lx.AbstractLinearSolver

    def __init__(
        self,
        operator: Inexact[ArrayLike, "m n"] | lx.AbstractLinearOperator,
        b: PyTree[ArrayLike],
        *,
        solver: lx.AbstractLinearSolver | None = None,
    ):
        self.b = parameter("b", b)
        if isinstance(operator, lx.AbstractLinearOperator):
            self.operator = operator
            want = operator.out_structure()
        else:
            self.operator = jnp.asarray(operator)
            want = jax.ShapeDtypeStruct(self.operator.shape[:1], self.operator.dtype)
        got = jax.tree.map(jnp.shape, self.b)
        if got != jax.tree.map(lambda s: s.shape, want):
            raise ValueError(
                f"`b` must have the shape of the output of `operator`, {want}, got {got}"
            )
        self.solver = lx.AutoLinearSolver(well_posed=None) if solver is None else solver

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        gap = norm(self._residual(x, self._linear(x)))
        return indicator(gap <= slack(gap, norm(self.b)), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        linear = self._linear(v)
        step = lx.linear_solve(linear, self._residual(v, linear), self.solver).value
        return jax.tree.map(lambda x, d: x - d, v, step)

    def _linear(self, x):
        if isinstance(self.operator, lx.AbstractLinearOperator):
            return self.operator
        return lx.MatrixLinearOperator(self.operator.astype(x.dtype))

    def _residual(self, x, linear):
        return jax.tree.map(lambda y, b: y - like_data(b, y), linear.mv(x), self.b)
