"""Proximal gradient and its accelerated form, FISTA."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Real

from .. import _tree
from .._composite import Composite
from .._loop import detached
from .._result import RESULTS
from .._solver import AbstractSolver
from ..operators import DataTerm
from ._stopping import check_tolerances, require_composite, Residuals, size


class _State(eqx.Module):
    step_size: Real[Array, ""]
    failed: Bool[Array, ""]
    carry: Any  # of the warm-started prox


class ProximalGradient(AbstractSolver[_State]):
    r"""Proximal gradient (ISTA), $x^+ = \mathrm{prox}_{t g}(x - t \nabla f(x))$, for $f + g$.

    The simplest solver, and plug-and-play with a denoiser as $g$ (`jinv.prox.PlugIn`); `FISTA`
    is faster for convex problems at the same cost per step.

    **Arguments:**

    - `rtol`, `atol`: stop when $\mathrm{dist}(0, \partial (f + g)(x)) \le \sqrt n\,\mathtt{atol} +
        \mathtt{rtol}\, \max(\|\nabla f(x)\|, \|x\|/t)$.
    - `step_size`: $t$; by default $1/L$ for a `DataTerm` of known Lipschitz constant $L$ (by
        power iteration, once per solve), otherwise a backtracking line search.
    - `check_every`: steps between two tests; a test costs about one step.

    `stats`: `objective`, `dual_residual` (the distance above), `primal_residual` (the last move
    over the step size), `residual` (relative), `step_size`. `RESULTS.unbounded_step` if the line
    search fails.

    ??? cite "Source"
        Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm for linear inverse
        problems, 2009, eq. 3.1 (ISTA with backtracking).
    """

    rtol: float | Real[Array, ""] = 1e-4
    atol: float | Real[Array, ""] = 1e-6
    step_size: float | Real[Array, ""] | None = None
    check_every: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        check_tolerances(self, step_size=self.step_size)

    def init(self, problem, point, args, options):
        return _init(self, problem, point, args)

    def step(self, problem, point, args, options, state):
        new, state, _ = _forward_backward(self, problem, point, args, state)
        return new, state

    def terminate(self, problem, point, args, options, state):
        return _terminate(self, problem, point, args, state)

    def postprocess(self, problem, point, args, options, state):
        return point, _stats(problem, point, args, state)


class _FISTAState(eqx.Module):
    base: _State
    extrapolated: PyTree[Array]
    momentum: Real[Array, ""]


class FISTA(AbstractSolver[_FISTAState]):
    r"""Accelerated proximal gradient for $f + g$, with adaptive restart.

    The default for a smooth data term with a simple prox: lasso, constraints, TV denoising as
    the prox. Each step costs one gradient and one prox; the objective gap falls as $1/k^2$, and
    linearly after the restarts have found the strong convexity.

    **Arguments:**

    - `rtol`, `atol`, `step_size`, `check_every`, `stats`: see `ProximalGradient`.
    - `restart`: drop the momentum when it points uphill.

    ??? cite "Source"
        Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm for linear inverse
        problems, 2009, eq. 4.1 to 4.3; O'Donoghue and Candès, Adaptive restart for accelerated
        gradient schemes, 2015, gradient scheme. Deviation: the line search may also enlarge the
        step, by 10 % per iteration.
    """

    rtol: float | Real[Array, ""] = 1e-4
    atol: float | Real[Array, ""] = 1e-6
    step_size: float | Real[Array, ""] | None = None
    restart: bool = eqx.field(static=True, default=True)
    check_every: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        check_tolerances(self, step_size=self.step_size)

    def init(self, problem, point, args, options):
        one = jnp.ones((), _tree.real_dtype(point))
        return _FISTAState(_init(self, problem, point, args), point, one)

    def step(self, problem, point, args, options, state):
        y, t = state.extrapolated, state.momentum
        new, base, _ = _forward_backward(self, problem, y, args, state.base)
        move = _tree.subtract(new, point)
        if self.restart:
            uphill = _tree.dot(_tree.subtract(y, new), move) > 0
            t = jnp.where(uphill, jnp.ones_like(t), t)
        new_t = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        extrapolated = _tree.add_scaled(new, (t - 1) / new_t, move)
        return new, _FISTAState(base, extrapolated, new_t)

    def terminate(self, problem, point, args, options, state):
        return _terminate(self, problem, point, args, state.base)

    def postprocess(self, problem, point, args, options, state):
        return point, _stats(problem, point, args, state.base)


_SHRINK, _GROW, _MOST_SHRINKS = 0.5, 1.1, 60


def _init(solver, problem, x, args) -> _State:
    problem = require_composite(problem, solver)
    name = type(solver).__name__
    if problem.penalty is not None:
        raise ValueError(
            f"{name} takes smooth + proximable; a `penalty` behind an operator needs PDHG or ADMM "
            "(without an operator, pass it as `proximable`)"
        )
    if problem.smooth is None:
        raise ValueError(f"{name} needs a `smooth` term")
    dtype = _tree.real_dtype(x)
    if solver.step_size is not None:
        step = jnp.asarray(solver.step_size, dtype)
    else:
        known = problem.smooth.lipschitz() if isinstance(problem.smooth, DataTerm) else None
        step = jnp.ones((), dtype) if known is None else 1 / jnp.asarray(known, dtype)
    carry = None if problem.proximable is None else problem.proximable.init_prox(x)
    return _State(step, jnp.zeros((), bool), carry)


def _searches(solver, problem) -> bool:
    known = isinstance(problem.smooth, DataTerm) and problem.smooth.has_lipschitz_gradient()
    return solver.step_size is None and not known


def _forward_backward(solver, problem: Composite, x, args, state: _State):
    value, grad = problem.smooth_value_and_gradient(x, args)

    def move(step):
        v = _tree.add_scaled(x, -step, grad)
        if problem.proximable is None:
            return v, state.carry
        return problem.proximable.warm_prox(v, step, state.carry)

    if not _searches(solver, problem):
        new, carry = move(state.step_size)
        return new, _State(state.step_size, state.failed, carry), grad

    def too_long(step):
        new, _ = move(step)
        change = _tree.subtract(new, x)
        bound = value + _tree.dot(grad, change) + _tree.sum_squares(change) / (2 * step)
        # Below rounding the comparison is noise; such a step is as good as any.
        slack = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
        return ~(problem.smooth_value(new, args) <= bound + slack)

    def search(step):
        cond = lambda c: too_long(c[0]) & (c[1] < _MOST_SHRINKS)
        body = lambda c: (c[0] * _SHRINK, c[1] + 1)
        return jax.lax.while_loop(cond, body, (step * _GROW, jnp.zeros((), jnp.int32)))

    # The accepted length is a constant for derivatives: a solution does not depend on it.
    step, shrinks = detached(search, state.step_size)
    new, carry = move(step)
    return new, _State(step, state.failed | (shrinks >= _MOST_SHRINKS), carry), grad


def _residuals(problem: Composite, x, args, state: _State):
    t = state.step_size
    _, grad = problem.smooth_value_and_gradient(x, args)
    v = _tree.add_scaled(x, -t, grad)
    if problem.proximable is None:
        new = v
        distance = _tree.norm(grad)
    else:
        new, _ = problem.proximable.warm_prox(v, t, state.carry)
        _, new_grad = problem.smooth_value_and_gradient(new, args)
        # (v - new) / t is a subgradient of g at `new`.
        subgradient = _tree.scale(1 / t, _tree.subtract(v, new))
        distance = _tree.norm(_tree.add(new_grad, subgradient))
    move = _tree.norm(_tree.subtract(new, x)) / t
    scale = jnp.maximum(_tree.norm(grad), _tree.norm(x) / t)
    return Residuals(move, distance, scale, scale, size(x), size(x))


def _terminate(solver, problem, x, args, state: _State):
    done = _residuals(problem, x, args, state).converged(solver.rtol, solver.atol)
    return done, RESULTS.where(state.failed, RESULTS.unbounded_step, RESULTS.successful)


def _stats(problem, x, args, state: _State):
    stats = _residuals(problem, x, args, state).stats(problem, x, args)
    return {**stats, "step_size": state.step_size}


