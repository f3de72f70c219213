"""The arrays of a PyTree by name: how weights and checkpoints are stored."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree, or their shapes in a tree made by `eqx.filter_eval_shape`."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _raw(leaf) for path, leaf in found if _is_array(leaf)}


def replace_arrays(tree: PyTree, values: Mapping[str, np.ndarray]) -> PyTree:
    """The tree with `values` for its arrays, in the dtypes of the tree."""

    def put(path, leaf):
        if not _is_array(leaf):
            return leaf
        value = jnp.asarray(values[jax.tree_util.keystr(path)], _raw(leaf).dtype)
        return jax.random.wrap_key_data(value, impl=_impl(leaf)) if _is_key(leaf) else value

    return jax.tree_util.tree_map_with_path(put, tree)


def layout(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shapes and dtypes by name, as JSON can hold them."""
    return {k: {"shape": list(v.shape), "dtype": str(v.dtype)} for k, v in arrays.items()}


def difference(expected: Mapping[str, Any], found: Mapping[str, Any], *, widen: bool) -> str | None:
    """What keeps arrays of the layout `found` from filling `expected`, or `None`.

    With `widen`, a dtype may differ if no number changes on the way.
    """
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in expected]
    for name in expected:
        if name not in found or expected[name] == found[name]:
            continue
        (shape, dtype), (has, kept) = expected[name].values(), found[name].values()
        if has != shape:
            wrong.append(f"{name} has shape {tuple(has)}, expected {tuple(shape)}")
        elif not (widen and np.can_cast(jnp.dtype(kept), jnp.dtype(dtype), "safe")):
            wrong.append(f"{name} has dtype {kept}, expected {dtype}")
    more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
    return "; ".join(wrong[:4]) + more if wrong else None


def _is_array(leaf) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _impl(leaf):
    return jax.random.key_impl(leaf)
