"""The common core of ADMM and half-quadratic splitting: a quadratic term beside copies of K x."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, PyTree

from .. import _tree
from .._composite import Composite
from .._functional import AbstractFunctional
from ..data_terms import DataTerm
from ..operators import NormalSystem, adjoint
from ._stopping import require_composite


class Split(eqx.Module):
    r"""$\min_x f(x) + \sum_i h_i(K_i x)$ with quadratic $f$; $g$ is the copy with $K = I$.

    Copies $u = (u_h, u_g)$ are tuples of one or two entries, the penalised one first.
    """

    functionals: tuple[AbstractFunctional, ...]
    operators: tuple[lx.AbstractLinearOperator | None, ...]
    system: NormalSystem
    rhs: PyTree[Array]

    def apply(self, x):
        return tuple(x if op is None else op.mv(x) for op in self.operators)

    def apply_adjoint(self, u):
        parts = [
            leaf if op is None else adjoint(op).mv(leaf)
            for op, leaf in zip(self.operators, u, strict=True)
        ]
        return parts[0] if len(parts) == 1 else _tree.add(*parts)

    def natural_steps(self):
        """The step sizes at which those proxes that have one are cheapest."""
        steps = (h.natural_step() for h in self.functionals)
        return [step for step in steps if step is not None]

    def has_data_term(self) -> bool:
        return len(self.system.operators) > len(self.operators)

    def dual_norm(self, z):
        """The norm of $K^* z$. Without $f$ that vanishes at a solution and is no scale to
        compare with: the norm of $z$."""
        return _tree.norm(self.apply_adjoint(z) if self.has_data_term() else z)

    def prox(self, v, penalty):
        """The proxes of the $h_i$ at step $1/\\rho$."""
        pairs = zip(self.functionals, v, strict=True)
        return tuple(h.prox(leaf, 1 / penalty) for h, leaf in pairs)

    def minimise(self, penalty, target, guess, rtol) -> tuple[PyTree[Array], Bool[Array, ""]]:
        r"""$\arg\min_x f(x) + \frac{\rho}{2} \sum_i \|K_i x\|^2 - \langle t_i, K_i x\rangle$."""
        rhs = _tree.add(self.rhs, self.apply_adjoint(target))
        ones = (jnp.ones_like(penalty),) if self.has_data_term() else ()
        coefficients = ones + (penalty,) * len(target)
        return self.system.solve(coefficients, rhs, guess=guess, rtol=rtol)


def make_split(problem, x, solver, linear_solver) -> Split:
    problem = require_composite(problem, solver)
    name = type(solver).__name__
    data = _data_term(problem, name)
    proximable = None if data is problem.proximable else problem.proximable
    functionals, operators = [], []
    if problem.penalty is not None:
        functionals.append(problem.penalty)
        operators.append(problem.operator)
    if proximable is not None:
        functionals.append(proximable)
        operators.append(None)
    if not functionals:
        raise ValueError(f"{name} needs a `penalty` or a `proximable` term beside the data term")
    terms, weights = [], []
    rhs = jax.tree.map(jnp.zeros_like, x)
    if data is not None:
        terms.append(data.operator)
        weights.append(data.quadratic()[0])
        rhs = data.normal_rhs()
    system = NormalSystem(
        (*terms, *operators), (*weights, *(1.0 for _ in operators)), linear_solver
    )
    return Split(tuple(functionals), tuple(operators), system, rhs)


def _data_term(problem: Composite, name: str) -> DataTerm | None:
    quadratic = lambda term: isinstance(term, DataTerm) and term.is_quadratic()
    if quadratic(problem.smooth):
        return problem.smooth  # pyright: ignore[reportReturnType]
    if problem.smooth is not None:
        raise ValueError(
            f"{name} takes a least-squares DataTerm as `smooth`; pass the loss of any other data "
            "term as `penalty` (with operators.Stack beside the regulariser)"
        )
    if problem.penalty is not None and quadratic(problem.proximable):
        return problem.proximable  # pyright: ignore[reportReturnType]
    return None
