"""The alternating direction method of multipliers."""

import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, PyTree, Real

from .. import _tree
from .._composite import PrimalDual
from .._linear import solver_tolerance
from .._loop import stop_gradient
from .._result import RESULTS
from .._solver import AbstractSolver
from ._certificate import alternating_directions, curvature, needs_certificate
from ._quadratic import Split, make_split
from ._scale import dual_scale, residual_balance
from ._stopping import Residuals, check_tolerances, size, unmeasured


class _State(eqx.Module):
    split: Split
    penalty: Real[Array, ""]
    copies: tuple[PyTree[Array], ...]
    duals: tuple[PyTree[Array], ...]
    change: Real[Array, ""]
    solvable: Bool[Array, ""]
    num_checks: Array
    residuals: Residuals
    lipschitz: Real[Array, ""] | None  # where a certificate needs it


class ADMM(AbstractSolver[_State]):
    r"""The alternating direction method of multipliers for $f(x) + g(x) + h(K x)$ with a
    least-squares $f$ (or none).

    With copies $u_i$ of $K_i x$ and multipliers $z_i$, a step solves
    $(A^* W A + \rho \sum_i K_i^* K_i)\, x = A^* W b + \sum_i K_i^*(\rho u_i - z_i)$, then sets
    $u_i = \mathrm{prox}_{h_i/\rho}(\hat x_i + z_i/\rho)$ and $z_i \mathrel{+}= \rho(\hat x_i -
    u_i)$, where $\hat x_i = \alpha K_i x + (1 - \alpha) u_i$. Few steps, each with one linear
    system: a fast transform solves it exactly where all Gram operators share one (circular
    convolution and circular differences; denoising or masks of the whole with Neumann
    differences), otherwise conjugate gradients started at the last iterate, to a tolerance
    that follows the progress of the outer iteration.

    **Arguments:**

    - `rtol`, `atol`: stop when $\|K x - u\|$ and $\rho\|K^*(u - u_-)\|$ are small against
        $\max(\|Kx\|, \|u\|)$ and $\|K^* z\|$.
    - `penalty`: $\rho$; by default from the scale of the problem, then adapted. With a learned
        proximal network of step size $\tau$ it is the larger of $1/\tau$ and $1.01\, L$ for
        $L = \|A^* W A\|$, and is kept.
    - `relaxation`: $\alpha \in (0, 2)$; 1 is the plain method. By default 1.8, and 1 with terms
        that are not convex.
    - `adaptive`: balance the relative residuals at checks 1, 2, 4, 8, ... After `max_updates`
        changes the penalty is constant.
    - `linear_solver`: any lineax solver for the linear system; given, it is always used.
    - `check_every`: steps between two tests; a test costs about one step.

    `stats`: `objective`, `primal_residual`, `dual_residual`, `residual` (the larger relative
    one), `penalty`; with terms that are not convex also `certified`: whether $\rho > L$, the
    only copy is one of $x$ itself with a term of modulus at most $\rho$, and there is no
    relaxation (Fang, Buchanan, Sulam, What's in a
    prior?, 2024, theorem on ADMM; Wang, Yin, Zeng, Global convergence of ADMM in nonconvex
    nonsmooth optimization, 2019). `RESULTS.subproblem_failed` if the linear system is singular.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_squares(None, jnp.array([0.0, 0.0, 4.0, 4.0]))
        >>> K = jinv.operators.FiniteDifference((4,))
        >>> problem = jinv.Composite(f, penalty=jinv.prox.L1(1.0), operator=K)
        >>> sol = jinv.solve(problem, jinv.splitting.ADMM(), jnp.zeros(4))
        >>> jnp.round(sol.value, 2)
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)

        ```

    ??? cite "Source"
        Boyd, Parikh, Chu, Peleato, Eckstein, Distributed optimization and statistical learning
        via ADMM, 2011, sections 3.1, 3.3, 3.4.3; relative residual balancing after Wohlberg,
        ADMM penalty parameter selection by residual balancing, 2017. Deviation: multipliers are
        stored unscaled, so that a change of penalty needs no rescaling.
    """

    rtol: float | Real[Array, ""] = 1e-4
    atol: float | Real[Array, ""] = 1e-6
    penalty: float | Real[Array, ""] | None = None
    relaxation: float | Real[Array, ""] | None = None
    linear_solver: lx.AbstractLinearSolver | None = None
    adaptive: bool = eqx.field(static=True, default=True)
    max_updates: int = eqx.field(static=True, default=8)
    one_step: ClassVar[bool] = False
    check_every: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        check_tolerances(self, penalty=self.penalty)
        if isinstance(self.relaxation, int | float) and not 0 < self.relaxation < 2:
            raise ValueError(f"`relaxation` must lie between 0 and 2, got {self.relaxation}")

    def init(self, problem, point, args, options):
        split = make_split(problem, problem.primal(point), self, self.linear_solver)
        x = problem.primal(point)
        dtype, lipschitz = _tree.real_dtype(x), None
        steps = [jnp.asarray(step, dtype) for step in split.natural_steps()]
        if needs_certificate(*split.functionals):
            lipschitz = curvature(problem)
            lipschitz = jnp.asarray(jnp.nan if lipschitz is None else lipschitz, dtype)
        if self.penalty is None and steps:
            least = jnp.zeros((), dtype) if lipschitz is None else 1.01 * lipschitz
            penalty = functools.reduce(jnp.fmax, [1 / step for step in steps], least)
        elif self.penalty is not None:
            penalty = jnp.asarray(self.penalty, dtype)
        elif problem.penalty is not None:
            penalty = dual_scale(problem, x).astype(dtype)
        else:
            penalty = jnp.ones((), dtype)
        copies = split.apply(x)
        duals = tuple(jax.tree.map(jnp.zeros_like, u) for u in copies)
        if problem.penalty is not None:
            duals = (point.dual, *duals[1:])
        one, zero = jnp.ones((), dtype), jnp.zeros((), jnp.int32)
        fixed = (one, jnp.asarray(True), zero, unmeasured(x), lipschitz)
        return _State(split, penalty, copies, duals, *fixed)

    def step(self, problem, point, args, options, state):
        x, new, _ = self._advance(problem.primal(point), state)
        kept = (state.num_checks, state.residuals, state.lipschitz)
        new = _State(state.split, state.penalty, *new, *kept)
        return _point(problem, x, new), new

    def measured_step(self, problem, point, args, options, state):
        x, new, measure = self._advance(problem.primal(point), state)
        residuals = measure(problem.objective(x, args))
        count, penalty = state.num_checks + 1, state.penalty
        if self.adaptive and not state.split.natural_steps():
            due = ((count & (count - 1)) == 0) & (count < 2**self.max_updates)
            penalty = penalty * jnp.where(due, residual_balance(*residuals.relative()), 1)
        new = _State(state.split, penalty, *new, count, residuals, state.lipschitz)
        return _point(problem, x, new), new

    def _advance(self, x, state: _State) -> tuple[PyTree[Array], tuple[Any, Any, Any, Any], Any]:
        split, rho, relaxation = state.split, state.penalty, self._relaxation(state)
        target = jax.tree.map(lambda u, z: _tree.cast(rho, u) * u - z, state.copies, state.duals)
        # Solving far below the size of the last move gains nothing.
        rtol = jnp.clip(0.02 * state.change, solver_tolerance(x), 1e-2)
        new, solved = split.minimise(rho, target, x, rtol)
        applied = split.apply(new)
        relaxed = jax.tree.map(
            lambda k, u: u + _tree.cast(relaxation, u) * (k - u), applied, state.copies
        )
        shifted = jax.tree.map(lambda k, z: k + z / _tree.cast(rho, z), relaxed, state.duals)
        copies = split.prox(shifted, rho)
        duals = jax.tree.map(lambda v, u: _tree.cast(rho, v) * (v - u), shifted, copies)
        change = state.change
        if split.system.spectra is None:
            move = _tree.norm(_tree.subtract(new, x))
            length = jnp.maximum(_tree.norm(new), jnp.finfo(change.dtype).tiny)
            change = stop_gradient(move / length)

        def measure(objective):
            moved = _tree.scale(rho, _tree.subtract(copies, state.copies))
            length = jnp.maximum(_tree.norm(applied), _tree.norm(copies))
            return Residuals(
                _tree.norm(_tree.subtract(applied, copies)),
                split.dual_norm(moved),
                length,
                split.dual_norm(duals),
                objective,
            )

        return new, (copies, duals, change, state.solvable & solved), measure

    def terminate(self, problem, point, args, options, state):
        sizes = (size(state.copies), size(problem.primal(point)))
        done = state.residuals.converged(self.rtol, self.atol, sizes)
        failed = RESULTS.subproblem_failed
        return done, RESULTS.where(state.solvable, RESULTS.successful, failed)

    def postprocess(self, problem, point, args, options, state):
        stats = {**state.residuals.stats(), "penalty": state.penalty}
        if state.lipschitz is not None:
            known = state.split, state.penalty, state.lipschitz
            stats["certified"] = alternating_directions(*known, self._relaxation(state))
        return point, stats

    def _relaxation(self, state: _State):
        if self.relaxation is not None:
            return self.relaxation
        return 1.8 if state.lipschitz is None else 1.0


def _point(problem, x, state: _State):
    return x if problem.penalty is None else PrimalDual(x, state.duals[0])
