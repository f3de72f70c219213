"""Helpers shared by the functionals: casts, reductions over PyTrees, checks of parameters."""

import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array


def real_dtype(x: Array) -> Any:
    return jnp.finfo(x.dtype).dtype


def like(parameter: Any, x: Array) -> Array:
    """`parameter` in the real dtype of `x`, with leading unit axes so that it broadcasts."""
    return _aligned(jnp.asarray(parameter, dtype=real_dtype(x)), x)


def like_data(parameter: Any, x: Array) -> Array:
    """`parameter` in the dtype of `x` itself (offsets of complex data are complex)."""
    return _aligned(jnp.asarray(parameter, dtype=x.dtype), x)


def _aligned(p, x):
    if p.ndim == 0 or p.ndim == x.ndim:
        return p
    if p.ndim > x.ndim:
        raise ValueError(
            f"a parameter of shape {p.shape} does not broadcast against data of shape {x.shape}"
        )
    return p.reshape((1,) * (x.ndim - p.ndim) + p.shape)


def spread(parameter: Any, tree: Any) -> Any:
    """One scalar/array for all leaves, or a tree like `tree`: in both cases a tree."""
    if jax.tree.structure(parameter) == jax.tree.structure(tree):
        return parameter
    return jax.tree.map(lambda _: parameter, tree)


def leafwise(fn: Any, tree: Any, *parameters: Any) -> Any:
    """Maps `fn(leaf, *parameters)` with the parameters cast to the leaf's real dtype."""
    return jax.tree.map(
        lambda x, *ps: fn(x, *(like(p, x) for p in ps)),
        tree,
        *(spread(p, tree) for p in parameters),
    )


def total(fn: Any, tree: Any, *parameters: Any) -> Array:
    """The sum of `fn` over all entries of all leaves."""
    terms = jax.tree.leaves(leafwise(lambda x, *ps: jnp.sum(fn(x, *ps)), tree, *parameters))
    return functools.reduce(operator.add, terms)


def all_true(fn: Any, tree: Any, *parameters: Any) -> Array:
    terms = jax.tree.leaves(leafwise(lambda x, *ps: jnp.all(fn(x, *ps)), tree, *parameters))
    return functools.reduce(operator.and_, terms)


def indicator(inside: Array, tree: Any) -> Array:
    dtype = real_dtype(jax.tree.leaves(tree)[0])
    return jnp.where(inside, jnp.zeros((), dtype), jnp.asarray(jnp.inf, dtype))


def slack(x: Array, *scales: Array) -> Array:
    """What still counts as inside: sqrt(eps) times max(1, the numbers of the constraint)."""
    dtype = real_dtype(x)
    size = jnp.ones((), dtype)
    for s in scales:
        size = jnp.maximum(size, jnp.max(jnp.abs(s)).astype(dtype))
    return math.sqrt(jnp.finfo(dtype).eps) * jnp.where(jnp.isfinite(size), size, 1)


def times(x: Array, r: Any) -> Array:
    """x * r for real `r` of the precision of `x`; strict promotion forbids real * complex."""
    return lax.complex(x.real * r, x.imag * r) if jnp.iscomplexobj(x) else x * r


def over(x: Array, r: Any) -> Array:
    return lax.complex(x.real / r, x.imag / r) if jnp.iscomplexobj(x) else x / r


def squares(x: Array) -> Array:
    """|x|^2, differentiable at zero also for complex numbers."""
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2


def norm(tree: Any) -> Array:
    """The Euclidean norm of everything, with gradient zero (a subgradient) at zero."""
    return safe_sqrt(total(squares, tree))


def safe_sqrt(s: Array) -> Array:
    positive = s > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, s, 1)), 0)


def inner(a: Any, x: Any) -> Array:
    """The real part of <a, x>, with `a` cast to the dtype of `x`."""
    terms = jax.tree.map(lambda p, v: jnp.sum((like_data(p, v).conj() * v).real), spread(a, x), x)
    return functools.reduce(operator.add, jax.tree.leaves(terms))


def shrink(x: Array, threshold: Array) -> Array:
    """Soft threshold; of the modulus where `x` is complex."""
    if not jnp.iscomplexobj(x):
        return x - jnp.clip(x, -threshold, threshold)
    size = jnp.abs(x)
    keep = size > threshold
    return times(x, jnp.where(keep, 1 - threshold / jnp.where(keep, size, 1), 0))


def clip_modulus(x: Array, bound: Array) -> Array:
    """The nearest point whose modulus is at most `bound`."""
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -bound, bound)
    size = jnp.abs(x)
    out = size > bound
    return times(x, jnp.where(out, bound / jnp.where(out, size, 1), 1))


def sign(x: Array) -> Array:
    """x / |x|, and 1 at zero."""
    if not jnp.iscomplexobj(x):
        return jnp.where(x < 0, -jnp.ones_like(x), jnp.ones_like(x))
    size = jnp.abs(x)
    return jnp.where(size > 0, over(x, jnp.where(size > 0, size, 1)), jnp.ones_like(x))


def require_real(name: str, tree: Any) -> None:
    for x in jax.tree.leaves(tree):
        if jnp.iscomplexobj(x):
            raise ValueError(f"{name} is defined on real arrays, got an array of dtype {x.dtype}")


def parameter(name: str, value: Any, *, above: float | None = None, least: float | None = None):
    """Parameters as array leaves: a new value never retraces. Values that are plain numbers or
    NumPy arrays are checked; device arrays and tracers are not, which would cost a transfer."""

    def convert(v):
        if not isinstance(v, jax.Array):
            low = np.min(np.real(v)) if np.size(v) else np.inf
            if above is not None and not low > above:
                raise ValueError(f"`{name}` must be greater than {above:g}, got {v}")
            if least is not None and not low >= least:
                raise ValueError(f"`{name}` must be at least {least:g}, got {v}")
        return jnp.asarray(v)

    return jax.tree.map(convert, value)
