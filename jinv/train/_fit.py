"""The training loop: progress, records, checkpoints, and an exact way back into it."""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import optax
import tqdm
from jaxtyping import PRNGKeyArray, PyTree

from . import _early_stop
from ._checkpoint import Checkpoints
from ._compiled import Pace, compiled_steps, flatten, given
from ._prefetch import made_on_host
from ._run import Run, advanced, check_finite, record
from ._shard import replicate, shard_batch
from ._step import TrainState, TrainStep


class Fit(NamedTuple):
    """What `fit` returns.

    **Attributes:**

    - `model`: the trained model; with `ema_decay` the one with the averaged weights, with
        `monitor` the best one.
    - `history`: the records, a list of dictionaries; see `fit`.
    - `state`: the last `TrainState`. `state.step` is less than `num_steps` if the run was
        interrupted or out of `patience`.
    - `complete`: whether the run came to its end, and was not interrupted.

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
    complete: bool


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
    monitor: str | None = None,
    patience: int | None = None,
    devices: Sequence[Any] | None = None,
    host_batches: bool = False,
    prefetch: int = 0,
    max_skipped: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 1000,
    log_every: int = 100,
    progress: bool = True,
) -> Fit:
    """Trains a model: `num_steps` times `TrainStep`, compiled together with their batches.

    With `checkpoint`, the same call goes on from the last checkpoint in that folder, or returns
    at once if it is complete; with a larger `num_steps` it goes on further. A run that was
    interrupted and resumed has the same numbers as one that was not, bit for bit where XLA
    repeats itself (CPUs do; GPUs need `--xla_gpu_deterministic_ops`). What a checkpoint cannot
    know, `loss`, `batches` and the numbers inside `optimiser`, has to stay the same. One
    process. Steps are compiled into a loop, of which one call lasts about two seconds: so long an
    interruption may wait.

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
    - `monitor`: the name of one of these scalars. The model of the record where it is least is
        returned, and kept in the checkpoints.
    - `patience`: stop after so many records in which that number was not less than before.
    - `devices`: split the batches over these (see `shard_batch`), such as `jax.devices()`.
    - `host_batches`: call `batches` outside the compiled step, with a Python integer, for data
        that do not fit on the device, such as `HostEpochs`.
    - `prefetch`: make so many of those batches ahead, in a thread, while the device computes. It
        changes no number. Errors come with their traceback; the thread ends with the call.
    - `max_skipped`: the number of steps that are not finite (they change nothing) before
        the training stops with an error.
    - `checkpoint`: the folder of the checkpoints of this run.
    - `save_every`: steps between checkpoints; the last step is always saved.
    - `log_every`: steps between records; the last step always has one.
    - `progress`: show a tqdm bar.

    **Returns:** a `Fit`. Each record of its `history` has `step`, the means since the record
    before, over the steps that were not skipped, of `loss`, `gradient_norm` and the metrics of
    `loss`, and what `validate` returned as `validation_...`. After an interruption by the
    keyboard there is a warning, a checkpoint of the last call, and what there is is returned.

    **Raises:** `ValueError` for a wrong argument, or a checkpoint that cannot be read or is of
    something else; `OSError` if one cannot be written, as on a full disk; `FloatingPointError`,
    with the step, if more than `max_skipped` steps were not finite. The last checkpoint before
    stands.

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
    for name, number in counts.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}")
    for name, number in {"max_skipped": max_skipped, "prefetch": prefetch}.items():
        if number < 0:
            raise ValueError(f"`{name}` must not be negative, got {number}")
    if prefetch and not host_batches:
        raise ValueError(f"`prefetch` needs `host_batches=True`, got {prefetch} without it")
    _early_stop.check(monitor, patience, validate is not None)

    step = TrainStep(loss, optimiser, trainable=trainable, ema_decay=ema_decay)
    state, kept, best = step.init(model), {"pending": [], "history": []}, None
    store = None if checkpoint is None else Checkpoints(checkpoint, key)
    if store is not None and (found := store.restore(state)) is not None:
        state, kept, best = found
        _early_stop.check_resumed(kept, monitor)
    if int(state.step) > num_steps:
        raise ValueError(f"`num_steps` is {num_steps}, but `checkpoint` is at step {state.step}")
    if devices is not None:
        devices = tuple(devices)
        state, key, best = replicate((state, key, best), devices)
        batches = batches if host_batches else replicate(batches, devices)

    arrays, unflatten = flatten(state)
    best = None if monitor is None else best
    run = Run(arrays, int(state.step), kept["pending"], kept["history"], best)
    compiled = functools.partial(compiled_steps, step, state, key, devices)
    fixed, pace = None if host_batches else compiled(batches), Pace()

    def check(run):
        check_finite(run, int(unflatten(run.arrays).skipped) - max_skipped, store)

    def save(run):
        if store is not None:
            kept = {"pending": run.pending, "history": run.history, "monitor": monitor}
            store.save(run.done, unflatten(run.arrays), kept, run.best)

    def result(run, complete):
        state = unflatten(run.arrays)
        model = state.averaged if run.best is None else run.best
        return Fit(model, run.history, state, complete)

    bar = tqdm.tqdm(initial=run.done, total=num_steps, unit="step", disable=not progress)
    steps = range(run.done, num_steps)
    with bar, made_on_host(batches, key, steps, prefetch) as next_batch:

        def program():
            if fixed is not None:
                return fixed
            batch = next_batch()
            return compiled(given(batch if devices is None else shard_batch(batch, devices)))

        try:
            while True:
                last = run.done == num_steps
                if run.pending and (last or run.done % log_every == 0):
                    check(run)
                    run = record(run, validate, monitor, unflatten)
                    bar.set_postfix(loss=f"{run.history[-1]['loss']:.3e}")
                if not run.pending:
                    last = last or _early_stop.exhausted(run.history, monitor, patience)
                if last or (run.done and run.done % save_every == 0):
                    check(run)
                    save(run)
                if last:
                    return result(run, True)
                advance, others = program()
                count = 1 if host_batches else pace.steps(run.done, *counts.values())
                # Queued programs with parallel loops of their own can wait for each other for ever
                # where the host has few threads, so that each is waited for.
                arrays, metrics = pace.timed(advance, run.arrays, others, count=count)
                run = advanced(run, arrays, metrics, count)
                bar.update(count)
        except KeyboardInterrupt:
            check(run)
            save(run)
    where = f"the checkpoint is in {store.folder}" if store else "there is no checkpoint"
    warnings.warn(
        f"interrupted after step {run.done} of {num_steps}; {where}", RuntimeWarning, stacklevel=2
    )
    return result(run, False)
