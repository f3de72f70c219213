"""The natural ratio of dual to primal quantities, from which step sizes and penalties start."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from .. import _tree
from .._composite import Composite
from .._loop import stop_gradient


def dual_scale(problem: Composite, x: PyTree[Array]) -> Real[Array, ""]:
    r"""$\|z\| / \|K x\|$ for a subgradient $z \in \partial h(K x')$ far out in the direction of
    $K x$; 1 where that says nothing (a start at zero, an unbounded $h$).

    For a norm times a weight this is the weight over the size of the coefficients: it gives
    penalties the units of the problem.
    """
    assert problem.penalty is not None
    applied = problem.apply(x)
    length = _tree.norm(applied)
    far = jnp.asarray(1e3, length.dtype)
    dual = problem.penalty.conjugate_prox(_tree.scale(far, applied), far)
    ratio = _tree.norm(dual) / jnp.where(length > 0, length, 1)
    sound = (length > 0) & jnp.isfinite(ratio) & (ratio > 0)
    return stop_gradient(jnp.where(sound, ratio, 1))


def residual_balance(primal, dual) -> Real[Array, ""]:
    """The factor for a penalty that brings two relative residuals together, within 1/10..10."""
    sound = (primal > 0) & (dual > 0)
    ratio = jnp.where(sound, primal / jnp.where(sound, dual, 1), 1)
    return stop_gradient(jnp.clip(jnp.sqrt(ratio), 0.1, 10.0).astype(primal.dtype))
