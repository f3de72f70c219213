"""Composite problems: smooth plus proximable, optionally through a linear operator."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree, Real

from . import _tree
from ._functional import AbstractFunctional
from ._linear import (
    DENSE,
    averaged_solver,
    general_solver,
    jacobian,
    minimum_norm_solver,
    real_size,
)
from ._loop import stop_gradient
from ._problem import AbstractProblem, value_and_gradient
from .operators import adjoint, operator_norm


class PrimalDual(eqx.Module):
    """A primal-dual pair; pass it as `y0` to warm-start a solver that has a dual variable.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f, g = jinv.data_terms.least_squares(None, jnp.array([3.0])), jinv.prox.L1(1.0)
        >>> problem, solver = jinv.Composite(proximable=f, penalty=g), jinv.splitting.PDHG()
        >>> sol = jinv.solve(problem, solver, jnp.zeros(1))
        >>> warm = jinv.solve(problem, solver, jinv.PrimalDual(sol.value, sol.dual))
        >>> bool(warm.stats["num_steps"] <= sol.stats["num_steps"])
        True

        ```
    """

    primal: PyTree[Array]
    dual: PyTree[Array]


class Composite(AbstractProblem):
    r"""The composite problem $\min_x f(x) + g(x) + h(K x)$.

    $f$ is smooth, $g$ and $h$ are proximable, $K$ is linear; each may be absent. Most inverse
    problems have this form: $f$ the data term, $g$ a constraint, $h \circ K$ a regulariser
    such as total variation. Which terms a solver takes is said with the solver:

    | solver | takes |
    |---|---|
    | `ProximalGradient`, `FISTA` | $f + g$ |
    | `PDHG` | $f + g + h \circ K$ ($f$ by its gradient) |
    | `ADMM`, `HQS` | quadratic $f$, and $g + h \circ K$ |
    | `DouglasRachford` | $g + h$, with $K$ the identity |

    The optimality condition is the residual of one step: without $h$ that of the proximal
    gradient method, $x - \mathrm{prox}_{\tau g}(x - \tau \nabla f(x))$; with $h$ that of the
    primal-dual method, $x - x^+$ and $z - \mathrm{prox}_{\sigma h^*}(z + \sigma K (2 x^+ - x))$
    with $x^+ = \mathrm{prox}_{\tau g}(x - \tau (\nabla f(x) + K^* z))$, whose zeros are the
    saddle points of the Lagrangian (Chambolle and Pock, A first-order primal-dual algorithm,
    2011, eq. 7 and 8). Both are differentiable almost everywhere.

    **Arguments:**

    - `smooth`: $f$, a function `f(x, args)` or an `AbstractFunctional`.
    - `proximable`: $g$, an `AbstractFunctional`.
    - `penalty`: $h$, an `AbstractFunctional` on the range of `operator`.
    - `operator`: $K$, any `lineax.AbstractLinearOperator`; the identity if not given.

    All arrays inside are differentiable: data, weights, kernels, `args`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> lasso = jinv.Composite(lambda x, b: 0.5 * jnp.sum((x - b) ** 2), jinv.prox.L1(1.0))
        >>> b = jnp.array([3.0, 0.5, -2.0])
        >>> jinv.solve(lasso, jinv.splitting.FISTA(), jnp.zeros(3), b).value
        Array([ 2.,  0., -1.], dtype=float32)

        ```
    """

    smooth: Callable[[Any, Any], Real[Array, ""]] | AbstractFunctional | None
    proximable: AbstractFunctional | None
    penalty: AbstractFunctional | None
    operator: lx.AbstractLinearOperator | None

    def __init__(
        self,
        smooth: Callable[[Any, Any], Real[Array, ""]] | AbstractFunctional | None = None,
        proximable: AbstractFunctional | None = None,
        *,
        penalty: AbstractFunctional | None = None,
        operator: lx.AbstractLinearOperator | None = None,
    ):
        if smooth is None and proximable is None and penalty is None:
            raise ValueError("Composite needs at least one of `smooth`, `proximable`, `penalty`")
        if operator is not None and penalty is None:
            raise ValueError("`operator` was given without the `penalty` that acts on its range")
        for name, term in (("proximable", proximable), ("penalty", penalty)):
            if term is not None and not isinstance(term, AbstractFunctional):
                raise ValueError(
                    f"`{name}` must be a jinv functional with a prox, got {type(term).__name__}; "
                    "wrap a denoiser with jinv.prox.PlugIn"
                )
        self.smooth = smooth
        self.proximable = proximable
        self.penalty = penalty
        self.operator = operator

    def objective(self, x: PyTree[Array], args: PyTree) -> Real[Array, ""]:
        """The value $f(x) + g(x) + h(Kx)$; `inf` outside a constraint, `nan` with a plug-in."""
        value = jnp.zeros((), _tree.real_dtype(x))
        if self.smooth is not None:
            value = value + self.smooth_value(x, args)
        if self.proximable is not None:
            value = value + self.proximable(x)
        if self.penalty is not None:
            value = value + self.penalty(self.apply(x))
        return value

    def smooth_value(self, x: PyTree[Array], args: PyTree) -> Real[Array, ""]:
        """$f(x)$, which must be there."""
        if isinstance(self.smooth, AbstractFunctional):
            return self.smooth(x)
        assert self.smooth is not None
        return self.smooth(x, args)

    def smooth_value_and_gradient(self, x: PyTree[Array], args: PyTree):
        """$f(x)$ and $\\nabla f(x)$; zeros without $f$."""
        if self.smooth is None:
            return jnp.zeros((), _tree.real_dtype(x)), jax.tree.map(jnp.zeros_like, x)
        return value_and_gradient(self.smooth_value, x, args)

    def prox(self, v: PyTree[Array], step_size) -> PyTree[Array]:
        """The prox of $g$; the identity without $g$."""
        return v if self.proximable is None else self.proximable.prox(v, step_size)

    def apply(self, x: PyTree[Array]) -> PyTree[Array]:
        """$K x$."""
        return x if self.operator is None else self.operator.mv(x)

    def apply_adjoint(self, z: PyTree[Array]) -> PyTree[Array]:
        """$K^* z$."""
        return z if self.operator is None else adjoint(self.operator).mv(z)

    def initial_point(self, y0, args):
        start = y0.primal if isinstance(y0, PrimalDual) else y0
        self._check(start, args)
        if self.penalty is None:
            return start
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(self.apply, start)
        )
        dual = y0.dual if isinstance(y0, PrimalDual) and y0.dual is not None else zeros
        if structure(dual) != structure(zeros):
            raise ValueError(
                f"the dual initial guess must have the structure of the range of `operator`, "
                f"{structure(zeros)}, got {structure(dual)}"
            )
        return PrimalDual(start, dual)

    def _check(self, x, args):
        if self.operator is not None and structure(self.operator.in_structure()) != structure(x):
            raise ValueError(
                f"`y0` must have the structure on which `operator` acts, "
                f"{structure(self.operator.in_structure())}, got {structure(x)}"
            )
        value = jax.eval_shape(lambda x: self.objective(x, args), x)
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"the objective must be a real scalar, got shape {value.shape}, dtype {value.dtype}"
            )

    def primal(self, point):
        return point if self.penalty is None else point.primal

    def dual(self, point):
        return None if self.penalty is None else point.dual

    def optimality(self, point, args):
        x = self.primal(point)
        tau, sigma = self._steps(point, args)
        problem = self._with_fast_prox()
        _, slope = problem.smooth_value_and_gradient(x, args)
        if self.penalty is not None:
            slope = _tree.add(slope, self.apply_adjoint(point.dual))
        new = problem.prox(_tree.add_scaled(x, -tau, slope), tau)
        moved = _tree.subtract(x, new)
        if self.penalty is None:
            return moved
        applied = self.apply(_tree.subtract(new, moved))
        ascent = _tree.add_scaled(point.dual, sigma, applied)
        return PrimalDual(
            moved, _tree.subtract(point.dual, self.penalty.conjugate_prox(ascent, sigma))
        )

    def linear_solver(self, point, args, rtol):
        if real_size(point) > DENSE:
            return averaged_solver(point, rtol)
        return general_solver(point) if self.penalty is None else minimum_norm_solver(point)

    def _with_fast_prox(self) -> "Composite":
        """The same problem with $f$ as its proximable term, if it is one: better conditioned."""
        f = self.smooth
        if self.penalty is None or self.proximable is not None:
            return self
        if not isinstance(f, AbstractFunctional) or not f.has_fast_prox():
            return self
        return Composite(proximable=f, penalty=self.penalty, operator=self.operator)

    def _steps(self, point, args):
        r"""Step sizes for which a step of PDHG is an averaged operator; large systems need that."""
        x = self.primal(point)
        one = jnp.ones((), _tree.real_dtype(x))
        if real_size(point) <= DENSE:
            return one, one
        curvature, norm, sigma = 0 * one, 0 * one, one
        problem = self._with_fast_prox()
        if problem.smooth is not None:
            gradient = lambda x: problem.smooth_value_and_gradient(x, args)[1]
            real = lambda v: _tree.realify(gradient(_tree.complexify(v, x)))
            hessian = jacobian(real, _tree.realify(x), frozenset())
            curvature = 1.02 * operator_norm(hessian)
        if self.penalty is not None:
            norm = one if self.operator is None else 1.01 * operator_norm(self.operator)
            # As the penalty parameter of ADMM: the size of the dual variable over that of K x.
            applied, dual = _tree.norm(self.apply(x)), _tree.norm(point.dual)
            sound = (applied > 0) & (dual > 0)
            sigma = jnp.where(sound, dual / jnp.where(sound, applied, 1), 1)
        inverse = curvature * (0.5 if self.penalty is not None else 1.0) + sigma * norm**2
        tau = jnp.where(inverse > 0, 1 / jnp.where(inverse > 0, inverse, 1), 1)
        return stop_gradient((tau, sigma))


def structure(tree: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and dtypes only (weak types dropped), for comparison and messages."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)
