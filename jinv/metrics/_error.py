"""Metrics that depend only on the pointwise error."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Real


def mse(x: Inexact[ArrayLike, "..."], reference: Inexact[ArrayLike, "..."]) -> Real[Array, ""]:
    r"""The mean squared error, $\frac{1}{n} \sum_i |x_i - r_i|^2$.

    All metrics of this package take one pair of arrays (batches: `jax.vmap`), and can be jitted
    and differentiated.

    **Arguments:**

    - `x`: any floating-point or complex array.
    - `reference`: the truth $r$, of the same shape and dtype.

    **Returns:** a real scalar, in the squared unit of `x`.

    **Raises:** `ValueError` if shapes or dtypes differ, or for integers: divide bytes by 255
    first, because their differences would wrap around.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.metrics
        >>> jinv.metrics.mse(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))
        Array(2., dtype=float32)

        ```
    """
    x, reference = checked_pair(x, reference)
    return jnp.mean(_square(x - reference))


def mae(x: Inexact[ArrayLike, "..."], reference: Inexact[ArrayLike, "..."]) -> Real[Array, ""]:
    r"""The mean absolute error, $\frac{1}{n} \sum_i |x_i - r_i|$.

    Less sensitive to a few large errors than `mse`. The derivative where $x_i = r_i$ is taken
    as zero.

    **Arguments:**

    - `x`, `reference`: as in `mse`.

    **Returns:** a real scalar, in the unit of `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.metrics
        >>> jinv.metrics.mae(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))
        Array(1., dtype=float32)

        ```
    """
    x, reference = checked_pair(x, reference)
    error = x - reference
    zero = error == 0
    return jnp.mean(jnp.where(zero, 0, jnp.abs(jnp.where(zero, 1, error))))


def psnr(
    x: Inexact[ArrayLike, "..."],
    reference: Inexact[ArrayLike, "..."],
    data_range: Real[ArrayLike, ""] = 1.0,
) -> Real[Array, ""]:
    r"""The peak signal-to-noise ratio, $10 \log_{10}(R^2 / \mathrm{mse}(x, r))$, in decibels.

    The usual figure for images; larger is better, and 1 dB is a factor 1.26 in the mean
    squared error. It is `inf`, without a derivative, where `x` equals `reference`.

    **Arguments:**

    - `x`, `reference`: as in `mse`. Values outside the range are not clipped.
    - `data_range`: $R > 0$, the distance between black and white. A new value does not retrace.

    **Returns:** a real scalar in dB.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.metrics
        >>> reference = jnp.zeros((8, 8))
        >>> jinv.metrics.psnr(reference + 0.1, reference).round(4)
        Array(20., dtype=float32)

        ```
    """
    x, reference = checked_pair(x, reference)
    error = mse(x, reference)
    peak = checked_range(data_range, error.dtype)
    return 10 * jnp.log10(peak**2 / error)


def snr(x: Inexact[ArrayLike, "..."], reference: Inexact[ArrayLike, "..."]) -> Real[Array, ""]:
    r"""The signal-to-noise ratio, $10 \log_{10}(\|r\|^2 / \|x - r\|^2)$, in decibels.

    For signals without a natural range. It equals $-20 \log_{10}$ of `relative_error`, and is
    `inf`, without a derivative, where `x` equals `reference`.

    **Arguments:**

    - `x`, `reference`: as in `mse`.

    **Returns:** a real scalar in dB.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.metrics
        >>> jinv.metrics.snr(jnp.array([3.0, 4.5]), jnp.array([3.0, 4.0])).round(4)
        Array(20., dtype=float32)

        ```
    """
    x, reference = checked_pair(x, reference)
    return 10 * jnp.log10(jnp.sum(_square(reference)) / jnp.sum(_square(x - reference)))


def relative_error(
    x: Inexact[ArrayLike, "..."], reference: Inexact[ArrayLike, "..."]
) -> Real[Array, ""]:
    r"""The relative error in the Euclidean norm, $\|x - r\| / \|r\|$.

    The derivative at $x = r$, where the norm has a kink, is taken as zero. The result is `inf`
    for `reference` zero, `nan` if both are zero.

    **Arguments:**

    - `x`, `reference`: as in `mse`.

    **Returns:** a real scalar without unit.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.metrics
        >>> jinv.metrics.relative_error(jnp.array([3.0, 4.5]), jnp.array([3.0, 4.0]))
        Array(0.1, dtype=float32)

        ```
    """
    x, reference = checked_pair(x, reference)
    return _norm(x - reference) / _norm(reference)


def checked_pair(x: ArrayLike, reference: ArrayLike) -> tuple[Array, Array]:
    """Both as JAX arrays of one shape and one inexact dtype."""
    x, reference = jnp.asarray(x), jnp.asarray(reference)
    for argument, array in (("x", x), ("reference", reference)):
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise ValueError(
                f"`{argument}` must be floating point or complex; got {array.dtype} (divide "
                "8 bit images by 255)."
            )
    if x.shape != reference.shape:
        raise ValueError(
            f"`reference` must have the shape of `x`, {x.shape}; got {reference.shape}."
        )
    if x.dtype != reference.dtype:
        raise ValueError(
            f"`reference` must have the dtype of `x`, {x.dtype}; got {reference.dtype}."
        )
    return x, reference


def checked_range(data_range: ArrayLike, dtype) -> Array:
    if isinstance(data_range, int | float) and not data_range > 0:
        raise ValueError(f"`data_range` must be positive; got {data_range}.")
    return jnp.asarray(data_range, dtype=dtype)


def _square(x: Array) -> Array:
    # Not |x|^2: the absolute value of a complex zero has no derivative.
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2


def _norm(x: Array) -> Array:
    square = jnp.sum(_square(x))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0 * square)
