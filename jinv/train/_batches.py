"""Batches from data that fit into memory."""

import equinox as eqx
import jax
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
        samples = _check(self.data, self.batch_size)
        if self.batch_size > samples:
            raise ValueError(f"`batch_size` must be at most {samples}, got {self.batch_size}")

    @property
    def steps(self) -> int:
        """The number of batches of an epoch."""
        return len(jax.tree.leaves(self.data)[0]) // self.batch_size

    def __call__(self, key, step):
        del key
        epoch, batch = step // self.steps, step % self.steps
        samples = len(jax.tree.leaves(self.data)[0])
        order = jax.random.permutation(jax.random.fold_in(self.key, epoch), samples)
        start = batch * self.batch_size
        chosen = jax.lax.dynamic_slice_in_dim(order, start, self.batch_size)
        return jax.tree.map(lambda leaf: leaf[chosen], self.data)


def _check(data, batch_size):
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"`data` must be arrays with the same number of samples along the first axis, "
            f"got {sorted(lengths)} samples"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    return lengths.pop()
