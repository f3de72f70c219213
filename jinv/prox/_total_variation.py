"""Total variation with its exact proximal map."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Real

from .. import _tree
from .._composite import Composite, PrimalDual
from .._functional import AbstractFunctional
from .._result import RESULTS
from .._solve import solve
from .._solver import AbstractSolver
from ..operators import FiniteDifference, norm_bound
from ._calculus import Translated
from ._group import GroupL2
from ._l1 import L1
from ._quadratic import SquaredL2
from ._util import parameter


class TotalVariation(AbstractFunctional):
    r"""Total variation, $g(x) = w \|K x\|_{2,1}$ (isotropic) or $w \|K x\|_1$ (anisotropic), with
    $K$ the forward differences.

    The prox is TV denoising. It has no closed form; it is solved through its dual to a relative
    duality gap of `rtol`, by an accelerated projected gradient method that starts, inside a
    solver, from the dual variable of the previous call. A warm-started call costs a few
    differences and divergences of the image. For a data term with an operator, `PDHG` or `ADMM`
    with `penalty=GroupL2(w, axis=0)` and `operator=FiniteDifference(...)` need no inner loop.

    **Arguments:**

    - `weight`: $w \ge 0$.
    - `isotropic`: the Euclidean norm of the differences at a pixel, or the sum of their moduli.
    - `axes`: the axes that are differenced, by default all; others (colour) are batched.
    - `boundary`: as in `jinv.operators.FiniteDifference`.
    - `rtol`: the duality gap at which the prox stops, relative to its objective. The error of
        the result is at most $\sqrt{2 t \cdot \mathrm{gap}}$.
    - `max_steps`: the most inner steps; a prox that needs more is returned as it is.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> tv = jinv.prox.TotalVariation(1.0)
        >>> float(tv(jnp.array([0.0, 0.0, 4.0, 4.0])))
        4.0
        >>> x = tv.prox(jnp.array([0.0, 0.0, 4.0, 4.0]), 1.0)  # each half moves by w t / 2
        >>> [round(float(value), 3) for value in x]
        [0.5, 0.5, 3.5, 3.5]

        ```

    ??? cite "Source"
        Beck and Teboulle, Fast gradient-based algorithms for constrained total variation image
        denoising and deblurring problems, 2009, section 4 (the dual method). Deviations:
        adaptive restart; the duality gap as the stopping test.
    """

    weight: Real[Array, ""]
    isotropic: bool = eqx.field(static=True)
    axes: tuple[int, ...] | None = eqx.field(static=True)
    boundary: Literal["neumann", "circular", "zero"] = eqx.field(static=True)
    rtol: Real[Array, ""]
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        weight: Real[ArrayLike, ""] = 1.0,
        *,
        isotropic: bool = True,
        axes: Sequence[int] | None = None,
        boundary: Literal["neumann", "circular", "zero"] = "neumann",
        rtol: Real[ArrayLike, ""] = 1e-5,
        max_steps: int = 1000,
    ):
        self.weight = parameter("weight", weight, least=0.0)
        self.isotropic = isotropic
        self.axes = None if axes is None else tuple(axes)
        self.boundary = boundary
        self.rtol = parameter("rtol", rtol, above=0.0)
        if max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {max_steps}")
        self.max_steps = max_steps

    def differences(self, x: Inexact[Array, "..."]) -> FiniteDifference:
        """The operator $K$ for images like `x`."""
        return FiniteDifference(x.shape, axes=self.axes, boundary=self.boundary, dtype=x.dtype)

    def norm(self) -> AbstractFunctional:
        """The norm that is applied to the differences."""
        return GroupL2(self.weight, axis=0) if self.isotropic else L1(self.weight)

    def __call__(self, x: Inexact[Array, "..."]) -> Real[Array, ""]:
        return self.norm()(self.differences(x).mv(x))

    def prox(self, v, step_size):
        return self.warm_prox(v, step_size, self.init_prox(v))[0]

    def init_prox(self, v):
        return jnp.zeros(self.differences(v).out_structure().shape, v.dtype)

    def warm_prox(self, v, step_size, carry):
        step_size = jnp.asarray(step_size, _tree.real_dtype(v))
        if step_size.ndim:
            raise ValueError(f"total variation takes a scalar `step_size`, got {step_size.shape}")
        problem = Composite(
            proximable=Translated(SquaredL2(1 / step_size), v),
            penalty=self.norm(),
            operator=self.differences(v),
        )
        # The solver's copies of the problem's arrays take no part in the derivative.
        rtol, fixed_step, data = jax.lax.stop_gradient((self.rtol, step_size, v))
        solver = _DualGradient(rtol=rtol, step_size=fixed_step, data=data)
        start = PrimalDual(v, carry)
        # A prox has no way to report; the residual of the outer solver shows what is missing.
        sol = solve(problem, solver, start, max_steps=self.max_steps, throw=False)
        return sol.value, jax.lax.stop_gradient(sol.dual)


class _State(eqx.Module):
    extrapolated: Array
    momentum: Array
    gap: Array
    objective: Array


class _DualGradient(AbstractSolver[_State]):
    r"""Accelerated projected gradient on $\max_z -\tfrac t2\|K^* z\|^2 + \langle K^* z, v\rangle$
    over the dual ball, with the primal point $u = v - t K^* z$."""

    rtol: Any
    step_size: Array
    data: Array
    atol: float | Real[Array, ""] = 0.0
    check_every: int = eqx.field(static=True, default=5)

    def init(self, problem, point, args, options):
        one = jnp.ones((), self.step_size.dtype)
        return _State(point.dual, one, jnp.inf * one, one)

    def _primal(self, problem, z):
        return _tree.add_scaled(self.data, -self.step_size, problem.apply_adjoint(z))

    def step(self, problem, point, args, options, state):
        y, t = state.extrapolated, state.momentum
        bound = norm_bound(problem.operator)
        assert bound is not None
        # A single pixel has no differences; the floor only keeps 0 / 0 away.
        lipschitz = jnp.maximum(bound**2, jnp.finfo(bound.dtype).tiny)
        ascent = problem.apply(self._primal(problem, y))
        z = problem.penalty.conjugate_prox(
            _tree.add_scaled(y, 1 / (self.step_size * lipschitz), ascent), 1.0
        )
        move = z - point.dual
        t = jnp.where(_tree.dot(y - z, move) > 0, jnp.ones_like(t), t)
        new_t = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        extrapolated = _tree.add_scaled(z, (t - 1) / new_t, move)
        state = _State(extrapolated, new_t, state.gap, state.objective)
        return PrimalDual(point.primal, z), state

    def measured_step(self, problem, point, args, options, state):
        point, state = self.step(problem, point, args, options, state)
        u = self._primal(problem, point.dual)
        applied = problem.apply(u)
        regulariser = problem.penalty(applied)
        # Every summand of the gap is non-negative, so that it is small without cancellation.
        gap = regulariser - _tree.dot(point.dual, applied)
        objective = regulariser + problem.proximable(u)
        state = _State(state.extrapolated, state.momentum, gap, objective)
        return PrimalDual(u, point.dual), state

    def terminate(self, problem, point, args, options, state):
        bound = jnp.asarray(self.rtol, state.gap.dtype) * state.objective
        return state.gap <= bound, RESULTS.successful

    def postprocess(self, problem, point, args, options, state):
        relative = state.gap / jnp.where(state.objective > 0, state.objective, 1)
        return point, {"residual": relative, "gap": state.gap, "objective": state.objective}
