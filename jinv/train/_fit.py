"""The training loop: progress, records, checkpoints, and an exact way back into it."""

import functools
import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax
import tqdm
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._checkpoint import Checkpoints
from ._compiled import compiled_step, flatten, given, keys
from ._shard import replicate, shard_batch
from ._step import TrainState, TrainStep


class Fit(NamedTuple):
    """What `fit` returns.

    **Attributes:**

    - `model`: the trained model; with `ema_decay` the one with the averaged weights.
    - `history`: the records, a list of dictionaries; see `fit`.
    - `state`: the last `TrainState`. `state.step` is less than `num_steps` if the run was
        interrupted.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv, optax
        >>> loss, batches = lambda w, batch, key: (w - batch) ** 2, lambda key, step: 1.0
        >>> options = {"optimiser": optax.sgd(0.5), "num_steps": 1, "key": jax.random.key(0)}
        >>> jinv.train.fit(loss, jnp.array(0.0), batches, progress=False, **options).history
        [{'step': 1, 'loss': 1.0, 'gradient_norm': 2.0}]

        ```
    """

    model: PyTree
    history: list[dict[str, Any]]
    state: TrainState


def fit(
    loss: Callable,
    model: PyTree,
    batches: Callable,
    *,
    optimiser: optax.GradientTransformation,
    num_steps: int,
    key: PRNGKeyArray,
    trainable: PyTree = None,
    ema_decay: float | None = None,
    validate: Callable | None = None,
    devices: Sequence[Any] | None = None,
    host_batches: bool = False,
    max_skipped: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 1000,
    log_every: int = 100,
    progress: bool = True,
) -> Fit:
    """Trains a model: `num_steps` times `TrainStep`, compiled together with its batch.

    With `checkpoint`, the same call goes on from the last checkpoint in that folder, or returns
    at once if it is complete; with a larger `num_steps` it goes on further. A run that was
    interrupted and resumed has the same numbers as one that was not, bit for bit where XLA
    repeats itself (CPUs do; GPUs need `--xla_gpu_deterministic_ops`). What a checkpoint cannot
    know, `loss`, `batches` and the numbers inside `optimiser`, has to stay the same. One
    process; the host waits for the devices every `log_every` steps only.

    **Arguments:**

    - `loss`, `optimiser`, `trainable`, `ema_decay`: see `TrainStep`.
    - `model`: the model to begin with, an equinox module or any PyTree.
    - `batches`: `batches(key, step)`, a pure function: that is what makes resuming exact.
        `key` is a fresh one for every step, `step` counts from 0. It is traced into the
        compiled step. `Minibatches` samples arrays; a function with arrays of its own is best an
        `eqx.Module` or a `jax.tree_util.Partial`, so that they are no constants.
    - `num_steps`: the number of steps, with those of an earlier run that is resumed.
    - `key`: every random number of the run comes from it.
    - `validate`: `validate(model)`, a dictionary of scalars, called for every record with the
        averaged model if there is one. It is not compiled here.
    - `devices`: split the batches over these (see `shard_batch`), such as `jax.devices()`.
    - `host_batches`: call `batches` outside the compiled step, with a Python integer, for data
        that do not fit on the device.
    - `max_skipped`: the number of steps that are not finite (they change nothing) before
        the training stops with an error.
    - `checkpoint`: the folder of the checkpoints of this run.
    - `save_every`: steps between checkpoints; the last step is always saved.
    - `log_every`: steps between records; the last step always has one.
    - `progress`: show a tqdm bar.

    **Returns:** a `Fit`. Each record of its `history` has `step`, the means since the record
    before, over the steps that were not skipped, of `loss`, `gradient_norm` and the metrics of
    `loss`, and what `validate` returned as `validation_...`. After an interruption by the
    keyboard there is a warning, a checkpoint of the last step, and what there is is returned.

    **Raises:** `ValueError` for a wrong argument, or a checkpoint that cannot be read or is of
    something else; `FloatingPointError`, with the step, if more than `max_skipped` steps were
    not finite. The last checkpoint before it stands.

    !!! example
        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, jinv, optax
        >>> x = jnp.linspace(-1, 1, 50)[:, None]
        >>> batches = jinv.train.Minibatches((x, 2 * x + 1), 10)
        >>> def loss(model, batch, key):
        ...     x, y = batch
        ...     return jnp.mean((jax.vmap(model)(x) - y) ** 2)
        >>> model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
        >>> fitted = jinv.train.fit(
        ...     loss, model, batches, optimiser=optax.adam(0.1), num_steps=300,
        ...     key=jax.random.key(1), progress=False,
        ... )
        >>> jnp.round(fitted.model.weight, 2), jnp.round(fitted.model.bias, 2)
        (Array([[2.]], dtype=float32), Array([1.], dtype=float32))
        >>> [record["step"] for record in fitted.history]
        [100, 200, 300]

        ```
    """
    counts = {"num_steps": num_steps, "save_every": save_every, "log_every": log_every}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}")
    if max_skipped < 0:
        raise ValueError(f"`max_skipped` must not be negative, got {max_skipped}")

    step = TrainStep(loss, optimiser, trainable=trainable, ema_decay=ema_decay)
    state, record = step.init(model), {"pending": [], "history": []}
    store = None if checkpoint is None else Checkpoints(checkpoint, key)
    if store is not None and (found := store.restore(state)) is not None:
        state, record = found
    if int(state.step) > num_steps:
        raise ValueError(f"`num_steps` is {num_steps}, but `checkpoint` is at step {state.step}")
    if devices is not None:
        devices = tuple(devices)
        state, key, batches = replicate((state, key, batches), devices)

    arrays, unflatten = flatten(state)
    run = _Run(arrays, int(state.step), record["pending"], record["history"])
    compiled = functools.partial(compiled_step, step, state, key, devices)
    fixed = None if host_batches else compiled(batches)

    def settle(run):
        return _settle(run, int(unflatten(run.arrays).skipped) - max_skipped, store)

    def save(run):
        if store is not None:
            record = {"pending": run.pending, "history": run.history}
            store.save(run.done, unflatten(run.arrays), record)

    bar = tqdm.tqdm(initial=run.done, total=num_steps, unit="step", disable=not progress)
    try:
        with bar:
            while True:
                last = run.done == num_steps
                if run.pending and (last or run.done % log_every == 0):
                    run = _record(settle(run), validate, unflatten)
                    bar.set_postfix(loss=f"{run.history[-1]['loss']:.3e}")
                if last or (run.done and run.done % save_every == 0):
                    run = settle(run)
                    save(run)
                if last:
                    break
                advance, others = fixed or compiled(_on_host(batches, key, run.done, devices))
                arrays, metrics = advance(run.arrays, others)
                run = _Run(arrays, run.done + 1, [*run.pending, metrics], run.history)
                bar.update()
    except KeyboardInterrupt:
        run = settle(run)
        save(run)
        kept = f"the checkpoint is in {store.folder}" if store else "there is no checkpoint"
        warnings.warn(
            f"interrupted after step {run.done} of {num_steps}; {kept}",
            RuntimeWarning,
            stacklevel=2,
        )
    state = unflatten(run.arrays)
    return Fit(state.averaged, run.history, state)


class _Run(NamedTuple):
    """Where a run stands; replaced as a whole, so that an interruption finds it consistent."""

    arrays: list[Array]
    done: int
    # The metrics of the steps since the last record; they wait on the device until needed.
    pending: list[dict[str, Any]]
    history: list[dict[str, Any]]


def _on_host(batches, key, step, devices):
    batch = batches(keys(key, step)[0], step)
    return given(batch if devices is None else shard_batch(batch, devices))


def _settle(run: _Run, excess: int, store: Checkpoints | None) -> _Run:
    """Fetches the metrics, and stops a training with `excess` too many steps gone wrong."""
    pending = [{k: float(v) for k, v in m.items()} for m in jax.device_get(run.pending)]
    first = run.done - len(pending) + 1
    wrong = [first + i for i, metrics in enumerate(pending) if not metrics["finite"]]
    if wrong and excess > 0:
        step = wrong[-min(excess, len(wrong))]
        metrics = pending[step - first]
        if store is None:
            kept = "there is no `checkpoint`"
        elif store.last is None:
            kept = f"there is no checkpoint in {store.folder} yet"
        else:
            kept = f"the checkpoint of step {store.last} in {store.folder} stands"
        raise FloatingPointError(
            f"step {step} was not finite (loss {metrics['loss']}, norm of its gradient "
            f"{metrics['gradient_norm']}), which is more often than `max_skipped` allows; {kept}. "
            f"Try a smaller step size or `optax.clip_by_global_norm`."
        )
    return run._replace(pending=pending)


def _record(run: _Run, validate: Callable | None, unflatten: Callable) -> _Run:
    names = dict.fromkeys(["loss", "gradient_norm", *run.pending[0]])
    kept = [metrics for metrics in run.pending if metrics["finite"]]
    means = {
        name: sum(metrics[name] for metrics in kept) / len(kept) if kept else math.nan
        for name in names
        if name != "finite"
    }
    checked = {} if validate is None else validate(unflatten(run.arrays).averaged)
    checked = {f"validation_{name}": float(value) for name, value in checked.items()}
    return run._replace(pending=[], history=[*run.history, {"step": run.done, **means, **checked}])
