"""Smooth, convex, non-decreasing activations, sharpened by `beta`."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def activation(name: str, beta: float, x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""`"softplus"`, $\log(1 + e^{\beta x}) / \beta$, or `"squareplus"`,
    $(x + \sqrt{x^2 + c^2})/2$ with $c = 2 \log 2 / \beta$, the same value at zero."""
    if name == "softplus":
        return _softplus(beta * x) / beta
    width = 2 * math.log(2) / beta
    return 0.5 * (x + jnp.sqrt(x * x + width * width))


@jax.custom_jvp
def _softplus(x):
    return jnp.maximum(x, 0) + _log1p(jnp.exp(-jnp.abs(x)))


@_softplus.defjvp
def _(primals, tangents):
    # One exponential less than the derivative of `logaddexp`, and as accurate.
    (x,), (t,) = primals, tangents
    return _softplus(x), jax.nn.sigmoid(x) * t


def _log1p(x):
    """For x in [0, 1]; in single precision the series of 2 artanh(x / (2 + x)), which is exact to
    rounding and half the time of XLA's function."""
    if x.dtype != jnp.float32:
        return jnp.log1p(x)
    ratio = x / (2 + x)
    square, series = ratio * ratio, jnp.float32(1 / 11)
    for k in (9, 7, 5, 3, 1):
        series = series * square + 1 / k
    return 2 * ratio * series
