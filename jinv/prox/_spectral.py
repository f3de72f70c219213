"""Functions of singular values and eigenvalues whose derivatives survive repeated ones."""

import jax
import jax.numpy as jnp


def _svd(x):
    return jnp.linalg.svd(x, full_matrices=False)


def _quotient(top, bottom, limit):
    """top / bottom, and `limit` where the bottom is rounding only."""
    tiny = jnp.finfo(bottom.dtype).eps * jnp.maximum(jnp.max(jnp.abs(bottom)), 1)
    good = jnp.abs(bottom) > tiny
    return jnp.where(good, top / jnp.where(good, bottom, 1), limit)


@jax.custom_jvp
def shrink_singular_values(x, threshold):
    """U max(S - threshold, 0) V^*."""
    u, s, vh = _svd(x)
    return (u * jax.nn.relu(s - threshold)[None].astype(x.dtype)) @ vh


@shrink_singular_values.defjvp
def _(primals, tangents):
    # The derivative of X -> U f(S) V^* for odd f, by divided differences: with M = U^* dX V,
    # the Hermitian part of M is scaled by (f_i - f_j) / (s_i - s_j), the skew part by
    # (f_i + f_j) / (s_i + s_j), and what lies outside the ranges by f_i / s_i. Autodiff of
    # `svd` divides by the gaps instead, and is NaN at repeated singular values.
    x, threshold = primals
    dx, dthreshold = tangents
    u, s, vh = _svd(x)
    v, uh = vh.conj().T, u.conj().T
    f = jax.nn.relu(s - threshold)
    slope = (s > threshold).astype(s.dtype)
    f, s, slope = f[:, None], s[:, None], slope[:, None]
    gain = _quotient(f - f.T, s - s.T, slope)
    turn = _quotient(f + f.T, s + s.T, jnp.zeros_like(gain))
    rest = _quotient(f, s, jnp.zeros_like(f))
    m = uh @ dx @ v
    core = gain.astype(m.dtype) * (m + m.conj().T) / 2 + turn.astype(m.dtype) * (m - m.conj().T) / 2
    left = (dx @ v - u @ m) * rest.T.astype(m.dtype)
    right = rest.astype(m.dtype) * (uh @ dx - m @ vh)
    down = (u * (slope.T * dthreshold).astype(m.dtype)) @ vh
    out = (u * f.T.astype(m.dtype)) @ vh
    return out, u @ core @ vh + left @ vh + u @ right - down


@jax.custom_jvp
def positive_part(x):
    """The positive semidefinite part of a Hermitian matrix."""
    e, q = jnp.linalg.eigh(x)
    return (q * jax.nn.relu(e)[None].astype(x.dtype)) @ q.conj().T


@positive_part.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    e, q = jnp.linalg.eigh(x)
    f = jax.nn.relu(e)
    slope = (e > 0).astype(e.dtype)
    gain = _quotient(f[:, None] - f[None], e[:, None] - e[None], slope[:, None])
    qh = q.conj().T
    out = (q * f[None].astype(x.dtype)) @ qh
    return out, q @ (gain.astype(x.dtype) * (qh @ dx @ q)) @ qh
