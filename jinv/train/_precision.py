"""Networks that compute in half precision, of weights in single precision."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._operators import Normalised


class MixedPrecision(eqx.Module):
    """A model that computes in bfloat16, forward and backward, while its weights, their
    gradients, the optimiser and the loss stay in float32.

    The weights and the arguments are rounded in every call and the result is widened to the dtype
    of the arguments, so updates far below the precision of bfloat16 add up. bfloat16 has the range
    of float32, and gradients need no scaling; it has three digits, which is where the accuracy of
    results ends. It pays on accelerators with units for it; on CPUs it does not.

    Scales belong outside: `Normalised(MixedPrecision(network), inputs, outputs)` normalises in
    float32. After a training, `.model` is the network in float32.

    **Arguments:**

    - `model`: anything that is called with arrays. Complex arrays in it stay what they are, and
        normalisation layers compute in `dtype` too, but for their sums.
    - `dtype`: what is computed in.

    **Raises:** `ValueError` if `dtype` has not the range of float32, as float16, and if there is a
    `Normalised` in the model.

    !!! example
        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, jinv
        >>> linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
        >>> model, x = jinv.train.MixedPrecision(linear), jnp.ones(2)
        >>> model(x).dtype, float(jnp.max(jnp.abs(model(x) - linear(x)))) < 0.01
        (dtype('float32'), True)

        ```

    ??? cite "Source"
        Micikevicius et al., Mixed precision training, 2018, Section 3.1 (master weights).
        Deviation: no scaling of the loss, which bfloat16 does not need.
    """

    model: PyTree
    dtype: Any = eqx.field(static=True, default=jnp.bfloat16, kw_only=True)

    def __check_init__(self):
        floating = jnp.issubdtype(self.dtype, jnp.floating)
        if not floating or jnp.finfo(self.dtype).minexp > jnp.finfo(jnp.float32).minexp:
            raise ValueError(
                f"`dtype` must be floating with the range of float32, such as bfloat16, got "
                f"{jnp.dtype(self.dtype)}"
            )
        is_scaled = lambda x: isinstance(x, Normalised)
        if any(map(is_scaled, jax.tree.leaves(self.model, is_leaf=is_scaled))):
            raise ValueError(
                "`model` must not have scales in half precision: put the network into "
                "`MixedPrecision`, and that into `Normalised`"
            )

    def __call__(self, *args: Any) -> PyTree:
        given = [leaf for leaf in jax.tree.leaves(args) if _is_floating(leaf)]
        model = _of_one_sample(self.model, given[0]) if given else self.model
        found = _cast(model, self.dtype)(*_cast(args, self.dtype))
        wide = jnp.result_type(*[leaf.dtype for leaf in given]) if given else jnp.float32
        return _cast(found, wide)


def _is_floating(leaf):
    return eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if _is_floating(x) else x, tree)


def _of_one_sample(model, sample):
    """Under `vmap` a copy of the vectors, such as biases, for each sample, which costs nothing:
    their gradients are then summed over the batch after they are widened. XLA may add up
    in half precision, which matrix products never do, and the sum of many would stand still."""
    first = sample.ravel()[:1].sum()
    is_vector = lambda x: _is_floating(x) and x.ndim <= 1
    own = lambda x: jnp.where(first == first, x, x) if is_vector(x) else x
    return jax.tree.map(own, model)
