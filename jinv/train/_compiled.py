"""The compiled step of `fit`, on flat lists of arrays.

Modules are flattened by Python code, which for a small network takes several times longer than
the step itself. So the loop carries the arrays of a state as a list, and everything that is
not an array is in the key of a cache: a second `fit` with the same functions and shapes does
not compile again.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._shard import replicate, shard_batch
from ._step import TrainState, TrainStep


def flatten(state: TrainState) -> tuple[list[Array], Callable[[list[Array]], TrainState]]:
    """The arrays of a state, and the function that makes a state of such arrays."""
    dynamic, static = eqx.partition(state, eqx.is_array)
    arrays, structure = jax.tree.flatten(dynamic)
    return arrays, lambda arrays: eqx.combine(jax.tree.unflatten(structure, arrays), static)


def compiled_step(
    step: TrainStep,
    state: TrainState,
    key: PRNGKeyArray,
    devices: tuple[Any, ...] | None,
    batches: PyTree,
) -> tuple[Callable, list[Any]]:
    """`advance, others` for `arrays, metrics = advance(arrays, others)`; `state` has the form."""
    dynamic, static = eqx.partition((state, (step, key, batches)), eqx.is_array)
    leaves, form = jax.tree.flatten(static)
    advance = _compiled(jax.tree.structure(dynamic), form, tuple(leaves), devices)
    return advance, jax.tree.leaves(dynamic[1])


@functools.lru_cache(maxsize=16)
def _compiled(structure, form, leaves: tuple[Any, ...], devices) -> Callable:
    static = jax.tree.unflatten(form, leaves)

    # Nothing is donated: an interruption has to find the old state alive.
    @jax.jit
    def advance(arrays, others):
        dynamic = jax.tree.unflatten(structure, [*arrays, *others])
        state, (step, key, batches) = eqx.combine(dynamic, static)
        batch_key, loss_key = keys(key, state.step)
        batch = batches(batch_key, state.step)
        if devices is None:
            state, metrics = step(state, batch, key=loss_key)
        else:
            state, metrics = step(state, shard_batch(batch, devices), key=loss_key)
            state = replicate(state, devices)
        return flatten(state)[0], metrics

    return advance


def keys(key, step):
    """The keys of the batch and of the loss of a step: functions of the run's key."""
    return jax.random.split(jax.random.fold_in(key, step))


def given(batch: PyTree) -> Callable:
    """A batch that is there already, in the place of `batches`."""
    return jax.tree_util.Partial(_given, batch)


def _given(batch, key, step):
    return batch
