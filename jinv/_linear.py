"""Linear solvers for the engine's own systems: lineax's, chosen by size, rescaled."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, PyTree

from . import _tree
from ._loop import hoist, is_varying, match_varying, stop_gradient


# lineax's CG gives up (with NaN) where p'Ap < 100 eps n p'p, which in float32 and from some
# thousands of unknowns on is an ordinary matrix of norm one. A power of two scales exactly.
_CG_SCALE = 2.0**40


class AbstractWrappedSolver(lx.AbstractLinearSolver):
    """A solver that changes what it gives to another one, and leaves its state as it is."""

    solver: eqx.AbstractVar[lx.AbstractLinearSolver]

    def transpose(self, state, options):
        return self.solver.transpose(state, options)

    def conj(self, state, options):
        return self.solver.conj(state, options)

    def assume_full_rank(self):
        return self.solver.assume_full_rank()


class UnitScale(AbstractWrappedSolver):
    """Solves for the right-hand side scaled to unit maximum, and for CG with a matrix scaled up.

    lineax compares residuals entrywise with `atol + rtol * |b|`. A gradient of size 1e-8 would
    count as solved by the zero vector, and one with zero entries could never be solved.
    """

    solver: lx.AbstractLinearSolver

    def _matrix_scale(self) -> float:
        return _CG_SCALE if isinstance(self.solver, lx.CG) else 1.0

    def init(self, operator, options):
        factor = self._matrix_scale()
        if factor != 1:
            tags = frozenset(tag for tag, holds in _TAGS.items() if holds(operator))
            dtype = jnp.result_type(*jax.tree.leaves(operator.in_structure()))
            operator = lx.TaggedLinearOperator(operator * jnp.asarray(factor, dtype), tags)
        return self.solver.init(operator, options)

    def compute(self, state, vector, options):
        largest = jnp.max(
            jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(vector)])
        )
        # NaN stays: lineax's iterations take a NaN residual for convergence, and return the guess.
        scale = jnp.where(largest == 0, 1, largest)
        total = scale * jnp.asarray(self._matrix_scale(), scale.dtype)
        if "y0" in options:
            options = {**options, "y0": _tree.scale(1 / total, options["y0"])}
        value, result, stats = self.solver.compute(state, _tree.scale(1 / scale, vector), options)
        return _tree.scale(total, value), result, stats


_TAGS = {
    lx.symmetric_tag: lx.is_symmetric,
    lx.positive_semidefinite_tag: lx.is_positive_semidefinite,
    lx.negative_semidefinite_tag: lx.is_negative_semidefinite,
}


# Below this many real unknowns a dense factorisation costs less than an iteration, and is exact.
DENSE = 512


def general_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """LU for small systems, GMRES for large ones."""
    size = real_size(point)
    if size <= DENSE:
        return lx.LU()
    rtol = solver_tolerance(point)
    return lx.GMRES(rtol=rtol, atol=rtol, restart=60, stagnation_iters=60)


def symmetric_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """LU for small systems (a Hessian may be indefinite by rounding), CG for large ones."""
    size = real_size(point)
    if size <= DENSE:
        return lx.LU()
    rtol = solver_tolerance(point)
    return lx.CG(rtol=rtol, atol=rtol)


def minimum_norm_solver(point: PyTree[Array]) -> lx.AbstractLinearSolver:
    """For a small system that may be singular but is consistent: a dual variable is not unique
    where its constraint is inactive."""
    size = real_size(point)
    return lx.SVD(rcond=100 * float(jnp.finfo(_tree.real_dtype(point)).eps) * size)


def averaged_solver(point: PyTree[Array], rtol: Any) -> lx.AbstractLinearSolver:
    """For `I - T` with large non-expansive `T`, possibly singular but consistent.

    GMRES, preconditioned by ten terms of the Neumann series: by itself it would spend its time on
    orthogonalisation, which costs more than a product. Measured for TV of photographs, to a
    hundred times the relative accuracy of the point the derivative is off by a tenth of what
    the point's own error makes of it, and takes 2 to 6 times as long as the solve.
    """
    least = 0.2 * float(jnp.finfo(_tree.real_dtype(point)).eps) ** 0.5
    rtol = jnp.clip(100 * jnp.asarray(rtol, _tree.real_dtype(point)), least, 1e-2)
    # The mean square: an entrywise bound is never met where the right-hand side is zero.
    gmres = lx.GMRES(rtol, rtol, optx.rms_norm, 200, restart=20, stagnation_iters=20)
    return stop_gradient(SeriesPreconditioned(gmres, terms=9))


def real_size(point: PyTree[Array]) -> int:
    """The number of real unknowns."""
    leaves = jax.tree.leaves(point)
    return sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in leaves)


def solver_tolerance(point: PyTree[Array]) -> float:
    """About three quarters of the digits of the dtype: 1e-12 in float64, 5e-6 in float32."""
    return float(jnp.finfo(_tree.real_dtype(point)).eps) ** 0.75


def jacobian(fn: Callable, point: PyTree[Array], tags: frozenset[object]) -> "Jacobian":
    """The Jacobian of `fn` at `point`, linearised once."""
    return Jacobian(hoist(jax.linearize(fn, point)[1], point), point, False, tags)


class Jacobian(lx.AbstractLinearOperator):
    """A linear map of real PyTrees like `point` to themselves.

    lineax's own operator compares shardings at each call, and `shard_map` changes them between
    the trace and the call.
    """

    linear: Callable
    point: PyTree[Array]
    transposed: bool = eqx.field(static=True)
    properties: frozenset[object] = eqx.field(static=True)

    def mv(self, vector):
        vector = match_varying(vector, self.point)
        if not self.transposed:
            return self.linear(vector)
        return jax.linear_transpose(self.linear, self.point)(vector)[0]

    def as_matrix(self):
        flat, unravel = jax.flatten_util.ravel_pytree(self.point)
        column = lambda e: jax.flatten_util.ravel_pytree(self.mv(unravel(e)))[0]
        return jax.vmap(column, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))

    def transpose(self):
        return Jacobian(self.linear, self.point, not self.transposed, self.properties)

    def in_structure(self):
        # With the sharding, which lineax compares.
        told = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        return jax.tree.map(told, jax.eval_shape(lambda: self.point))

    def out_structure(self):
        return self.in_structure()


class Series(lx.AbstractLinearOperator):
    r"""The truncated Neumann series $\alpha \sum_{j=0}^{k} (I - \alpha A)^j \approx A^{-1}$."""

    operator: lx.AbstractLinearOperator
    terms: int = eqx.field(static=True)
    step_size: Any = 1.0

    def mv(self, vector):
        def term(_, carry):
            power, total = carry
            power = _tree.add_scaled(power, -jnp.asarray(self.step_size), self.operator.mv(power))
            return power, _tree.add(total, power)

        _, total = jax.lax.fori_loop(0, self.terms, term, (vector, vector))
        return _tree.scale(self.step_size, total)

    def as_matrix(self):
        return lx.FunctionLinearOperator(self.mv, self.in_structure()).as_matrix()

    def transpose(self):
        return Series(self.operator.transpose(), self.terms, self.step_size)

    def in_structure(self):
        return self.operator.in_structure()

    def out_structure(self):
        return self.operator.out_structure()


for _query, _tag in {
    lx.is_symmetric: lx.symmetric_tag,
    lx.is_positive_semidefinite: lx.positive_semidefinite_tag,
    lx.is_negative_semidefinite: lx.negative_semidefinite_tag,
    lx.is_diagonal: lx.diagonal_tag,
    lx.is_tridiagonal: lx.tridiagonal_tag,
    lx.has_unit_diagonal: lx.unit_diagonal_tag,
    lx.is_lower_triangular: lx.lower_triangular_tag,
    lx.is_upper_triangular: lx.upper_triangular_tag,
}.items():
    _query.register(Jacobian, lambda op, tag=_tag: tag in op.properties)
    _query.register(Series, lambda op: False)

# All of this is real: see `realify`.
for _operator in (Jacobian, Series):
    lx.linearise.register(_operator, lambda op: op)
    lx.conj.register(_operator, lambda op: op)
    lx.materialise.register(_operator, lambda op: op)
    lx.diagonal.register(_operator, lambda op: jnp.diagonal(op.as_matrix()))


class SeriesPreconditioned(lx.AbstractLinearSolver):
    """A lineax solver with a Neumann series of the operator itself as its preconditioner."""

    solver: lx.AbstractLinearSolver
    terms: int = eqx.field(static=True)

    def init(self, operator, options):
        series = Series(lx.linearise(operator), self.terms)
        return self.solver.init(operator, options), series

    def compute(self, state, vector, options):
        state, series = state
        return self.solver.compute(state, vector, {**options, "preconditioner": series})

    def transpose(self, state, options):
        state, series = state
        state, options = self.solver.transpose(state, options)
        return (state, series.transpose()), options

    def conj(self, state, options):
        state, series = state
        state, options = self.solver.conj(state, options)
        return (state, lx.conj(series)), options

    def assume_full_rank(self):
        return self.solver.assume_full_rank()


def linear_solve(operator: Jacobian, rhs: PyTree[Array], solver: lx.AbstractLinearSolver):
    """`operator^-1 rhs`, differentiable, also inside `shard_map`."""
    if not is_varying((operator, rhs)):
        return lx.linear_solve(operator, rhs, solver).value
    # The result of `lineax.linear_solve` counts as replicated over the devices, so that its
    # transpose would sum over them. JAX's own rule transposes whole right-hand sides only:
    # one vector.
    flat, unravel = jax.flatten_util.ravel_pytree(match_varying(rhs, operator))
    ravel = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]

    def solve(operator):
        fixed = stop_gradient(operator)
        return lambda _, b: ravel(solver.compute(solver.init(fixed, {}), unravel(b), {})[0])

    multiply = lambda v: ravel(operator.mv(unravel(v)))
    both = solve(operator), solve(operator.transpose())
    return unravel(jax.lax.custom_linear_solve(multiply, flat, *both))
