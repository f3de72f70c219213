"""Multipliers in the Fourier and cosine bases: one forward and one inverse fast transform."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact, Real

from ._checks import as_complex, weigh


def fourier_multiply(
    x: Inexact[Array, "..."], multiplier: Real[Array, "..."], axes: tuple[int, ...], *, half: bool
) -> Inexact[Array, "..."]:
    """Multiplies the discrete Fourier transform over `axes` (sorted) by a real array.

    With `half`, `multiplier` covers the half spectrum of `rfftn` and `x` is real.
    """
    sizes = [x.shape[a] for a in axes]
    if half:
        y = weigh(multiplier, jnp.fft.rfftn(x, axes=axes))
        return jnp.fft.irfftn(y, s=sizes, axes=axes)
    return jnp.fft.ifftn(weigh(multiplier, jnp.fft.fftn(x, axes=axes)), axes=axes)


def cosine_multiply(
    x: Real[Array, "..."], multiplier: Real[Array, "..."], axes: tuple[int, ...]
) -> Real[Array, "..."]:
    """Multiplies the orthogonal DCT-II of real `x` over `axes` by an array in natural order.

    An even-odd reordering turns the DCT into a Fourier transform of the same size (Makhoul, "A
    fast cosine transform in one and two dimensions", 1980). The last two axes share one `rfft2`,
    and there the multiplication is done on the Fourier coefficients, without forming the cosine
    ones; this costs about 1.1 times a Fourier multiplier. Every further axis is transformed
    by itself.
    """
    full = [x.shape[a] if a in axes else m for a, m in enumerate(multiplier.shape)]
    multiplier = jnp.broadcast_to(multiplier, full)
    *alone, second, last = (None, *axes) if len(axes) == 1 else axes
    for axis in (a for a in alone if a is not None):
        x = _along_last(_dct, x, axis)
    if second is None:
        x = jnp.moveaxis(x, last, -1)
        x = _multiply_1d(x, jnp.moveaxis(multiplier, last, -1))
        return jnp.moveaxis(x, -1, last)
    x = jnp.moveaxis(x, (second, last), (-2, -1))
    x = _multiply_2d(x, jnp.moveaxis(multiplier, (second, last), (-2, -1)))
    x = jnp.moveaxis(x, (-2, -1), (second, last))
    for axis in (a for a in alone if a is not None):
        x = _along_last(_idct, x, axis)
    return x


def _multiply_1d(x, g):
    # With a_k the cosine coefficients and a_n = 0: w_k V_k = a_k - i a_{n-k}.
    n, m = x.shape[-1], x.shape[-1] // 2 + 1
    w = _twiddle(n, x.dtype)[:m]
    z = _lift(w, x) * jnp.fft.rfft(_reorder(x, -1))
    z = lax.complex(z.real * g[..., :m], z.imag * _reflect(g, -1)[..., :m])
    return _restore(jnp.fft.irfft(_lift(w.conj(), z) * z, n=n), -1)


def _multiply_2d(x, g):
    # Z_{k,l} = w_k w_l V_{k,l} = (A_{k,l} - A_{n-k,m-l}) - i (A_{n-k,l} + A_{k,m-l}), so Z and its
    # reflection Q in the first index hold all four; A' = g A is Z' below.
    rows, cols = x.shape[-2:]
    half = cols // 2 + 1
    w = _lift(_twiddle(rows, x.dtype)[:, None] * _twiddle(cols, x.dtype)[None, :half], x)
    z = w * jnp.fft.rfft2(_reorder(_reorder(x, -2), -1))
    first = lax.slice_in_dim(z, 0, 1, axis=-2)
    rest = lax.rev(lax.slice_in_dim(z, 1, rows, axis=-2), (z.ndim - 2,))
    q = jnp.concatenate([lax.complex(first.imag, -first.real), rest], axis=-2)
    down, g_half = _reflect(g, -2), g[..., :half]
    g_both, g_down = _reflect(down, -1)[..., :half], down[..., :half]
    g_right = _reflect(g, -1)[..., :half]
    real = z.real * (g_half + g_both) - q.imag * (g_half - g_both)
    imag = z.imag * (g_down + g_right) - q.real * (g_down - g_right)
    z = lax.complex(0.5 * real, 0.5 * imag) * w.conj()
    return _restore(_restore(jnp.fft.irfft2(z, s=(rows, cols)), -1), -2)


def _dct(x):
    n, m = x.shape[-1], x.shape[-1] // 2 + 1
    z = _lift(_twiddle(n, x.dtype)[:m], x) * jnp.fft.rfft(_reorder(x, -1))
    return jnp.concatenate([z.real, -jnp.flip(z.imag[..., 1 : n - m + 1], -1)], axis=-1)


def _idct(y):
    n, m = y.shape[-1], y.shape[-1] // 2 + 1
    z = lax.complex(y[..., :m], -_reflect(y, -1)[..., :m].at[..., 0].set(0))
    w = _lift(_twiddle(n, y.dtype)[:m].conj(), y)
    return _restore(jnp.fft.irfft(w * z, n=n), -1)


def _twiddle(n, dtype):
    w = np.exp(-0.5j * np.pi * np.arange(n) / n)
    return jnp.asarray(w, dtype=as_complex(dtype))


def _lift(w, x):
    return w.reshape((1,) * (x.ndim - w.ndim) + w.shape)


def _along_last(fn, x, axis):
    return jnp.moveaxis(fn(jnp.moveaxis(x, axis, -1)), -1, axis)


def _reflect(g, axis):
    """`k -> n - k`; entry 0 stands for the coefficient n, which is zero."""
    axis %= g.ndim
    first = lax.slice_in_dim(g, 0, 1, axis=axis)
    rest = lax.slice_in_dim(g, 1, g.shape[axis], axis=axis)
    return jnp.concatenate([first, lax.rev(rest, (axis,))], axis=axis)


def _reorder(x, axis):
    """`x0 x2 x4 ... x5 x3 x1`."""
    axis %= x.ndim
    even = lax.slice_in_dim(x, 0, None, 2, axis)
    odd = lax.slice_in_dim(x, 1, None, 2, axis)
    return jnp.concatenate([even, lax.rev(odd, (axis,))], axis=axis)


def _restore(v, axis):
    axis %= v.ndim
    n = v.shape[axis]
    half = (n + 1) // 2
    even = lax.slice_in_dim(v, 0, half, axis=axis)
    odd = lax.rev(lax.slice_in_dim(v, half, n, axis=axis), (axis,))
    if n % 2:
        odd = jnp.pad(odd, [(0, int(a == axis)) for a in range(v.ndim)])
    pairs = jnp.stack([even, odd], axis=axis + 1)
    shape = (*v.shape[:axis], 2 * half, *v.shape[axis + 1 :])
    return lax.slice_in_dim(pairs.reshape(shape), 0, n, axis=axis)
