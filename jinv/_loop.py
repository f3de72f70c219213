"""The loop engine's floor: the only file that imports `equinox.internal`."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


LoopKind = Literal["lax", "checkpointed", "bounded"]


def while_loop(
    cond: Callable[[Any], Bool[Array, ""]],
    body: Callable[[Any], Any],
    init: PyTree[Array],
    *,
    kind: LoopKind,
    max_steps: int,
    checkpoints: int | None = None,
) -> PyTree[Array]:
    """A while loop whose differentiability is chosen by `kind`.

    `lax` knows forward mode and is the cheapest; `checkpointed` knows reverse mode with
    memory for `checkpoints` iterates; `bounded` knows both and pays for it.
    """
    if kind == "lax":
        return jax.lax.while_loop(cond, body, init)
    return eqxi.while_loop(
        cond, body, init, kind=kind, max_steps=max_steps, checkpoints=checkpoints
    )


def nondifferentiable(tree: PyTree, *, name: str, message: str) -> PyTree:
    """`tree`, whose derivative is a named error instead of a silent zero."""
    return eqxi.nondifferentiable(tree, name=name, msg=message)


def stop_gradient(tree: PyTree) -> PyTree:
    dynamic, static = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(dynamic), static)


def detached(fn: Callable, *args: PyTree) -> PyTree:
    """`fn(*args)` without derivatives, also with respect to arrays that `fn` closes over."""
    converted = eqx.filter_closure_convert(fn, *args)
    return stop_gradient(converted)(*stop_gradient(args))


def any_lane_max(x: Array) -> Array:
    """The maximum of `x` over all lanes of the surrounding `vmap`s."""
    return eqxi.unvmap_max(x)


def match_varying(tree: PyTree, reference: PyTree) -> PyTree:
    """Casts the arrays of `tree` to vary over every `shard_map` axis that `reference` does.

    Loop carries that start from constants count as replicated, and `shard_map` (with its
    default check) rejects a loop that turns them into per-device values.
    """
    axes: set[str] = set()
    for leaf in jax.tree.leaves((tree, reference)):
        if eqx.is_array(leaf):
            axes |= _varying(leaf)
    if not axes:
        return tree

    def match(leaf):
        if not eqx.is_array(leaf):
            return leaf
        missing = tuple(axes - _varying(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(match, tree)


def _varying(leaf) -> set[str]:
    return set(getattr(jax.typeof(leaf), "vma", ()))


def strip_weak_type(tree: PyTree) -> PyTree:
    """Arrays with their dtype fixed: a weak type would change inside a loop."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype) if eqx.is_array(x) else x,
        tree,
    )
