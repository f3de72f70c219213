"""The structural similarity index, in the two conventions that publications use."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from ._error import checked_pair, checked_range


_K1, _K2 = 0.01, 0.03
_SIGMA, _RADIUS = 1.5, 5
_UNIFORM = 7


def ssim(
    x: Float[ArrayLike, "..."],
    reference: Float[ArrayLike, "..."],
    data_range: Real[ArrayLike, ""] = 1.0,
    *,
    window: Literal["gaussian", "uniform"] = "gaussian",
) -> Real[Array, ""]:
    r"""The structural similarity of two images: the mean over all windows inside of
    $\frac{(2\mu_x\mu_r + C_1)(2\sigma_{xr} + C_2)}
    {(\mu_x^2 + \mu_r^2 + C_1)(\sigma_x^2 + \sigma_r^2 + C_2)}$,
    with $C_1 = (0.01 R)^2$ and $C_2 = (0.03 R)^2$.

    At most 1, which only equal images reach. Means, variances and the covariance are weighted
    over a window around each pixel; pixels closer to the border than half a window have none
    and are left out. It costs two one-dimensional filters over five images, can be jitted, vmapped
    and differentiated, and $1 - \mathrm{ssim}$ can serve as a loss. In float32
    the variances lose some digits by cancellation: expect agreement with float64 to about 1e-4
    in very flat images.

    **Arguments:**

    - `x`: shape `(H, W)` or `(H, W, channels)`; the channels are compared one by one and
        averaged.
    - `reference`: of the same shape and dtype.
    - `data_range`: $R > 0$, the distance between black and white. A new value does not retrace.
    - `window`: `"gaussian"` is the one of the paper, 11 x 11 pixels with standard deviation 1.5
        (`skimage.metrics.structural_similarity` with `gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False`); `"uniform"` is scikit-image's default, 7 x 7 pixels and
        the unbiased covariance. Results of the two cannot be compared: say which.

    **Returns:** a real scalar in $[-1, 1]$.

    **Raises:** `ValueError` for different shapes or dtypes, integers or complex numbers, more
    than three axes, an image smaller than the window, or an unknown window.

    !!! example
        ```python
        >>> import jinv.data, jinv.metrics
        >>> camera = jinv.data.photograph("camera", shape=128)
        >>> jinv.metrics.ssim(camera, camera).round(4)
        Array(1., dtype=float32)
        >>> float(jinv.metrics.ssim(0.5 * camera, camera)) < 0.8
        True

        ```

    ??? cite
        Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from
        error visibility to structural similarity", IEEE Transactions on Image Processing 13(4),
        2004. Deviation: no preliminary downsampling, as in scikit-image.
    """
    x, reference = checked_pair(x, reference)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` must be real for the structural similarity; got {x.dtype}.")
    if x.ndim not in (2, 3):
        raise ValueError(f"`x` must have shape (H, W) or (H, W, channels); got {x.shape}.")
    if window not in ("gaussian", "uniform"):
        raise ValueError(f'`window` must be "gaussian" or "uniform"; got {window!r}.')
    weights, unbiased = _window(window)
    if min(x.shape[:2]) < weights.size:
        raise ValueError(
            f"`x` must be at least {weights.size} x {weights.size} pixels for the {window} window; "
            f"got {x.shape[0]} x {x.shape[1]}."
        )
    peak = checked_range(data_range, x.dtype)
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2

    if x.ndim == 2:
        x, reference = x[..., None], reference[..., None]
    moments = jnp.stack([x, reference, x * x, reference * reference, x * reference])
    mean_x, mean_r, xx, rr, xr = _local_mean(moments, jnp.asarray(weights, dtype=x.dtype))
    var_x = unbiased * (xx - mean_x * mean_x)
    var_r = unbiased * (rr - mean_r * mean_r)
    covariance = unbiased * (xr - mean_x * mean_r)
    luminance = (2 * mean_x * mean_r + c1) / (mean_x**2 + mean_r**2 + c1)
    return jnp.mean(luminance * (2 * covariance + c2) / (var_x + var_r + c2))


def _window(window: str) -> tuple[np.ndarray, float]:
    """One-dimensional weights, and the factor that makes a covariance unbiased."""
    if window == "uniform":
        return np.full(_UNIFORM, 1 / _UNIFORM), _UNIFORM**2 / (_UNIFORM**2 - 1)
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    return weights / weights.sum(), 1.0


def _local_mean(
    images: Float[Array, "stack H W channels"], weights: Float[Array, " size"]
) -> Float[Array, "stack h w channels"]:
    return _slide(_slide(images, weights, axis=1), weights, axis=2)


def _slide(images: Array, weights: Array, axis: int) -> Array:
    """The weighted sum of shifted copies, one per step of a loop.

    Not a convolution: the gradient of one in float64 crashes XLA's CPU backend for some sizes.
    Not an unrolled sum: XLA would fuse both axes and recompute the inner sums for each tap.
    """
    length = images.shape[axis] - weights.size + 1

    def add(total, tap):
        start, weight = tap
        return total + weight * jax.lax.dynamic_slice_in_dim(images, start, length, axis), None

    first = jnp.zeros_like(jax.lax.slice_in_dim(images, 0, length, axis=axis))
    return jax.lax.scan(add, first, (jnp.arange(weights.size), weights))[0]
