"""The loop engine's floor: the only file that imports `equinox.internal`."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.core
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


class _Hoisted(eqx.Module):
    """A function whose closed-over arrays are visible to transformations (see `hoist`)."""

    consts: list[Array]
    jaxpr: Any = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __call__(self, *args):
        leaves = jax.tree.leaves(eqx.filter(args, eqx.is_array))
        out = jax.core.eval_jaxpr(self.jaxpr, self.consts, *leaves)
        return jax.tree.unflatten(self.structure, out)


def hoist(fn: Callable, *args: PyTree) -> Callable:
    """`fn` for arguments like `args`, with the arrays that it closes over as its leaves.

    `equinox.filter_closure_convert` compares shardings at each call, and `shard_map` changes
    them between the trace and the call.
    """
    dynamic, static = eqx.partition(args, eqx.is_array)
    leaves, treedef = jax.tree.flatten(dynamic)
    structure = []

    def flat(*leaves):
        out, treedef_out = jax.tree.flatten(
            fn(*eqx.combine(jax.tree.unflatten(treedef, leaves), static))
        )
        structure.append(treedef_out)
        return out

    closed = jax.make_jaxpr(flat)(*leaves)
    consts = [jnp.asarray(c) for c in closed.consts]
    return _Hoisted(consts, closed.jaxpr, structure[0])


def raise_if(failed: Bool[Array, ""], result: Any, tree: PyTree) -> PyTree:
    """`tree`, with the text of `result` raised at run time where `failed`."""
    if not is_varying(tree):
        return result.error_if(tree, failed)
    # The branches of equinox's check would differ in the `shard_map` axes that they vary over;
    # a zero passes it, and must be used, or the check is removed as dead code.
    zero = result.error_if(jnp.zeros(()), failed)
    return jax.tree.map(lambda x: x + zero.astype(x.dtype) if eqx.is_inexact_array(x) else x, tree)


def detached(fn: Callable, *args: PyTree) -> PyTree:
    """`fn(*args)` without derivatives, also with respect to arrays that `fn` closes over."""
    converted = eqx.filter_closure_convert(fn, *args)
    out = stop_gradient(converted)(*stop_gradient(args))
    # Constant outputs of a trace come back as NumPy's.
    constant = lambda x: hasattr(x, "dtype") and not isinstance(x, jax.Array)
    return jax.tree.map(lambda x: jnp.asarray(x) if constant(x) else x, out)


def lane_by_lane(fn: Callable[[PyTree], PyTree], x: PyTree) -> PyTree:
    """`fn(x)`; under `vmap`, on a CPU, one lane after the other.

    A batch of large iterates does not fit into a CPU's cache, and every pass over it goes to
    main memory; and lanes that go together all wait for the slowest. One by one, a lane costs
    what it costs alone. On other platforms lanes go together as usual. Not for code that is
    differentiated.
    """
    converted = eqx.filter_closure_convert(fn, x)
    dynamic, static = eqx.partition(converted, eqx.is_array)
    leaves, treedef = jax.tree.flatten((dynamic, x))
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    _, static_out = eqx.partition(eqx.filter_eval_shape(converted, x), is_shape)

    def run(*leaves):
        # Constants can arrive as NumPy scalars.
        dynamic, x = jax.tree.unflatten(treedef, [jnp.asarray(leaf) for leaf in leaves])
        return eqx.filter(eqx.combine(dynamic, static)(x), eqx.is_array)

    lane = jax.custom_batching.custom_vmap(run)

    @lane.def_vmap
    def _(axis_size, batched, *leaves):
        def one_by_one():
            def call(mapped):
                rest = iter(mapped)
                return lane(*[next(rest) if b else x for x, b in zip(leaves, batched, strict=True)])

            return jax.lax.map(call, [x for x, b in zip(leaves, batched, strict=True) if b])

        def together():
            axes = [0 if b else None for b in batched]
            return jax.vmap(run, in_axes=axes, axis_size=axis_size)(*leaves)

        out = jax.lax.platform_dependent(cpu=one_by_one, default=together)
        return out, jax.tree.map(lambda _: True, out)

    return eqx.combine(lane(*leaves), static_out)


def any_lane_max(x: Array) -> Array:
    """The maximum of `x` over all lanes of the surrounding `vmap`s."""
    return eqxi.unvmap_max(jax.lax.stop_gradient(x))


def match_varying(tree: PyTree, reference: PyTree) -> PyTree:
    """Casts the arrays of `tree` to vary over every `shard_map` axis that `reference` does.

    Loop carries that start from constants count as replicated, and `shard_map` (with its
    default check) rejects a loop that turns them into per-device values.
    """
    axes: set[str] = set()
    for leaf in jax.tree.leaves((tree, reference)):
        if eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
            axes |= _varying(leaf)
    if not axes:
        return tree

    def match(leaf):
        if not eqx.is_array(leaf):
            return leaf
        missing = tuple(axes - _varying(leaf))
        return _vary(leaf, missing) if missing else leaf

    return jax.tree.map(match, tree)


def _vary(leaf, axes: tuple[str, ...]):
    if not hasattr(jax.lax, "pcast"):  # JAX 0.7
        return jax.lax.pvary(leaf, axes)  # pyright: ignore[reportAttributeAccessIssue]
    return jax.lax.pcast(leaf, axes, to="varying")


def is_varying(tree: PyTree) -> bool:
    """Whether any array of `tree` differs between the devices of a surrounding `shard_map`."""
    return any(eqx.is_array(leaf) and _varying(leaf) for leaf in jax.tree.leaves(tree))


def _varying(leaf) -> set[str]:
    aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    kind = getattr(aval, "manual_axis_type", None)
    # The name before JAX 0.10 was `vma`.
    return set((getattr(aval, "vma", None) if kind is None else kind.varying) or ())


def strip_weak_type(tree: PyTree) -> PyTree:
    """Arrays with their dtype fixed: a weak type would change inside a loop."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype) if eqx.is_array(x) else x,
        tree,
    )
