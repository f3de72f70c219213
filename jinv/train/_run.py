"""Where a training stands, and what is written down about it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from . import _early_stop
from ._checkpoint import Checkpoints


class Run(NamedTuple):
    """Where a run stands; replaced as a whole, so that an interruption finds it consistent."""

    arrays: list[Array]
    done: int
    # The metrics of the steps since the last record.
    pending: list[dict[str, float]]
    history: list[dict[str, Any]]
    # The model with the least monitored number, if there is one and it is monitored.
    best: PyTree | None


def advanced(run: Run, arrays: list[Array], metrics: dict[str, Array], count: int) -> Run:
    """After `count` more steps."""
    fetched = jax.device_get(metrics)
    new = [{k: float(values[i]) for k, values in fetched.items()} for i in range(count)]
    return run._replace(arrays=arrays, done=run.done + count, pending=[*run.pending, *new])


def check_finite(run: Run, excess: int, store: Checkpoints | None) -> None:
    """Stops a training with `excess` too many steps gone wrong."""
    first = run.done - len(run.pending) + 1
    wrong = [first + i for i, metrics in enumerate(run.pending) if not metrics["finite"]]
    if wrong and excess > 0:
        step = wrong[-min(excess, len(wrong))]
        metrics = run.pending[step - first]
        kept = "there is no `checkpoint`" if store is None else store.stands
        raise FloatingPointError(
            f"step {step} was not finite (loss {metrics['loss']}, norm of its gradient "
            f"{metrics['gradient_norm']}), which is more often than `max_skipped` allows; {kept}. "
            f"Try a smaller step size or `optax.clip_by_global_norm`."
        )


def record(run: Run, validate: Callable | None, monitor: str | None, unflatten: Callable) -> Run:
    """Closes a record: the means of what is pending, and the validation."""
    names = dict.fromkeys(["loss", "gradient_norm", *run.pending[0]])
    kept = [metrics for metrics in run.pending if metrics["finite"]]
    means = {
        name: sum(metrics[name] for metrics in kept) / len(kept) if kept else math.nan
        for name in names
        if name != "finite"
    }
    model = unflatten(run.arrays).averaged
    checked = {} if validate is None else validate(model)
    checked = {f"validation_{name}": float(value) for name, value in checked.items()}
    history = [*run.history, {"step": run.done, **means, **checked}]
    is_best = monitor is not None and _early_stop.best(history, monitor) == len(run.history)
    return Run(run.arrays, run.done, [], history, model if is_best else run.best)
