"""How a solve is differentiated: one implementation of each rule, usable with every solver."""

import abc
from typing import Any, Literal

import equinox as eqx
import jax
import lineax as lx
from jaxtyping import PyTree

from . import _tree
from ._linear import Series, UnitScale, jacobian, linear_solve
from ._loop import LoopKind, detached, hoist, nondifferentiable, stop_gradient
from ._problem import AbstractProblem
from ._run import Outcome, run
from ._solver import AbstractSolver


class AbstractAdjoint(eqx.Module):
    """How a solve is differentiated."""

    @abc.abstractmethod
    def outcome(
        self, problem: AbstractProblem, solver: Any, y0: PyTree, args: PyTree, settings: Any
    ) -> Outcome:
        """Solves, and makes the solution point depend on its inputs as this rule says."""


_WEIGHTS = (
    "The solver's own arrays (weights, step sizes, tolerances) have no derivative under {name}: "
    "it differentiates the solution, and the solution does not depend on how it was found. To "
    "train a solver, differentiate its iterates with adjoint=jinv.UnrollAdjoint()."
)


class ImplicitAdjoint(AbstractAdjoint):
    r"""The implicit function theorem at the solution point.

    With the problem's optimality condition $F(y, \theta) = 0$, the derivative solves
    $\partial_y F\, \dot y = -\partial_\theta F\, \dot\theta$. Memory does not grow with the
    number of steps, and forward mode, reverse mode and higher orders all work. It is exact only
    at a solution: an unconverged point gives a biased derivative, so look at
    `stats["residual"]`.

    Derivatives flow to `args` and to every array of the problem (also to what its functions
    close over), not to `y0`, the solver or `options`. With respect to the solver's arrays they
    are an error.

    **Arguments:**

    - `linear_solver`: any `lineax.AbstractLinearSolver` for that system; by default the
        problem's choice: dense for small systems, Krylov for large ones, as exactly as the
        solver's `rtol` makes sensible (`Composite`) or to about three quarters of the digits of
        the dtype (all others). The right-hand side is scaled to unit maximum before the solve,
        so that absolute tolerances are relative ones.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, optimistix as optx, jinv
        >>> problem = jinv.FixedPoint(lambda y, a: 0.5 * y + a)  # y = 2 a
        >>> solver = optx.FixedPointIteration(rtol=1e-6, atol=1e-6)
        >>> def solution(a):
        ...     return jinv.solve(problem, solver, jnp.array(0.0), a, adjoint=adjoint).value
        >>> adjoint = jinv.ImplicitAdjoint()
        >>> round(float(jax.grad(solution)(1.0)), 4)
        2.0

        ```

    ??? cite "Source"
        Blondel, Berthet, Cuturi, Frostig, Hoyer, Llinares-López, Pedregosa, Vert, Efficient and
        Modular Implicit Differentiation, 2022, eq. 2 and 3. Deviation: the rule is a JVP, so
        that lineax transposes it, and the right-hand side is scaled.
    """

    linear_solver: lx.AbstractLinearSolver | None = None

    def outcome(self, problem, solver, y0, args, settings):
        return _implicit(self, problem, solver, y0, args, settings, self.linear_solver)


class NeumannAdjoint(AbstractAdjoint):
    r"""The implicit derivative with a truncated Neumann series for the inverse,
    $(\partial_y F)^{-1} \approx \alpha \sum_{j=0}^{k} (I - \alpha\, \partial_y F)^j$.

    Cheap and robust when an approximate derivative is enough; it converges to
    `ImplicitAdjoint` as the number of terms grows if $\|I - \alpha\, \partial_y F\| < 1$, with
    an error of that norm to the power `terms + 1`. `terms=0` keeps $\alpha$ times the identity.

    **Arguments:**

    - `terms`: $k$, the number of products with the Jacobian; an integer of at least 0.
    - `step_size`: $\alpha$; for `FixedPoint` and `Composite` problems 1 is natural, for
        `Minimise` and `RootFind` at most one over the largest eigenvalue.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, optimistix as optx, jinv
        >>> problem = jinv.FixedPoint(lambda y, a: 0.5 * y + a)  # y = 2 a
        >>> solver = optx.FixedPointIteration(rtol=1e-6, atol=1e-6)
        >>> def solution(a):
        ...     return jinv.solve(problem, solver, jnp.array(0.0), a, adjoint=adjoint).value
        >>> adjoint = jinv.NeumannAdjoint(terms=2)
        >>> round(float(jax.grad(solution)(1.0)), 4)  # 1 + 1/2 + 1/4
        1.75

        ```

    ??? cite "Source"
        Lorraine, Vicol, Duvenaud, Optimizing Millions of Hyperparameters by Implicit
        Differentiation, 2020. Deviation: the series as derived in the text; the printed
        pseudo-code slips in sign and scale.
    """

    terms: int = eqx.field(static=True)
    step_size: Any = 1.0

    def __check_init__(self):
        if not isinstance(self.terms, int) or self.terms < 0:
            raise ValueError(f"`terms` must be an integer of at least 0, got {self.terms!r}")

    def outcome(self, problem, solver, y0, args, settings):
        series = _NeumannSeries(self.terms, self.step_size)
        return _implicit(self, problem, solver, y0, args, settings, series)


class UnrollAdjoint(AbstractAdjoint):
    """Differentiation of the iterates themselves, with checkpoints in reverse mode.

    It answers another question than the implicit rules: how does the iterate that was returned
    depend on everything, the solver's own arrays and `y0` included. This is how learned solvers
    are trained.

    **Arguments:**

    - `checkpoints`: how many iterates are kept for the backward pass; by default about the
        square root of `max_steps`. The rest is recomputed.
    - `mode`: `"reverse"` (the default), `"forward"`, or `"both"`, which runs a bounded loop
        that costs about `max_steps` steps however early the solve stops.

    `stats` and `state` carry derivatives too. `save_history` is not available.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, optimistix as optx, jinv
        >>> problem = jinv.FixedPoint(lambda y, a: 0.5 * y + a)  # y = 2 a
        >>> solver = optx.FixedPointIteration(rtol=1e-6, atol=1e-6)
        >>> def solution(a):
        ...     return jinv.solve(problem, solver, jnp.array(0.0), a, adjoint=adjoint).value
        >>> adjoint = jinv.UnrollAdjoint()
        >>> round(float(jax.grad(solution)(1.0)), 4)
        2.0

        ```
    """

    checkpoints: int | None = eqx.field(static=True, default=None)
    mode: Literal["reverse", "forward", "both"] = eqx.field(static=True, default="reverse")

    def __check_init__(self):
        if self.mode not in _KINDS:
            raise ValueError(f"`mode` must be one of {sorted(_KINDS)}, got {self.mode!r}")
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ValueError(f"`checkpoints` must be at least 1, got {self.checkpoints}")

    def outcome(self, problem, solver, y0, args, settings):
        kind = _KINDS[self.mode]
        settings = settings.replace(kind=kind, checkpoints=self.checkpoints, detached=False)
        return run(problem, solver, y0, args, settings)


_KINDS: dict[str, LoopKind] = {"reverse": "checkpointed", "forward": "lax", "both": "bounded"}


class OneStepAdjoint(AbstractAdjoint):
    r"""Differentiation of the last step only: one more step is taken from the solution point
    and differentiated, with the point and the state it starts from held fixed.

    It costs one step, needs no linear solve and no stored iterates. It is exact for solvers that
    converge superlinearly (Newton); with linear rate $\rho$ the error is of order
    $\rho / (1 - \rho)$. The solver's own arrays are differentiable too, through that step.

    Solvers with a dual variable (`PDHG`, `ADMM`, `HQS`, `DouglasRachford`) are refused: one step
    does not carry what enters there to the solution, and the derivative would be zero.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> def solution(b):
        ...     problem = jinv.Composite(jinv.data_terms.least_squares(None, b))
        ...     solver, adjoint = jinv.splitting.ProximalGradient(), jinv.OneStepAdjoint()
        ...     return jinv.solve(problem, solver, jnp.zeros(1), adjoint=adjoint).value[0]
        >>> jax.grad(solution)(jnp.array([2.0]))
        Array([1.], dtype=float32)

        ```

    ??? cite "Source"
        Bolte, Pauwels, Vaiter, One-step differentiation of iterative algorithms, 2023.
    """

    def outcome(self, problem, solver, y0, args, settings):
        if not isinstance(solver, AbstractSolver):
            raise ValueError(
                "OneStepAdjoint repeats a step of a jinv solver; for an optimistix solver use "
                "ImplicitAdjoint, NeumannAdjoint or UnrollAdjoint"
            )
        if not solver.one_step:
            raise ValueError(
                f"one step of {type(solver).__name__} does not depend on all that its solution "
                "depends on: OneStepAdjoint would be wrong; use ImplicitAdjoint or UnrollAdjoint"
            )
        out = detached(lambda y: run(problem, solver, y, args, settings), y0)
        point, _ = solver.step(problem, out.point, args, settings.options, out.state)
        return eqx.tree_at(lambda o: o.point, out, point)


def _implicit(adjoint, problem, solver, y0, args, settings, linear_solver):
    name = type(adjoint).__name__
    solver = nondifferentiable(solver, name="solver", message=_WEIGHTS.format(name=name))
    out = detached(lambda y: run(problem, solver, y, args, settings), y0)
    if linear_solver is None:
        linear_solver = problem.linear_solver(out.point, args, getattr(solver, "rtol", 0.0))
    residual = hoist(problem.optimality, out.point, args)
    point = _attach(
        _tree.realify(out.point),
        (residual, args),
        out.point,
        problem.tags(),
        UnitScale(linear_solver),
    )
    return eqx.tree_at(lambda o: o.point, out, _tree.complexify(point, out.point))


@eqx.filter_custom_jvp
def _attach(point, inputs, like, tags, linear_solver):
    return point


@_attach.def_jvp
def _(primals, tangents):
    point, inputs, like, tags, linear_solver = primals
    t_inputs = tangents[1]
    missing = jax.tree.map(lambda t: t is None, t_inputs, is_leaf=lambda t: t is None)
    fixed, moving = eqx.partition(inputs, missing)
    # Attached again, so that the rule's own derivative knows how the point moves.
    point = _attach(point, inputs, like, tags, linear_solver)

    def residual(point, inputs):
        fn, args = inputs
        return _tree.realify(fn(_tree.complexify(point, like), args))

    _, rhs = jax.jvp(
        lambda moving: residual(point, eqx.combine(moving, fixed)), (moving,), (t_inputs,)
    )
    operator = jacobian(lambda p: residual(p, inputs), point, tags)
    minus = linear_solve(operator, rhs, linear_solver)
    return point, _tree.scale(-1, minus)


class _NeumannSeries(lx.AbstractLinearSolver):
    """The truncated series as a lineax solver, so that one implicit rule serves both."""

    terms: int = eqx.field(static=True)
    step_size: Any

    def init(self, operator, options):
        return Series(lx.linearise(operator), self.terms, self.step_size)

    def compute(self, state, vector, options):
        return state.mv(vector), lx.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.transpose(), options

    def conj(self, state, options):
        return lx.conj(state), options

    def assume_full_rank(self):
        return True


def forget_derivatives(adjoint: AbstractAdjoint, tree: PyTree) -> PyTree:
    """Statistics and states: differentiable where iterates are, constants elsewhere."""
    return tree if isinstance(adjoint, UnrollAdjoint) else stop_gradient(tree)
