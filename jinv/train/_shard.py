"""Data-parallel placement: batches split over devices, everything else on each of them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def shard_batch(batch: PyTree, devices: Sequence[Any]) -> PyTree:
    """Splits the first axis of every array of a batch evenly over `devices`.

    With a state from `replicate`, a jitted `TrainStep` then computes on all devices what it
    computes on one, up to rounding: means over the batch stay means over the whole batch.
    Works inside `jax.jit` (as a constraint) and outside. Scalars are replicated.

    **Arguments:**

    - `batch`: a PyTree; leaves that are not arrays pass through.
    - `devices`: the devices, such as `jax.devices()`.

    **Returns:** the batch, with sharded arrays.

    **Raises:** `ValueError` if a first axis is not divisible by the number of devices, or if
    there is no device or one twice.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> batch = jinv.train.shard_batch({"x": jnp.ones((4, 2))}, jax.devices()[:1])
        >>> batch["x"].sharding.num_devices
        1

        ```
    """
    mesh = _mesh(devices)

    def place(leaf):
        if not eqx.is_array(leaf):
            return leaf
        if leaf.ndim and leaf.shape[0] % len(devices):
            raise ValueError(
                f"the first axis of every array of the batch must be divisible by the "
                f"{len(devices)} `devices`, got an array of shape {leaf.shape}"
            )
        spec = PartitionSpec("data") if leaf.ndim else PartitionSpec()
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, batch)


def replicate(tree: PyTree, devices: Sequence[Any]) -> PyTree:
    """Puts every array of a tree, such as a `TrainState`, on each of `devices`.

    See `shard_batch`, with the same arguments; works inside `jax.jit` and outside.

    **Returns:** the tree, with replicated arrays.

    **Raises:** `ValueError` if there is no device or one twice.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> weights = jinv.train.replicate({"w": jnp.ones(3)}, jax.devices()[:1])
        >>> weights["w"].sharding.is_fully_replicated
        True

        ```
    """
    return eqx.filter_shard(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def _mesh(devices) -> Mesh:
    if not len(devices) or len(set(devices)) < len(devices):
        raise ValueError(f"`devices` must be at least one device, each once, got {devices}")
    return Mesh(np.asarray(devices), ("data",))
