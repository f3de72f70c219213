"""Douglas-Rachford splitting."""

import functools
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from .. import _tree
from .._composite import PrimalDual
from .._result import RESULTS
from .._solver import AbstractSolver
from ._certificate import curvature, needs_certificate, reflections
from ._scale import residual_balance
from ._stopping import Residuals, check_tolerances, require_composite, size, unmeasured


class _State(eqx.Module):
    step_size: Real[Array, ""]
    shadow: PyTree[Array]  # v, whose prox of g is x
    num_checks: Array
    residuals: Residuals
    lipschitz: Real[Array, ""] | None  # where a certificate needs it


class DouglasRachford(AbstractSolver[_State]):
    r"""Douglas-Rachford splitting for $g(x) + h(x)$ by the two proxes alone.

    $x = \mathrm{prox}_{t g}(v)$, $y = \mathrm{prox}_{t h}(2x - v)$, $v \mathrel{+}= \alpha (y -
    x)$. For two constraints, or a data term with a closed-form prox (`data_terms.least_squares`
    as `proximable`) beside a regulariser on the image itself (`penalty` without `operator`).

    **Arguments:**

    - `rtol`, `atol`: stop when $\|x - y\|$ is small against $\|x\|$, and $\|x - y\|/t$ against
        the subgradients.
    - `step_size`: $t$; by default 1, then adapted. The limit does not depend on it. With a
        learned proximal network of step size $\tau$ it is the smaller of $\tau$ and $0.99 / L$ for
        the Lipschitz constant $L$ of the gradient of the other term, and is kept.
    - `relaxation`: $\alpha \in (0, 2)$.
    - `adaptive`: balance the relative residuals at checks 1, 2, 4, 8, ..., `max_updates` times.
    - `check_every`: steps between two tests.

    `stats`: `objective`, `primal_residual` $\|x - y\|$, `dual_residual` $\|x - y\|/t$,
    `residual` (the larger relative one), `step_size`; with a penalty that is not convex also
    `certified`: whether $t < 1/L$ with a known $L$ of a convex `proximable`, and the other prox
    is exact (Themelis and Patrinos, Douglas-Rachford splitting and ADMM for nonconvex
    optimization: tight convergence results, 2020).

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_squares(None, jnp.array([3.0, 0.5, -2.0]))
        >>> problem = jinv.Composite(proximable=f, penalty=jinv.prox.L1(1.0))
        >>> sol = jinv.solve(problem, jinv.splitting.DouglasRachford(), jnp.zeros(3))
        >>> jnp.round(sol.value, 2) + 0.0
        Array([ 2.,  0., -1.], dtype=float32)

        ```

    ??? cite "Source"
        Eckstein and Bertsekas, On the Douglas-Rachford splitting method and the proximal point
        algorithm for maximal monotone operators, 1992. Deviation: the adaptive step size.
    """

    rtol: float | Real[Array, ""] = 1e-4
    atol: float | Real[Array, ""] = 1e-6
    step_size: float | Real[Array, ""] | None = None
    relaxation: float | Real[Array, ""] = 1.0
    adaptive: bool = eqx.field(static=True, default=True)
    max_updates: int = eqx.field(static=True, default=8)
    one_step: ClassVar[bool] = False
    check_every: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        check_tolerances(self, step_size=self.step_size)
        if isinstance(self.relaxation, int | float) and not 0 < self.relaxation < 2:
            raise ValueError(f"`relaxation` must lie between 0 and 2, got {self.relaxation}")

    def init(self, problem, point, args, options):
        problem = require_composite(problem, self)
        if problem.penalty is None or problem.proximable is None or problem.operator is not None:
            raise ValueError(
                "DouglasRachford takes a `proximable` and a `penalty` without `operator`; behind "
                "an operator use ADMM or PDHG"
            )
        if problem.smooth is not None:
            raise ValueError(
                "DouglasRachford takes no `smooth` term; pass a least-squares DataTerm as "
                "`proximable`, or use PDHG"
            )
        dtype, lipschitz = _tree.real_dtype(point.primal), None
        if needs_certificate(problem.proximable, problem.penalty):
            known = curvature(problem)
            lipschitz = jnp.asarray(jnp.nan if known is None else known, dtype)
        steps = _natural_steps(problem)
        if self.step_size is None and steps:
            most = jnp.asarray(jnp.inf, dtype) if lipschitz is None else 0.99 / lipschitz
            step = functools.reduce(jnp.fmin, [jnp.asarray(t, dtype) for t in steps], most)
        else:
            step = jnp.asarray(1.0 if self.step_size is None else self.step_size, dtype)
        # At a solution v = x - t z, with z the dual variable of h.
        shadow = _tree.add_scaled(point.primal, -step, point.dual)
        zero = jnp.zeros((), jnp.int32)
        return _State(step, shadow, zero, unmeasured(point.primal), lipschitz)

    def step(self, problem, point, args, options, state):
        point, shadow, _ = self._advance(problem, state)
        kept = (state.num_checks, state.residuals, state.lipschitz)
        return point, _State(state.step_size, shadow, *kept)

    def measured_step(self, problem, point, args, options, state):
        point, shadow, other = self._advance(problem, state)
        t, count = state.step_size, state.num_checks + 1
        gap = _tree.norm(_tree.subtract(point.primal, other))
        length = jnp.maximum(_tree.norm(point.primal), _tree.norm(other))
        objective = problem.proximable(point.primal) + problem.penalty(other)
        residuals = Residuals(gap, gap / t, length, _tree.norm(point.dual), objective)
        if self.adaptive and self.step_size is None and not _natural_steps(problem):
            due = ((count & (count - 1)) == 0) & (count < 2**self.max_updates)
            primal, dual = residuals.relative()
            # t is the inverse of a penalty; v moves with it so that x and z stay.
            new = jnp.where(due, t / residual_balance(primal, dual), t)
            shadow = _tree.add_scaled(shadow, t - new, point.dual)
            t = new
        return point, _State(t, shadow, count, residuals, state.lipschitz)

    def _advance(self, problem, state: _State):
        t, v = state.step_size, state.shadow
        x = problem.prox(v, t)
        reflected = _tree.subtract(_tree.scale(2, x), v)
        y = problem.penalty.prox(reflected, t)
        dual = _tree.scale(1 / t, _tree.subtract(reflected, y))
        shadow = _tree.add_scaled(v, self.relaxation, _tree.subtract(y, x))
        return PrimalDual(x, dual), shadow, y

    def terminate(self, problem, point, args, options, state):
        sizes = (size(point.primal), size(point.primal))
        return state.residuals.converged(self.rtol, self.atol, sizes), RESULTS.successful

    def postprocess(self, problem, point, args, options, state):
        stats = {**state.residuals.stats(), "step_size": state.step_size}
        if state.lipschitz is not None:
            known = problem.penalty, state.step_size, state.lipschitz
            smooth_first = not needs_certificate(problem.proximable)
            stats["certified"] = reflections(*known, self.relaxation) & smooth_first
        return point, stats


def _natural_steps(problem):
    steps = (problem.proximable.natural_step(), problem.penalty.natural_step())
    return [step for step in steps if step is not None]
