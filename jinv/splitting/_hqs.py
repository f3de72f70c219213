"""Half-quadratic splitting."""

import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, PyTree, Real

from .. import _tree
from .._composite import PrimalDual
from .._result import RESULTS
from .._solver import AbstractSolver
from ._certificate import alternating_minimisation, needs_certificate
from ._quadratic import Split, make_split
from ._scale import dual_scale
from ._stopping import Residuals, check_tolerances, size, unmeasured


class _State(eqx.Module):
    split: Split
    penalty: Real[Array, ""]
    limit: Real[Array, ""]
    copies: tuple[PyTree[Array], ...]
    solvable: Bool[Array, ""]
    residuals: Residuals


class HQS(AbstractSolver[_State]):
    r"""Half-quadratic splitting for $f(x) + g(x) + h(K x)$ with a least-squares $f$ (or none).

    It alternates the two minimisations of
    $f(x) + \sum_i h_i(u_i) + \tfrac{\rho}{2}\|K_i x - u_i\|^2$ while $\rho$ grows by `growth` per
    step, up to `final_penalty`: a handful of steps, the classical scheme for plug-and-play
    denoisers whose noise level $1/\sqrt\rho$ falls step by step. It has no multipliers, so at
    the final penalty it minimises the Moreau-smoothed problem with $h_i$ replaced by its
    envelope at $1/\rho$, and $\|K x - u\|$ stays of order $1/\rho$. For the exact solution take
    `ADMM`; an implicit derivative at an `HQS` point is biased by the same order.

    **Arguments:**

    - `rtol`, `atol`: stop when, at the final penalty, the copies have stopped moving:
        $\rho\|K^*(u - u_-)\|$ against $\rho \|K^*(Kx - u)\|$.
    - `penalty`: the first $\rho$; by default from the scale of the problem. With a learned
        proximal network of step size $\tau$ it is $1/\tau$, and is kept.
    - `growth`: the factor per step; 1 keeps $\rho$.
    - `final_penalty`: the largest $\rho$; by default 100 times the first, where that is not
        kept; the number of steps that the last penalty needs grows with it.
    - `linear_solver`, `check_every`: see `ADMM`.

    `stats`: `objective`, `primal_residual` $\|Kx - u\|$ (not part of the stopping test),
    `dual_residual`, `residual` (relative, of the dual one), `penalty`; with terms that are not
    convex also `certified`: whether the last penalty is reached and the only copy is one of $x$
    itself with a term of modulus at most $\rho$. From there on it is the proximal gradient method
    for the smoothed problem, with the theorem named there.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_squares(None, jnp.array([0.0, 0.0, 4.0, 4.0]))
        >>> K = jinv.operators.FiniteDifference((4,))
        >>> problem = jinv.Composite(f, penalty=jinv.prox.L1(1.0), operator=K)
        >>> sol = jinv.solve(problem, jinv.splitting.HQS(final_penalty=100.0), jnp.zeros(4))
        >>> jnp.round(sol.value, 1)  # up to the smoothing
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)

        ```

    ??? cite "Source"
        Geman and Yang, Nonlinear image recovery with half-quadratic regularization, 1995; the
        continuation as in Wang, Yang, Yin, Zhang, A new alternating minimization algorithm for
        total variation image reconstruction, 2008.
    """

    rtol: float | Real[Array, ""] = 1e-4
    atol: float | Real[Array, ""] = 1e-6
    penalty: float | Real[Array, ""] | None = None
    growth: float | Real[Array, ""] = 1.3
    final_penalty: float | Real[Array, ""] | None = None
    linear_solver: lx.AbstractLinearSolver | None = None
    one_step: ClassVar[bool] = False
    check_every: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        check_tolerances(self, penalty=self.penalty, final_penalty=self.final_penalty)
        if isinstance(self.growth, int | float) and not self.growth >= 1:
            raise ValueError(f"`growth` must be at least 1, got {self.growth}")

    def init(self, problem, point, args, options):
        x = problem.primal(point)
        split = make_split(problem, x, self, self.linear_solver)
        dtype = _tree.real_dtype(x)
        steps = [jnp.asarray(t, dtype) for t in split.natural_steps()]
        if self.penalty is not None:
            penalty = jnp.asarray(self.penalty, dtype)
        elif steps:
            penalty = 1 / functools.reduce(jnp.fmin, steps)
        else:
            scaled = problem.penalty is not None
            penalty = dual_scale(problem, x).astype(dtype) if scaled else jnp.ones((), dtype)
        limit = self.final_penalty
        if limit is None:
            limit = penalty if self.penalty is None and steps else 100 * penalty
        limit = jnp.asarray(limit, dtype)
        return _State(split, penalty, limit, split.apply(x), jnp.asarray(True), unmeasured(x))

    def step(self, problem, point, args, options, state):
        x, new, _ = self._advance(problem.primal(point), state)
        return self._finish(problem, x, new, state.residuals)

    def measured_step(self, problem, point, args, options, state):
        x, new, applied = self._advance(problem.primal(point), state)
        split, rho = state.split, state.penalty
        gap = _tree.subtract(applied, new.copies)
        moved = split.dual_norm(_tree.subtract(new.copies, state.copies))
        residuals = Residuals(
            _tree.norm(gap),
            rho * moved,
            jnp.maximum(_tree.norm(applied), _tree.norm(new.copies)),
            rho * split.dual_norm(gap),
            problem.objective(x, args),
        )
        return self._finish(problem, x, new, residuals)

    def _advance(self, x, state: _State):
        split, rho = state.split, state.penalty
        target = _tree.scale(rho, state.copies)
        x, solved = split.minimise(rho, target, x, None)
        applied = split.apply(x)
        copies = split.prox(applied, rho)
        growth = jnp.asarray(self.growth, rho.dtype)
        penalty = jnp.minimum(rho * growth, jnp.maximum(state.limit, rho))
        solvable = state.solvable & solved
        return x, _State(split, penalty, state.limit, copies, solvable, state.residuals), applied

    def _finish(self, problem, x, new: _State, residuals):
        new = eqx.tree_at(lambda s: s.residuals, new, residuals)
        if problem.penalty is None:
            return x, new
        applied = problem.apply(x)
        dual = jax.tree.map(
            lambda k, u: _tree.cast(new.penalty, k) * (k - u), applied, new.copies[0]
        )
        return PrimalDual(x, dual), new

    def terminate(self, problem, point, args, options, state):
        # A test of the dual residual alone: the primal one cannot vanish at a finite penalty.
        r = state.residuals
        n = size(problem.primal(point)) ** 0.5
        bound = jnp.asarray(n, r.dual.dtype) * jnp.asarray(self.atol, r.dual.dtype)
        bound = bound + jnp.asarray(self.rtol, r.dual.dtype) * r.dual_scale
        done = (r.dual <= bound) & jnp.isfinite(r.dual) & (state.penalty >= state.limit)
        failed = RESULTS.subproblem_failed
        return done, RESULTS.where(state.solvable, RESULTS.successful, failed)

    def postprocess(self, problem, point, args, options, state):
        stats = state.residuals.stats()
        _, stats["residual"] = state.residuals.relative()
        stats["penalty"] = state.penalty
        if needs_certificate(*state.split.functionals):
            known = state.split, state.penalty, state.limit
            stats["certified"] = alternating_minimisation(*known)
        return point, stats
