"""What is solved: problems own their optimality condition; one implicit rule serves all."""

import abc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree, Real

from . import _tree
from ._linear import general_solver, symmetric_solver


Y = TypeVar("Y")


class AbstractProblem(eqx.Module, Generic[Y]):
    """What is solved. A problem owns the condition that holds at a solution and nowhere else
    near it; how the solution is found is the solver's business.

    A new problem says `optimality` and nothing else. The remaining methods exist for problems
    whose solution point carries more than the user's unknown (a dual variable).
    """

    @abc.abstractmethod
    def optimality(self, point: PyTree[Array], args: PyTree) -> PyTree[Array]:
        """A residual of the structure of `point` that is zero exactly at a solution."""

    def initial_point(self, y0: Y, args: PyTree) -> PyTree[Array]:
        """The point from which a solver starts, made from the user's guess."""
        return y0

    def primal(self, point: PyTree[Array]) -> Y:
        """What the user asked for, out of a solution point."""
        return point

    def dual(self, point: PyTree[Array]) -> PyTree[Array]:
        """The dual part of a solution point, `None` where there is none."""
        return None

    def linear_solver(
        self, point: PyTree[Array], args: PyTree, rtol: Any
    ) -> lx.AbstractLinearSolver:
        """A linear solver that suits the Jacobian of `optimality` (see `ImplicitAdjoint`).

        `rtol` is the relative accuracy of `point` as its solver was asked for; solving far
        below it gains nothing.
        """
        return general_solver(point)

    def tags(self) -> frozenset[object]:
        """lineax tags of the Jacobian of `optimality`."""
        return frozenset()


class FixedPoint(AbstractProblem):
    """The fixed point `y = fn(y, args)`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, optimistix as optx, jinv
        >>> problem = jinv.FixedPoint(lambda y, args: args * jnp.cos(y))
        >>> solver = optx.FixedPointIteration(rtol=1e-5, atol=1e-5)
        >>> sol = jinv.solve(problem, solver, jnp.array(1.0), args=0.5)
        >>> bool(abs(sol.value - 0.5 * jnp.cos(sol.value)) < 1e-5)
        True

        ```

    **Arguments:**

    - `fn`: a function `fn(y, args)` that returns the structure of `y`.
    """

    fn: Callable[[Any, Any], Any]

    def optimality(self, point, args):
        return _tree.subtract(point, self.fn(point, args))


class RootFind(AbstractProblem):
    """The root `fn(y, args) = 0`, with as many equations as unknowns.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, optimistix as optx, jinv
        >>> problem = jinv.RootFind(lambda y, args: y**2 - args)
        >>> newton = optx.Newton(rtol=1e-6, atol=1e-6)
        >>> def root(a):
        ...     return jinv.solve(problem, newton, jnp.array(1.0), a).value
        >>> round(float(jax.grad(root)(4.0)), 4)  # 1 / (2 sqrt(4))
        0.25

        ```

    **Arguments:**

    - `fn`: a function `fn(y, args)` that returns the structure of `y`.
    """

    fn: Callable[[Any, Any], Any]

    def optimality(self, point, args):
        return self.fn(point, args)


class Minimise(AbstractProblem):
    r"""The smooth problem $\min_y f(y)$, with the optimality condition $\nabla f(y) = 0$.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, optimistix as optx, jinv
        >>> energy = lambda y, lam: 0.5 * jnp.sum((y - 1) ** 2) + 0.5 * lam * jnp.sum(y**2)
        >>> ridge = jinv.Minimise(energy)
        >>> def solution(lam):
        ...     return jinv.solve(ridge, optx.BFGS(rtol=1e-6, atol=1e-6), jnp.zeros(2), lam).value
        >>> solution(1.0)
        Array([0.5, 0.5], dtype=float32)
        >>> [round(float(slope), 3) for slope in jax.jacobian(solution)(1.0)]  # -1 / (1 + lam)^2
        [-0.25, -0.25]

        ```

    **Arguments:**

    - `fn`: a function `fn(y, args)` that returns a real scalar.
    """

    fn: Callable[[Any, Any], Real[Array, ""]]

    def optimality(self, point, args):
        return gradient(self.fn, point, args)

    def linear_solver(self, point, args, rtol):
        return symmetric_solver(point)

    def tags(self):
        return frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


def gradient(fn: Callable, y: PyTree[Array], args: PyTree) -> PyTree[Array]:
    """The gradient for the real inner product; JAX's own is its conjugate for complex leaves."""
    return value_and_gradient(fn, y, args)[1]


def value_and_gradient(fn: Callable, y: PyTree[Array], args: PyTree) -> tuple[Array, PyTree[Array]]:
    value, grad = jax.value_and_grad(fn)(y, args)
    return value, jax.tree.map(lambda g: g.conj() if jnp.iscomplexobj(g) else g, grad)
