"""Checks of arguments, shared by the forward models."""

import operator as _operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def check_vector(vector: PyTree, structure: PyTree, name: str) -> None:
    """Raises unless `vector` has the tree structure, the shapes and the dtypes of `structure`."""
    got = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), vector)
    expected = jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype)), structure)
    if got != expected:
        raise ValueError(f"{name}: expected an input of shape and dtype {expected}, got {got}.")


def as_shape(shape: int | Sequence[int], name: str = "shape") -> tuple[int, ...]:
    try:
        sizes = tuple(map(_operator.index, np.atleast_1d(np.asarray(shape)).tolist()))
    except TypeError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(f"{name} must be a tuple of positive integers, got {shape!r}.")
    return sizes


def as_axes(axes: int | Sequence[int] | None, ndim: int, default: Sequence[int]) -> tuple[int, ...]:
    """Non-negative, distinct axes in the order in which they were given."""
    given = default if axes is None else (axes,) if isinstance(axes, int) else axes
    wrapped = tuple(a + ndim if a < 0 else a for a in map(_operator.index, given))
    if not wrapped or len(set(wrapped)) < len(wrapped) or min(wrapped) < 0 or max(wrapped) >= ndim:
        raise ValueError(f"axes must be distinct axes of an array of rank {ndim}, got {given!r}.")
    return wrapped


def as_inexact(dtype, name: str = "dtype"):
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"{name} must be a floating-point or complex dtype, got {dtype}.")
    return jax.dtypes.canonicalize_dtype(dtype)


def as_complex(dtype):
    # NumPy's rule: JAX's own depends on the promotion mode of the user.
    return np.result_type(dtype, np.complex64)


def as_weights(array, dtype, name: str):
    """The dtype of the operator, and `array` cast so that it multiplies data of that dtype."""
    if dtype is None:
        dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.inexact) else None
    dtype = as_inexact(dtype)
    if jnp.iscomplexobj(array) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"{name} is complex, but dtype is {dtype}: give a complex dtype.")
    return dtype, array.astype(dtype if jnp.iscomplexobj(array) else jnp.finfo(dtype).dtype)


def check_choice(value, choices: Sequence[str], name: str) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}.")


def weigh(weights, x):
    """The product `weights * x`, where real weights may meet complex data."""
    if jnp.iscomplexobj(x) and not jnp.iscomplexobj(weights):
        return jax.lax.complex(weights * x.real, weights * x.imag)
    return weights * x
