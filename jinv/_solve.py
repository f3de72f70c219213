"""The single entry point."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._adjoint import AbstractAdjoint, ImplicitAdjoint, forget_derivatives
from ._loop import raise_if
from ._problem import AbstractProblem
from ._progress import AbstractProgressMeter, NoProgressMeter
from ._result import RESULTS, Solution
from ._run import Settings


def solve(
    problem: AbstractProblem,
    solver: Any,
    y0: PyTree,
    args: PyTree = None,
    *,
    options: dict[str, Any] | None = None,
    max_steps: int = 1000,
    adjoint: AbstractAdjoint | None = None,
    throw: bool = True,
    progress_meter: AbstractProgressMeter | None = None,
    save_history: bool = False,
) -> Solution:
    """Solves `problem` with `solver` from the initial guess `y0`.

    The whole solve is one compiled loop: its compile time does not depend on the number of
    steps, it batches with `jax.vmap` (each lane stops on its own), and it can be differentiated
    as `adjoint` says. Inside a larger jitted program it is inlined.

    **Arguments:**

    - `problem`: what to solve; `jinv.FixedPoint`, `RootFind`, `Minimise`, `Composite` or your own.
    - `solver`: how; a `jinv.AbstractSolver`, or any optimistix solver for the kinds of problem
        that it solves.
    - `y0`: the initial guess, a PyTree of floating or complex arrays; no derivative flows
        through it, except under `UnrollAdjoint`.
    - `args`: passed on to the problem's functions.

    *Other arguments:*

    - `options`: extra arguments for a solver that takes any.
    - `max_steps`: the most steps, a Python integer; rounded up to a multiple of the solver's
        `check_every`.
    - `adjoint`: how to differentiate; `jinv.ImplicitAdjoint()` by default.
    - `throw`: raise on failure (under `vmap`, when any lane fails). With `False`, read
        `solution.result`. On a GPU or TPU raising is best-effort: read `result` there.
    - `progress_meter`: `jinv.TqdmProgressMeter()` shows a bar.
    - `save_history`: keep the solver's statistics at every check, in `stats["history"]`.

    Python floats anywhere in `problem`, `solver`, `y0`, `args` are traced, so that a new value
    does not compile again; functions are compared by identity, so define them once.

    **Returns:** a `jinv.Solution`.

    **Raises:** `ValueError` for misuse that is known before anything runs; a runtime error with
    the text of the `jinv.RESULTS` item if the solve fails and `throw` is true.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> misfit = lambda x, b: 0.5 * jnp.sum((x - b) ** 2)
        >>> problem = jinv.Composite(misfit, jinv.prox.NonNegative())
        >>> sol = jinv.solve(problem, jinv.splitting.FISTA(), jnp.zeros(2), jnp.array([2.0, -1.0]))
        >>> jnp.round(sol.value, 3)
        Array([2., 0.], dtype=float32)

        ```
    """
    if not isinstance(problem, AbstractProblem):
        raise ValueError(f"`problem` must be a jinv problem, got {type(problem).__name__}")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"`max_steps` must be a positive integer, got {max_steps!r}")
    adjoint = ImplicitAdjoint() if adjoint is None else adjoint
    meter = NoProgressMeter() if progress_meter is None else progress_meter
    if not isinstance(adjoint, AbstractAdjoint):
        raise ValueError(f"`adjoint` must be a jinv adjoint, got {type(adjoint).__name__}")
    if not isinstance(meter, AbstractProgressMeter):
        raise ValueError(f"`progress_meter` must be a jinv meter, got {type(meter).__name__}")
    settings = Settings({} if options is None else options, meter, max_steps, save_history)
    traced = _trace_floats((problem, solver, _inexact(y0), args, settings, adjoint))
    return _solve(*traced, throw=throw)


@eqx.filter_jit
def _solve(problem, solver, y0, args, settings, adjoint, throw):
    out = adjoint.outcome(problem, solver, y0, args, settings)
    stats, state = forget_derivatives(adjoint, (out.stats, out.state))
    point, result = out.point, out.result
    if throw:
        failed = result != RESULTS.successful
        point, stats, state = raise_if(failed, result, (point, stats, state))
    return Solution(problem.primal(point), problem.dual(point), result, stats, state)


def _inexact(y0: PyTree) -> PyTree[Array]:
    def leaf(x):
        x = jnp.asarray(x, dtype=float) if isinstance(x, bool | int | float) else x
        if not eqx.is_array_like(x) or not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ValueError(f"`y0` must hold floating or complex arrays, got {kind}")
        return jnp.asarray(x)

    return jax.tree.map(leaf, y0)


def _trace_floats(tree: PyTree) -> PyTree:
    # `asarray` keeps the weak type, so that a float adopts the dtype of the data it meets.
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float | complex) else x, tree)
