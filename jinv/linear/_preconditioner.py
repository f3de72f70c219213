"""The interface of preconditioners, and the simplest ones."""

import abc

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree


class AbstractReduction(eqx.Module):
    """A smaller symmetric positive definite system with the same solution.

    For solvers that can work on it instead, such as [`jinv.linear.PCG`][]: the norm of its
    residual must be that of the whole system's residual after `extend`.
    """

    operator: eqx.AbstractVar[lx.AbstractLinearOperator]
    preconditioner: eqx.AbstractVar[lx.AbstractLinearOperator]

    @abc.abstractmethod
    def restrict(self, vector: PyTree[Array], y0: PyTree[Array] | None) -> tuple[PyTree, PyTree]:
        """The right-hand side and the first guess (or `None`) of the reduced system."""

    @abc.abstractmethod
    def extend(self, value: PyTree[Array], vector: PyTree[Array]) -> PyTree[Array]:
        """The solution of the whole system from that of the reduced one."""


class AbstractPreconditioner(eqx.Module):
    """How to make an approximate inverse from an operator.

    The making is part of a solve (`solver.init`), so that one solver serves operators that
    change, inside `jit` and `vmap`.
    """

    @abc.abstractmethod
    def init(self, operator: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
        """A symmetric positive definite approximation of the inverse of `operator`."""

    def reduce(self, operator: lx.AbstractLinearOperator) -> AbstractReduction | None:
        """An equivalent smaller system together with its preconditioner, where there is one."""
        return None


class AbstractSymmetricPositive(lx.AbstractLinearOperator):
    """An operator that lineax knows as real, symmetric and positive definite."""

    def as_matrix(self):
        return lx.FunctionLinearOperator(self.mv, self.in_structure()).as_matrix()

    def transpose(self):
        return self

    def out_structure(self):
        return self.in_structure()


for _query in (
    lx.is_negative_semidefinite,
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.has_unit_diagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
):
    _query.register(AbstractSymmetricPositive, lambda operator: False)
for _query in (lx.is_symmetric, lx.is_positive_semidefinite):
    _query.register(AbstractSymmetricPositive, lambda operator: True)
for _query in (lx.linearise, lx.materialise, lx.conj):
    _query.register(AbstractSymmetricPositive, lambda operator: operator)
lx.diagonal.register(AbstractSymmetricPositive, lambda operator: jnp.diagonal(operator.as_matrix()))


class Jacobi(AbstractPreconditioner):
    r"""The inverse of the diagonal, $M^{-1} = D^{-1}$.

    Costs nothing and helps where the diagonal varies. For an operator that does not know its
    diagonal, lineax makes the whole matrix; zero entries of the diagonal count as one.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((16, 16))
        >>> solver = jinv.linear.PCG(1e-5, 0.0, preconditioner=jinv.linear.Jacobi())
        >>> solution = lx.linear_solve(A, jnp.ones((16, 16)), solver)

        ```
    """

    def init(self, operator):
        return Scaling(inverse_diagonal(operator))


class Chebyshev(AbstractPreconditioner):
    r"""A polynomial in $D^{-1} A$: the Chebyshev iteration for the spectrum $[\lambda/c, \lambda]$,
    with Gershgorin's $\lambda \ge \lambda_{\max}(D^{-1}A)$.

    `degree` products and no inner product: for machines where those are dear, and as a smoother.
    Positive definite, because the polynomial's residual is below one on $(0, \lambda]$.

    **Arguments:**

    - `degree`: the degree of the polynomial, that is products per application.
    - `condition`: the ratio $c$; modes below $\lambda / c$ are left to the outer iteration.
    - `bound`: $\lambda$. The default, 2, holds for weakly diagonally dominant operators such as
        [`jinv.linear.Diffusion`][] (Gershgorin); with a larger spectrum it is not definite.

    Raises `ValueError` for a negative degree, and a condition or a bound that is too small.

    Source: Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2003, algorithm 12.1.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((16, 16))
        >>> solver = jinv.linear.PCG(1e-5, 0.0, preconditioner=jinv.linear.Chebyshev(4))
        >>> solution = lx.linear_solve(A, jnp.ones((16, 16)), solver)

        ```
    """

    degree: int = eqx.field(static=True, default=3)
    condition: float = 30.0
    bound: float = 2.0

    def __check_init__(self):
        if self.degree < 0:
            raise ValueError(f"degree must not be negative, got {self.degree}.")
        if not self.condition > 1:
            raise ValueError(f"condition must be greater than 1, got {self.condition}.")
        if not self.bound > 0:
            raise ValueError(f"bound must be positive, got {self.bound}.")

    def init(self, operator):
        scaling = Scaling(inverse_diagonal(operator))
        return ChebyshevOperator(lx.linearise(operator), scaling, self)


class ChebyshevOperator(AbstractSymmetricPositive):
    operator: lx.AbstractLinearOperator
    scaling: lx.AbstractLinearOperator
    rule: Chebyshev

    def mv(self, vector):
        dtype = jnp.result_type(*jax.tree.leaves(vector))
        top = jnp.asarray(self.rule.bound, dtype)
        bottom = top / jnp.asarray(self.rule.condition, dtype)
        centre, width = (top + bottom) / 2, (top - bottom) / 2
        ratio = width / centre / 2
        add = lambda a, x, b, y: jax.tree.map(lambda x, y: a * x + b * y, x, y)
        one = jnp.ones((), dtype)
        step = jax.tree.map(lambda x: x / centre, self.scaling.mv(vector))

        # rho_{k+1} = 1 / (2 centre / width - rho_k); rho_0 = width / centre
        def body(_, carry):
            value, step, rho = carry
            residual = add(one, vector, -one, self.operator.mv(value))
            new = one / (one / ratio - rho)
            step = add(new * rho, step, 2 * new / width, self.scaling.mv(residual))
            return add(one, value, one, step), step, new

        carry = step, step, width / centre
        return jax.lax.fori_loop(0, self.rule.degree, body, carry)[0]

    def in_structure(self):
        return self.operator.in_structure()


class Scaling(AbstractSymmetricPositive):
    """A positive diagonal operator."""

    scale: PyTree[Array]

    def mv(self, vector):
        return jax.tree.map(jnp.multiply, self.scale, vector)

    def as_matrix(self):
        return jnp.diag(jax.flatten_util.ravel_pytree(self.scale)[0])

    def in_structure(self):
        return jax.eval_shape(lambda: self.scale)


def inverse_diagonal(operator: lx.AbstractLinearOperator) -> PyTree[Array]:
    """The inverse of the diagonal, in the structure of the operator's vectors."""
    flat = lx.diagonal(operator)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), operator.in_structure())
    _, unravel = jax.flatten_util.ravel_pytree(zeros)
    return unravel(jnp.where(flat == 0, 1, 1 / jnp.where(flat == 0, 1, flat)))
