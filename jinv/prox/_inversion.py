"""The convex equation behind a learned prox, and the Newton method that solves it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Bool, Int, Real

from .. import _tree
from .._loop import stop_gradient
from .._problem import AbstractProblem
from .._result import RESULTS, Solution
from .._solve import solve
from .._solver import AbstractSolver
from ..nn import AbstractConvexPotential


def invert(
    potential: AbstractConvexPotential,
    target: Array,
    share: Real[Array, ""],
    y0: Array,
    *,
    rtol: Real[ArrayLike, ""] | None,
    max_steps: int,
) -> Solution:
    r"""Solves $s y + (1 - s) \nabla\psi(y) = v$ for $y$, with $v$ the `target` and $s$ the
    `share`."""
    default = 10 * float(jnp.finfo(target.dtype).eps) ** 0.75
    tolerance = stop_gradient(jnp.asarray(default if rtol is None else rtol, target.dtype))
    atol = jnp.asarray(jnp.finfo(target.dtype).eps, target.dtype)
    problem = _Inversion(potential, target, share)
    return solve(problem, _NewtonCG(tolerance, atol), y0, max_steps=max_steps, throw=False)


class _Inversion(AbstractProblem):
    r"""The minimiser of the convex $\tfrac s2\|y\|^2 + (1 - s) \psi(y) - \langle v, y\rangle$:
    $s y + (1 - s) \nabla\psi(y) = v$. With $s = 0$ that is the inverse of $\nabla\psi$."""

    potential: AbstractConvexPotential
    target: Array
    share: Real[Array, ""]

    def gradient(self, y):
        s = self.share.astype(y.dtype)
        return s * y + (1 - s) * self.potential.gradient(y) - self.target

    def optimality(self, point, args):
        return self.gradient(point)

    def linear_solver(self, point, args, rtol):
        tolerance = float(jnp.finfo(point.dtype).eps) ** 0.75
        return lx.CG(rtol=tolerance, atol=tolerance)

    def tags(self):
        return frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})

    def unreachable(self, y: Array) -> Bool[Array, ""]:
        r"""Whether the direction of `y` proves that there is no solution: the function falls
        along it for ever."""
        length = jnp.sqrt(jnp.sum(y * y))
        direction = y / jnp.where(length > 0, length, 1)
        gain = jnp.sum(self.target * direction)
        slope = self.potential.recession(direction)
        slack = 100 * jnp.finfo(y.dtype).eps * (jnp.abs(gain) + jnp.abs(slope))
        return (self.share == 0) & (gain > slope + slack)


class _State(eqx.Module):
    gradient: Array
    stuck: Bool[Array, ""]
    unreachable: Bool[Array, ""]
    num_products: Int[Array, ""]


class _NewtonCG(AbstractSolver[_State]):
    r"""Newton's method with conjugate gradients and a line search, for `_Inversion`.

    The steps solve $(\nabla^2 + \delta)\, d = -g$ with $\delta$ proportional to $\|g\|$, so that
    flat parts of $\psi$ give long steps, not infinite ones; the line search asks for a slope
    along $d$ of at most half the first one, which rounding does not disturb.
    """

    rtol: float | Real[Array, ""]
    atol: float | Real[Array, ""]
    check_every: int = eqx.field(static=True, default=1)

    def init(self, problem, point, args, options):
        false, one = jnp.zeros((), bool), jnp.ones((), jnp.int32)
        return _State(problem.gradient(point), false, false, one)

    def step(self, problem, point, args, options, state):
        g = state.gradient
        size = _tree.norm(g)
        _, hessian = jax.linearize(problem.gradient, point)
        damping = 1e-3 * jnp.minimum(size, 1)
        operator = lx.FunctionLinearOperator(
            lambda d: hessian(d) + damping * d,
            jax.eval_shape(lambda: point),
            lx.positive_semidefinite_tag,
        )
        # The inner accuracy follows the outer residual: convergence is superlinear.
        rtol = jnp.clip(jnp.sqrt(size), 1e-6, 0.3)
        settings: dict[str, Any] = {"rtol": rtol, "atol": 0.0, "norm": _tree.norm, "max_steps": 200}
        inner = lx.CG(**settings)
        solution = lx.linear_solve(operator, -g, inner, throw=False)
        finite = _tree.all_finite(solution.value)
        d = jnp.where(finite, solution.value, -g)
        first = jnp.sum(g * d)

        def rejected(carry):
            _, gradient, tries = carry
            slope = jnp.sum(gradient * d)
            good = jnp.isfinite(slope) & (jnp.abs(slope) <= 0.5 * jnp.abs(first))
            return ~good & (tries < 40)

        def other_length(carry):
            length, gradient, tries = carry
            # Longer where it is still steep and downhill, as on flat parts; else shorter.
            factor = jnp.where(jnp.sum(gradient * d) < 0, 2.0, 0.4).astype(length.dtype)
            length = length * factor
            return length, problem.gradient(point + length * d), tries + 1

        begin = jnp.ones((), point.dtype), problem.gradient(point + d), jnp.zeros((), jnp.int32)
        length, gradient, tries = jax.lax.while_loop(rejected, other_length, begin)
        better = _tree.norm(gradient) <= 10 * size
        new = jnp.where(better, point + length * d, point)
        products = jnp.asarray(solution.stats["num_steps"], jnp.int32) + tries + 2
        return new, _State(
            jnp.where(better, gradient, g),
            ~better,
            problem.unreachable(new),
            state.num_products + products,
        )

    def terminate(self, problem, point, args, options, state):
        size = _tree.norm(state.gradient)
        cast = lambda x: jnp.asarray(x, size.dtype)
        bound = cast(self.atol) + cast(self.rtol) * _tree.norm(problem.target)
        done = size <= bound
        stuck = state.stuck & ~done
        result = RESULTS.where(stuck, RESULTS.unbounded_step, RESULTS.successful)
        return done, RESULTS.where(state.unreachable & ~done, RESULTS.out_of_range, result)

    def postprocess(self, problem, point, args, options, state):
        stats: dict[str, Any] = {
            "residual": _tree.norm(state.gradient),
            "num_products": state.num_products,
        }
        return point, stats
