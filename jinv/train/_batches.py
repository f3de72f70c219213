"""Batches from data on the device, and from data that stay on the host."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped


class Minibatches(eqx.Module):
    """Random samples of arrays, for `fit`: every batch is drawn uniformly, with replacement.

    The arrays are arguments of the compiled step. A function that closes over them would have
    them compiled in as constants, which is slow and keeps a second copy. A batch costs the same
    for any number of samples; [`jinv.train.Epochs`][] meets all of them equally often.

    **Arguments:**

    - `data`: a PyTree of arrays with the samples along their first axis.
    - `batch_size`: the number of samples in a batch.

    **Raises:** `ValueError` if `data` has no arrays, or first axes of several lengths, or if
    `batch_size` is below 1.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> pairs = {"x": jnp.arange(9.0), "y": 2 * jnp.arange(9.0)}
        >>> batches = jinv.train.Minibatches(pairs, 4)
        >>> batch = batches(jax.random.key(0), step=0)
        >>> batch["x"].shape, bool(jnp.all(batch["y"] == 2 * batch["x"]))
        ((4,), True)

        ```
    """

    data: PyTree[Shaped[Array, "_ ..."]]
    batch_size: int = eqx.field(static=True)

    def __check_init__(self):
        _check(self.data, self.batch_size)

    def __call__(self, key, step):
        samples = jax.tree.leaves(self.data)[0].shape[0]
        chosen = jax.random.randint(key, (self.batch_size,), 0, samples)
        return jax.tree.map(lambda leaf: leaf[chosen], self.data)


class Epochs(eqx.Module):
    """All samples of arrays in a random order, and again in another one, for `fit`.

    Each batch shuffles all indices anew, from the key of its epoch, which makes resuming exact:
    batch `step` is the same in every run. What is left of an epoch when it does not divide into
    batches is dropped.

    **Arguments:**

    - `data`, `batch_size`: as for [`jinv.train.Minibatches`][].
    - `key`: of the orders.

    **Raises:** `ValueError` as `Minibatches`, and if a batch is larger than the data.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> batches = jinv.train.Epochs(jnp.arange(6), 2, jax.random.key(0))
        >>> seen = jnp.concatenate([batches(None, step) for step in range(3)])
        >>> jnp.sort(seen)
        Array([0, 1, 2, 3, 4, 5], dtype=int32)

        ```
    """

    data: PyTree[Shaped[Array, "_ ..."]]
    batch_size: int = eqx.field(static=True)
    key: PRNGKeyArray

    def __check_init__(self):
        _check_epochs(self.data, self.batch_size)

    @property
    def steps(self) -> int:
        """The number of batches of an epoch."""
        return len(jax.tree.leaves(self.data)[0]) // self.batch_size

    def __call__(self, key, step):
        del key
        epoch, batch = step // self.steps, step % self.steps
        order = _order(self.key, epoch, len(jax.tree.leaves(self.data)[0]))
        start = batch * self.batch_size
        chosen = jax.lax.dynamic_slice_in_dim(order, start, self.batch_size)
        return jax.tree.map(lambda leaf: leaf[chosen], self.data)


class HostEpochs:
    """The batches of [`jinv.train.Epochs`][], the same ones, of data that do not fit on the
    device: for `fit` with `host_batches=True`, and `prefetch=2` to read while the device computes.

    Nothing but the samples of a batch is read, one by one by their index. The data are NumPy
    arrays, arrays mapped into memory (`numpy.load(path, mmap_mode="r")`), or variables of an open
    HDF5, NetCDF or Zarr file, best stored in chunks of one sample.

    **Arguments:**

    - `data`: a PyTree of what has a `shape`, with the samples along the first axis, and returns
        one for an index in brackets.
    - `batch_size`, `key`: as for `Epochs`.

    **Raises:** `ValueError` as `Epochs`, and inside of a compiled step.

    !!! example
        ```python
        >>> import jax, jinv, numpy as np
        >>> batches = jinv.train.HostEpochs(np.arange(6), 2, jax.random.key(0))
        >>> np.sort(np.concatenate([batches(None, step) for step in range(3)]))
        array([0, 1, 2, 3, 4, 5])

        ```
    """

    def __init__(self, data: PyTree[Any], batch_size: int, key: PRNGKeyArray):
        self.samples = _check_epochs(data, batch_size)
        self.data, self.batch_size, self.key = data, batch_size, key
        # The order of one epoch is kept: to make it takes longer than to read a batch.
        self._made = None, np.empty(0)

    @property
    def steps(self) -> int:
        """The number of batches of an epoch."""
        return self.samples // self.batch_size

    def __call__(self, key, step):
        del key
        if isinstance(step, Tracer):
            raise ValueError("`host_batches` must be True in `fit` for data on the host")
        epoch, batch = divmod(int(step), self.steps)
        made, order = self._made
        if made != epoch:
            order = np.asarray(_order(self.key, epoch, self.samples))
            self._made = epoch, order
        chosen = order[batch * self.batch_size :][: self.batch_size]
        return jax.tree.map(lambda leaf: _read(leaf, chosen), self.data)


def _read(leaf, chosen):
    found = np.stack([leaf[int(index)] for index in chosen])
    # Files have both orders of bytes, devices have one.
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _order(key, epoch, samples):
    return jax.random.permutation(jax.random.fold_in(key, epoch), samples)


def _check_epochs(data, batch_size):
    samples = _check(data, batch_size)
    if batch_size > samples:
        raise ValueError(f"`batch_size` must be at most {samples}, got {batch_size}")
    return samples


def _check(data, batch_size):
    lengths = {leaf.shape[0] if leaf.shape else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"`data` must be arrays with the same number of samples along the first axis, "
            f"got {sorted(lengths)} samples"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    return lengths.pop()
