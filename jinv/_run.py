"""The engine: `init`, then `step` until `terminate`, for jinv's and for optimistix's solvers."""

import dataclasses
import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, PyTree, Shaped

from . import _tree
from ._loop import LoopKind, lane_by_lane, match_varying, strip_weak_type, while_loop
from ._problem import AbstractProblem, FixedPoint, Minimise, RootFind
from ._progress import AbstractProgressMeter, NoProgressMeter
from ._result import RESULTS, promote
from ._solver import AbstractSolver


class Settings(eqx.Module):
    """What `solve` was told, apart from the problem and the solver."""

    options: dict[str, Any]
    progress_meter: AbstractProgressMeter
    max_steps: int = eqx.field(static=True)
    save_history: bool = eqx.field(static=True, default=False)
    kind: LoopKind = eqx.field(static=True, default="lax")
    checkpoints: int | None = eqx.field(static=True, default=None)
    detached: bool = eqx.field(static=True, default=True)

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


class Outcome(eqx.Module):
    """The solution point and everything about how it was found."""

    point: PyTree[Array]
    result: RESULTS
    stats: dict[str, PyTree[Shaped[Array, "..."]]]
    state: PyTree


def run(problem: AbstractProblem, solver: Any, y0: PyTree, args: PyTree, settings: Settings):
    if not isinstance(solver, AbstractSolver):
        return _optimistix(problem, solver, y0, args, settings)
    iterate = lambda y0: _iterate(problem, solver, y0, args, settings)
    # A meter shows all lanes at once, so there they have to go together.
    silent = isinstance(settings.progress_meter, NoProgressMeter)
    if settings.detached and silent and _bytes(problem.initial_point, y0, args) >= _LARGE:
        return lane_by_lane(iterate, y0)
    return iterate(y0)


# From this size of the initial point on, a batch of solves outgrows a CPU's cache.
_LARGE = 2**18


def _bytes(fn, *args):
    leaves = jax.tree.leaves(jax.eval_shape(fn, *args))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _iterate(problem, solver, y0, args, settings):
    if settings.save_history and settings.kind != "lax":
        raise ValueError("`save_history` is not available with UnrollAdjoint")
    options, meter = settings.options, settings.progress_meter
    stride = min(solver.check_every, settings.max_steps)
    num_checks = -(-settings.max_steps // stride)

    point = strip_weak_type(problem.initial_point(y0, args))
    state = solver.init(problem, point, args, options)
    dynamic, static = eqx.partition(state, eqx.is_array)
    dynamic = strip_weak_type(dynamic)

    def advance(method, carry):
        point, dynamic = carry
        point, state = method(problem, point, args, options, eqx.combine(dynamic, static))
        new_dynamic, new_static = eqx.partition(state, eqx.is_array)
        if eqx.tree_equal(static, new_static) is not True:
            raise ValueError(f"a step of {type(solver).__name__} changed static parts of its state")
        return point, new_dynamic

    step = ft.partial(advance, solver.step)
    measured_step = ft.partial(advance, solver.measured_step)
    stepped = _check_step(step, (point, dynamic), solver)

    def check(point, dynamic):
        state = eqx.combine(dynamic, static)
        done, result = solver.terminate(problem, point, args, options, state)
        finite = _tree.all_finite(point)
        result = promote(result)
        # What the solver says of its own failure is closer to the cause.
        sound = finite | (result != RESULTS.successful)
        result = RESULTS.where(sound, result, RESULTS.diverged)
        _, stats = solver.postprocess(problem, point, args, options, state)
        return done, result, stats

    def block(carry):
        steps = carry.point, carry.dynamic
        if stride > 1:
            steps = jax.lax.fori_loop(0, stride - 1, lambda _, c: step(c), steps)
        point, dynamic = measured_step(steps)
        done, result, stats = check(point, dynamic)
        index = carry.num_steps // stride
        kept = {key: stats[key] for key in carry.history}
        history = jax.tree.map(lambda h, s: h.at[index].set(s), carry.history, kept)
        num_steps = carry.num_steps + stride
        return _Carry(point, dynamic, num_steps, done, result, stats["residual"], history)

    def active(carry):
        going = ~carry.done & (carry.result == RESULTS.successful)
        return going & (carry.num_steps < num_checks * stride)

    def body(both):
        carry, shown = both
        carry = block(carry)
        return carry, meter.step(shown, carry.num_steps, carry.residual)

    shapes = jax.eval_shape(lambda c: check(*c)[2], (point, dynamic))
    history = {}
    if settings.save_history:
        history = {key: _nan_rows(num_checks, s) for key, s in shapes.items()}
    nan = _tree.any_nan(eqx.filter((problem, y0, args, point), eqx.is_inexact_array))
    carry = _Carry(
        point,
        dynamic,
        jnp.zeros((), jnp.int32),
        jnp.asarray(False),
        RESULTS.where(nan, RESULTS.nan_in_input, RESULTS.successful),
        jnp.full((), jnp.inf, shapes["residual"].dtype),
        history,
    )
    both = (carry, meter.init(settings.max_steps))
    # What the problem's functions close over shows only in the outcome of a step.
    both = match_varying(both, (problem, args, options, stepped))
    carry, shown = while_loop(
        lambda both: active(both[0]),
        body,
        both,
        kind=settings.kind,
        max_steps=num_checks,
        checkpoints=settings.checkpoints,
    )
    state = eqx.combine(carry.dynamic, static)
    out_of_steps = ~carry.done & (carry.result == RESULTS.successful)
    result = RESULTS.where(out_of_steps, RESULTS.nonlinear_max_steps_reached, carry.result)
    point, stats = solver.postprocess(problem, carry.point, args, options, state)
    meter.close(shown, carry.num_steps, stats["residual"])
    stats = {**stats, "num_steps": carry.num_steps, "max_steps": settings.max_steps}
    if settings.save_history:
        stats["history"] = carry.history
    return Outcome(point, result, stats, state)


class _Carry(eqx.Module):
    """What the loop carries for one lane; the state's static part stays outside."""

    point: PyTree[Array]
    dynamic: PyTree[Array]
    num_steps: Array
    done: Array
    result: RESULTS
    residual: Array
    history: dict[str, Array]


def _nan_rows(length, struct):
    dtype = struct.dtype
    fill = jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else -1
    return jnp.full((length, *struct.shape), fill, dtype)


def _check_step(step, carry, solver):
    shapes = jax.eval_shape(step, carry)
    for name, old, new in zip(("the iterate", "its state"), carry, shapes, strict=True):
        told = lambda tree: jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)
        if told(old) != told(new):
            raise ValueError(
                f"a step of {type(solver).__name__} changes {name} from {told(old)} to "
                f"{told(new)}: "
                "`y0`, the problem's data and `args` must agree in shape and dtype"
            )
    return shapes


def _optimistix(problem, solver, y0, args, settings):
    """Hands the problem to optimistix, whose solvers bring their own loop."""
    if settings.save_history:
        raise ValueError("`save_history` is not available with optimistix solvers")
    entry = _entry(problem, solver)
    adjoint = optx.ImplicitAdjoint()
    if settings.kind == "checkpointed":
        adjoint = optx.RecursiveCheckpointAdjoint(checkpoints=settings.checkpoints)
    elif settings.kind == "bounded":
        raise ValueError("optimistix solvers have no UnrollAdjoint(mode='both')")
    point = strip_weak_type(problem.initial_point(y0, args))
    sol = entry(
        problem.fn,
        solver,
        point,
        args,
        settings.options,
        max_steps=settings.max_steps,
        adjoint=adjoint,
        throw=False,
    )
    nan = _tree.any_nan(eqx.filter((problem, y0, args), eqx.is_inexact_array))
    result = RESULTS.where(nan, RESULTS.nan_in_input, promote(sol.result))
    stats = {
        "num_steps": sol.stats["num_steps"],
        "max_steps": settings.max_steps,
        "residual": _tree.norm(problem.optimality(sol.value, args)),
    }
    return Outcome(sol.value, result, stats, sol.state)


_ACCEPTED: dict[type, tuple[type, ...]] = {
    FixedPoint: (
        optx.AbstractFixedPointSolver,
        optx.AbstractRootFinder,
        optx.AbstractLeastSquaresSolver,
        optx.AbstractMinimiser,
    ),
    RootFind: (optx.AbstractRootFinder, optx.AbstractLeastSquaresSolver, optx.AbstractMinimiser),
    Minimise: (optx.AbstractMinimiser,),
}
_ENTRIES = {FixedPoint: optx.fixed_point, RootFind: optx.root_find, Minimise: optx.minimise}


def _entry(problem, solver):
    kinds = _ACCEPTED.get(type(problem), ())
    if isinstance(solver, kinds):
        return _ENTRIES[type(problem)]
    takes = " or ".join(["a jinv solver", *(f"an optimistix {k.__name__}" for k in kinds)])
    raise ValueError(f"{type(problem).__name__} is solved by {takes}, got {type(solver).__name__}")
