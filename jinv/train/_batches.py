"""Batches from data that fit into memory."""

import equinox as eqx
import jax
from jaxtyping import Array, PyTree, Shaped


class Minibatches(eqx.Module):
    """Random samples of arrays, for `fit`: every batch is drawn uniformly, with replacement.

    The arrays are arguments of the compiled step. A function that closes over them would have
    them compiled in as constants, which is slow and keeps a second copy. A batch costs the same
    for any number of samples; there are no epochs, whose shuffling would sort all samples.

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
        lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(self.data)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                f"`data` must be arrays with the same number of samples along the first axis, "
                f"got {sorted(lengths)} samples"
            )
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}")

    def __call__(self, key, step):
        samples = jax.tree.leaves(self.data)[0].shape[0]
        chosen = jax.random.randint(key, (self.batch_size,), 0, samples)
        return jax.tree.map(lambda leaf: leaf[chosen], self.data)
