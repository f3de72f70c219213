"""The compiled steps of `fit`, on flat lists of arrays.

Modules are flattened by Python code, which for a small network takes several times longer than
the step itself. So the loop carries the arrays of a state as a list, and everything that is
not an array is in the key of a cache: a second `fit` with the same functions and shapes does
not compile again.

One call takes many steps in a loop, whose number is not known to the compiler: any division of a
training into calls is the same program. On CPUs each call gets its memory anew from the operating
system, which for large networks takes up to 40 % of a step. But there XLA's convolutions
are several times slower inside of loops, so that steps with these (jinv's own are others) are
calls of their own.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._shard import replicate, shard_batch
from ._step import TrainState, TrainStep


# At most so many steps in a call, and about so many seconds: until then an interruption waits.
_MOST, _SECONDS = 1024, 2.0


class Pace:
    """How many steps the next call should take, by the time of the last one."""

    def __init__(self):
        self._allowed, self._compiled = 1, False

    def steps(self, done: int, *until: int) -> int:
        """Not beyond the next multiple of each of these numbers."""
        return min(self._allowed, *(each - done % each for each in until))

    def timed(self, call: Callable, *args, count: int):
        begin = time.perf_counter()
        arrays, metrics = jax.block_until_ready(call(*args, count))
        seconds = (time.perf_counter() - begin) / count
        if self._compiled:
            self._allowed = int(min(max(_SECONDS / seconds, 1), len(metrics["loss"])))
        self._compiled = True
        return arrays, metrics


def flatten(state: TrainState) -> tuple[list[Array], Callable[[list[Array]], TrainState]]:
    """The arrays of a state, and the function that makes a state of such arrays."""
    dynamic, static = eqx.partition(state, eqx.is_array)
    arrays, structure = jax.tree.flatten(dynamic)
    return arrays, lambda arrays: eqx.combine(jax.tree.unflatten(structure, arrays), static)


def compiled_steps(
    step: TrainStep,
    state: TrainState,
    key: PRNGKeyArray,
    devices: tuple[Any, ...] | None,
    batches: PyTree,
) -> tuple[Callable, list[Any]]:
    """`advance, others` for `arrays, metrics = advance(arrays, others, count)`, with the metrics
    of the steps one after another; `state` has the form."""
    dynamic, static = eqx.partition((state, (step, key, batches)), eqx.is_array)
    leaves, form = jax.tree.flatten(static)
    advance = _compiled(jax.tree.structure(dynamic), form, tuple(leaves), devices)
    return advance, jax.tree.leaves(dynamic[1])


@functools.lru_cache(maxsize=16)
def _compiled(structure, form, leaves: tuple[Any, ...], devices) -> Callable:
    static = jax.tree.unflatten(form, leaves)

    # Traced once, for its metrics and in the loop.
    @functools.partial(jax.jit, inline=True)
    def one(arrays, others):
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

    # Nothing is donated: an interruption has to find the old state alive.
    @jax.jit
    def advance(arrays, others, count):
        jaxpr, (_, likes) = jax.make_jaxpr(one, return_shape=True)(arrays, others)
        if jax.default_backend() == "cpu" and _convolves(jaxpr.jaxpr):
            arrays, metrics = one(arrays, others)
            return arrays, jax.tree.map(lambda value: value[None], metrics)

        def body(index, carry):
            arrays, metrics = one(carry[0], others)
            return arrays, jax.tree.map(lambda all, new: all.at[index].set(new), carry[1], metrics)

        kept = jax.tree.map(lambda like: jnp.zeros((_MOST, *like.shape), like.dtype), likes)
        return jax.lax.fori_loop(0, count, body, (arrays, kept))

    return advance


def _convolves(jaxpr: Jaxpr) -> bool:
    """Whether there is a convolution of XLA."""
    parts = jax.tree.leaves([list(eqn.params.values()) for eqn in jaxpr.eqns])
    inner = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in parts]
    return any(eqn.primitive is jax.lax.conv_general_dilated_p for eqn in jaxpr.eqns) or any(
        _convolves(part) for part in inner if isinstance(part, Jaxpr)
    )


def keys(key, step):
    """The keys of the batch and of the loss of a step: functions of the run's key."""
    return jax.random.split(jax.random.fold_in(key, step))


def given(batch: PyTree) -> Callable:
    """A batch that is there already, in the place of `batches`."""
    return jax.tree_util.Partial(_given, batch)


def _given(batch, key, step):
    return batch
