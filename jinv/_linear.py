"""Linear solvers for the engine's own systems: lineax's, chosen by size, on scaled right-hand sides."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from . import _tree


class UnitScale(lx.AbstractLinearSolver):
    """Solves for the right-hand side scaled to unit maximum.

    lineax compares residuals entrywise with `atol + rtol * |b|`. A gradient of size 1e-8 would
    count as solved by the zero vector, and one with zero entries could never be solved.
    """

    solver: lx.AbstractLinearSolver

    def init(self, operator, options):
        return self.solver.init(operator, options)

    def compute(self, state, vector, options):
        largest = jnp.max(
            jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(vector)])
        )
        scale = jnp.where(largest > 0, largest, 1)
        value, result, stats = self.solver.compute(state, _tree.scale(1 / scale, vector), options)
        return _tree.scale(scale, value), result, stats

    def transpose(self, state, options):
        return self.solver.transpose(state, options)

    def conj(self, state, options):
        return self.solver.conj(state, options)

    def assume_full_rank(self):
        return self.solver.assume_full_rank()


# Below this many real unknowns a dense factorisation costs less than an iteration, and is exact.
_DENSE = 512


def general_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """LU for small systems, GMRES for large ones."""
    size = real_size(point)
    if size <= _DENSE:
        return lx.LU()
    rtol = solver_tolerance(point)
    return lx.GMRES(rtol=rtol, atol=rtol, restart=60, stagnation_iters=60)


def symmetric_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """LU for small systems (a Hessian may be indefinite by rounding), CG for large ones."""
    size = real_size(point)
    if size <= _DENSE:
        return lx.LU()
    rtol = solver_tolerance(point)
    return lx.CG(rtol=rtol, atol=rtol)


def semidefinite_saddle_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """The minimum-norm solution of a system that may be singular but is consistent: a dual
    variable is not unique where its constraint is inactive."""
    size = real_size(point)
    if size <= _DENSE:
        return lx.SVD(rcond=100 * float(jnp.finfo(_tree.real_dtype(point)).eps) * size)
    rtol = solver_tolerance(point)
    return lx.LSMR(rtol=rtol, atol=rtol, conlim=float("inf"), max_steps=20 * size)


def real_size(point: PyTree[Array]) -> int:
    """The number of real unknowns."""
    leaves = jax.tree.leaves(point)
    return sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in leaves)


def solver_tolerance(point: PyTree[Array]) -> float:
    """About three quarters of the digits of the dtype: 1e-12 in float64, 5e-6 in float32."""
    return float(jnp.finfo(_tree.real_dtype(point)).eps) ** 0.75
