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
from ..data_terms import DataTerm
from ._certificate import curvature, forward_backward, needs_certificate
from ._stopping import Residuals, check_tolerances, require_composite, size, unmeasured


class _State(eqx.Module):
    step_size: Real[Array, ""]
    failed: Bool[Array, ""]
    carry: Any  # of the warm-started prox
    residuals: Residuals
    lipschitz: Real[Array, ""] | None  # where a certificate needs it


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
    over the step size), `residual` (relative), `step_size`; for a proximable term that is not
    convex also `certified`: whether $t < 1/L$, with a known $L$, and the prox is exact, so that the
    objective never rises and every limit is a critical point (Attouch, Bolte, Svaiter,
    Convergence of descent methods for semi-algebraic and tame problems, 2013, theorem 5.1). A
    learned proximal network is best at its own step size, which is then the default, up to
    0.99/L. `RESULTS.unbounded_step` if the line search fails.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_squares(None, jnp.array([3.0, 0.5, -2.0]))
        >>> problem = jinv.Composite(f, jinv.prox.L1(1.0))
        >>> sol = jinv.solve(problem, jinv.splitting.ProximalGradient(), jnp.zeros(3))
        >>> jnp.round(sol.value, 2) + 0.0
        Array([ 2.,  0., -1.], dtype=float32)

        ```

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
        return _forward_backward(self, problem, point, args, state)

    def measured_step(self, problem, point, args, options, state):
        return _measured(problem, *_forward_backward(self, problem, point, args, state), args)

    def terminate(self, problem, point, args, options, state):
        return _terminate(self, point, state)

    def postprocess(self, problem, point, args, options, state):
        return point, {**state.residuals.stats(), **_more(problem, state, _certified)}


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

    - `rtol`, `atol`, `step_size`, `check_every`, `stats`: see `ProximalGradient`; `certified` is
        never true, as no theorem covers momentum without convexity.
    - `restart`: drop the momentum when it points uphill.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_squares(None, jnp.array([3.0, 0.5, -2.0]))
        >>> problem = jinv.Composite(f, jinv.prox.L1(1.0))
        >>> sol = jinv.solve(problem, jinv.splitting.FISTA(), jnp.zeros(3))
        >>> jnp.round(sol.value, 2) + 0.0
        Array([ 2.,  0., -1.], dtype=float32)

        ```

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
        new, base = _forward_backward(self, problem, y, args, state.base)
        move = _tree.subtract(new, point)
        if self.restart:
            uphill = _tree.dot(_tree.subtract(y, new), move) > 0
            t = jnp.where(uphill, jnp.ones_like(t), t)
        new_t = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        extrapolated = _tree.add_scaled(new, (t - 1) / new_t, move)
        return new, _FISTAState(base, extrapolated, new_t)

    def measured_step(self, problem, point, args, options, state):
        new, state = self.step(problem, point, args, options, state)
        _, base = _measured(problem, new, state.base, args)
        return new, _FISTAState(base, state.extrapolated, state.momentum)

    def terminate(self, problem, point, args, options, state):
        return _terminate(self, point, state.base)

    def postprocess(self, problem, point, args, options, state):
        return point, {**state.base.residuals.stats(), **_more(problem, state.base, _uncertified)}


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
    dtype, term = _tree.real_dtype(x), problem.proximable
    certified = needs_certificate(term)
    known = None
    if solver.step_size is None or certified:
        known = curvature(Composite(problem.smooth))
        known = None if known is None else jnp.asarray(known, dtype)
    if solver.step_size is not None:
        step = jnp.asarray(solver.step_size, dtype)
    else:
        step = jnp.ones((), dtype) if known is None else 1 / known
        natural = None if term is None else term.natural_step()
        if natural is not None and known is not None:
            step = jnp.minimum(jnp.asarray(natural, dtype), 0.99 * step)
    carry = None if term is None else term.init_prox(x)
    if certified and known is None:
        known = jnp.asarray(jnp.nan, dtype)
    failed = jnp.zeros((), bool)
    return _State(step, failed, carry, unmeasured(x), known if certified else None)


def _certified(problem, state: _State):
    assert state.lipschitz is not None
    return forward_backward(problem.proximable, state.step_size, state.lipschitz)


def _uncertified(problem, state: _State):
    return jnp.zeros((), bool)


def _more(problem, state: _State, certified):
    found = {"step_size": state.step_size}
    return found if state.lipschitz is None else {**found, "certified": certified(problem, state)}


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
        return new, _State(state.step_size, state.failed, carry, state.residuals, state.lipschitz)

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
    failed = state.failed | (shrinks >= _MOST_SHRINKS)
    return new, _State(step, failed, carry, state.residuals, state.lipschitz)


def _measured(problem: Composite, x, state: _State, args):
    t = state.step_size
    value, grad = problem.smooth_value_and_gradient(x, args)
    v = _tree.add_scaled(x, -t, grad)
    if problem.proximable is None:
        new, distance, total = v, _tree.norm(grad), value
    else:
        new, _ = problem.proximable.warm_prox(v, t, state.carry)
        _, new_grad = problem.smooth_value_and_gradient(new, args)
        # (v - new) / t is a subgradient of g at `new`.
        subgradient = _tree.scale(1 / t, _tree.subtract(v, new))
        distance = _tree.norm(_tree.add(new_grad, subgradient))
        total = value + problem.proximable(x)
    move = _tree.norm(_tree.subtract(new, x)) / t
    scale = jnp.maximum(_tree.norm(grad), _tree.norm(x) / t)
    residuals = Residuals(move, distance, scale, scale, total)
    return x, _State(t, state.failed, state.carry, residuals, state.lipschitz)


def _terminate(solver, x, state: _State):
    sizes = (size(x), size(x))
    done = state.residuals.converged(solver.rtol, solver.atol, sizes)
    return done, RESULTS.where(state.failed, RESULTS.unbounded_step, RESULTS.successful)
