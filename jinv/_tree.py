"""Inner products and norms of PyTrees, with the real part of the complex inner product."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Real


def dot(x: PyTree[Array], y: PyTree[Array]) -> Real[Array, ""]:
    """The real inner product $\\mathrm{Re}\\langle x, y\\rangle$ over all leaves."""
    leaves: list[Array] = jax.tree.leaves(jax.tree.map(_leaf_dot, x, y))
    return sum(leaves[1:], leaves[0])


def _leaf_dot(x, y):
    if jnp.iscomplexobj(x) or jnp.iscomplexobj(y):
        return jnp.sum(x.real * y.real + x.imag * y.imag)
    return jnp.sum(x * y)


def sum_squares(x: PyTree[Array]) -> Real[Array, ""]:
    """The squared Euclidean norm over all leaves."""
    return dot(x, x)


def norm(x: PyTree[Array]) -> Real[Array, ""]:
    """The Euclidean norm over all leaves, with derivative zero (not NaN) at zero."""
    squared = sum_squares(x)
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))


def add(x, y):
    return jax.tree.map(jnp.add, x, y)


def subtract(x, y):
    return jax.tree.map(jnp.subtract, x, y)


def scale(factor, x):
    """`factor * x` in the dtype of `x`."""
    return jax.tree.map(lambda leaf: cast(factor, leaf) * leaf, x)


def add_scaled(x, factor, y):
    """`x + factor * y` in the dtype of `x`."""
    return jax.tree.map(lambda a, b: a + cast(factor, a) * b, x, y)


def cast(value, leaf):
    """`value` in the dtype of `leaf`, so that it never widens the data (strict promotion does
    not even multiply a complex leaf by a real number)."""
    return jnp.asarray(value, dtype=leaf.dtype)


def structure(shape, dtype) -> jax.ShapeDtypeStruct:
    """Of an array made here: with the sharding that this has inside `shard_map`, which lineax
    compares."""
    told = jax.eval_shape(lambda: jnp.zeros(shape, dtype))
    return jax.ShapeDtypeStruct(told.shape, told.dtype, sharding=told.sharding)


def realify(tree):
    """Complex leaves as pairs of real ones: derivatives of norms are real-linear only."""
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def complexify(tree, like):
    """The inverse of `realify`."""
    join = lambda l, x: jax.lax.complex(*x) if jnp.iscomplexobj(l) else x
    return jax.tree.map(join, like, tree)


def real_dtype(x: PyTree[Array]):
    """The real dtype in which norms of `x` are measured."""
    return jnp.result_type(*[jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(x)])


def all_finite(x: PyTree[Array]) -> Bool[Array, ""]:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(x)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.array(True)


def any_nan(x: PyTree) -> Bool[Array, ""]:
    nan = [
        jnp.any(jnp.isnan(leaf))
        for leaf in jax.tree.leaves(x)
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return jnp.any(jnp.stack(nan)) if nan else jnp.array(False)
