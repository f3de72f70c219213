"""Several trainings at once, as one program."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, PyTree, Shaped

from ._compiled import flatten, keys as keys_of_step
from ._step import TrainState, TrainStep


def fit_ensemble(
    step: TrainStep,
    models: PyTree,
    batches: Callable,
    *,
    num_steps: int,
    keys: Shaped[Array, "..."],
) -> tuple[TrainState, dict[str, Array]]:
    """Trains models of one kind side by side, such as one network from several seeds: each
    computes what `fit` with its key would, up to rounding.

    One program of all steps, a `jax.lax.scan` under `jax.vmap`. Small networks are hardly slower
    together than alone on an accelerator; memory is that of all. There are no records, checkpoints
    or interruptions in between: for long runs call `fit` for each. A step that is not finite is
    skipped by that member alone. On several devices place `models` and `keys` with `shard_batch`.

    **Arguments:**

    - `step`: the loss, the optimiser and the options of all.
    - `models`: with the members along the first axis of every array, as
        `eqx.filter_vmap(make)(keys)` returns them.
    - `batches`: `batches(key, step)`, as for `fit`, with the key of a member.
    - `num_steps`: the number of steps.
    - `keys`: one for each member.

    **Returns:** the states, with the members along the first axis of every array, where
    `states.averaged` are the models; and the metrics of `step`, of shape `(members, num_steps)`.
    `eqx.filter_vmap(lambda model: model(u))(states.averaged)` evaluates all.

    **Raises:** `ValueError` for a `num_steps` below 1 and for `models` that have not as many
    members as there are `keys`.

    !!! example
        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, jinv, optax
        >>> def loss(model, batch, key):
        ...     x, y = batch
        ...     return jnp.mean((jax.vmap(model)(x) - y) ** 2)
        >>> x = jnp.linspace(-1, 1, 50)[:, None]
        >>> batches = jinv.train.Minibatches((x, 2 * x + 1), 10)
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> models = eqx.filter_vmap(lambda key: eqx.nn.Linear(1, 1, key=key))(keys)
        >>> step = jinv.train.TrainStep(loss, optax.adam(0.1))
        >>> states, metrics = jinv.train.fit_ensemble(
        ...     step, models, batches, num_steps=300, keys=keys
        ... )
        >>> metrics["loss"].shape, jnp.round(states.model.bias[:, 0], 2)
        ((3, 300), Array([1., 1., 1.], dtype=float32))

        ```
    """
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}")
    arrays = jax.tree.leaves(eqx.filter(models, eqx.is_array))
    members = {leaf.shape[0] if leaf.ndim else None for leaf in arrays}
    if keys.ndim < 1 or members != {len(keys)}:
        shapes = sorted({leaf.shape for leaf in arrays})
        raise ValueError(
            f"`models` must have a first axis of {len(keys) if keys.ndim else 'one'} members, one "
            f"for each of `keys`, in every array, got arrays of shape {shapes}"
        )
    return _fit_ensemble(step, models, batches, num_steps, keys)


@eqx.filter_jit
def _fit_ensemble(step, models, batches, num_steps, keys):
    def train(model, key):
        start, unflatten = flatten(step.init(model))

        def advance(arrays, _):
            state = unflatten(arrays)
            batch_key, loss_key = keys_of_step(key, state.step)
            state, metrics = step(state, batches(batch_key, state.step), key=loss_key)
            return flatten(state)[0], metrics

        arrays, metrics = jax.lax.scan(advance, start, None, num_steps)
        return unflatten(arrays), metrics

    return eqx.filter_vmap(train)(models, keys)
