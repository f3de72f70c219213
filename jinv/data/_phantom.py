"""The modified Shepp-Logan phantom: its table of ellipses, its image and its exact sinogram."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._dtype import float_dtype


class Ellipse(NamedTuple):
    r"""An ellipse of constant intensity in the square $[-1, 1]^2$, $y$ pointing up.

    `angle` turns the axis of half-length `semi_x` from the $x$ axis, anticlockwise, in degrees.

    !!! example
        ```python
        >>> import jinv
        >>> jinv.data.Ellipse(1.0, 0.5, 0.25, x=0.0, y=0.0, angle=30.0).semi_x
        0.5

        ```
    """

    intensity: float
    semi_x: float
    semi_y: float
    x: float
    y: float
    angle: float


SHEPP_LOGAN_ELLIPSES: tuple[Ellipse, ...] = (
    Ellipse(1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    Ellipse(-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    Ellipse(-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    Ellipse(-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    Ellipse(0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    Ellipse(0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    Ellipse(0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    Ellipse(0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    Ellipse(0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    Ellipse(0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def shepp_logan(size: int, *, dtype: Any = None) -> Float[Array, "{size} {size}"]:
    r"""The modified Shepp-Logan phantom, $f(x, y) = \sum_k \rho_k 1_{E_k}(x, y)$, at pixel centres.

    Pixel $(i, j)$ is the value at $x = -1 + (2j + 1)/n$, $y = 1 - (2i + 1)/n$: row 0 is the top,
    and the square $[-1, 1]^2$ is covered by $n \times n$ pixels. The values are exactly the
    multiples of 1/10 that the table makes (0, 0.1, 0.2, 0.3, 0.4 and 1), rounded once to
    `dtype`. It is computed on the host in float64, at the cost of ten comparisons per pixel.

    **Arguments:**

    - `size`: $n$, pixels per side.
    - `dtype`: of the result; JAX's default float if left out.

    **Returns:** an array of shape `(size, size)` in $[0, 1]$.

    **Raises:** `ValueError` if `size` is not positive.

    !!! example
        ```python
        >>> import jinv.data
        >>> jinv.data.shepp_logan(5)
        Array([[0. , 0. , 0.2, 0. , 0. ],
               [0. , 0.2, 0.3, 0.2, 0. ],
               [0. , 0.2, 0.2, 0.2, 0. ],
               [0. , 0.2, 0.2, 0.2, 0. ],
               [0. , 0. , 0.2, 0. , 0. ]], dtype=float32)

        ```

    ??? cite
        L. A. Shepp and B. F. Logan, "The Fourier reconstruction of a head section", IEEE
        Transactions on Nuclear Science 21(3), 1974, for the ellipses; P. A. Toft, "The Radon
        Transform: Theory and Implementation", PhD thesis, Technical University of Denmark,
        1996, for the higher contrast.
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1 pixel; got {size}.")
    dtype = float_dtype(dtype)
    centres = (2.0 * np.arange(size) + 1.0) / size - 1.0
    x, y = centres[None, :], -centres[:, None]
    # Whole tenths are summed, so that overlaps such as 1 - 0.8 - 0.2 give zero and not 1e-17.
    tenths = np.zeros((size, size), dtype=np.int32)
    for ellipse in SHEPP_LOGAN_ELLIPSES:
        cos, sin = _cos_sin(ellipse.angle)
        along = (x - ellipse.x) * cos + (y - ellipse.y) * sin
        across = (y - ellipse.y) * cos - (x - ellipse.x) * sin
        inside = (along / ellipse.semi_x) ** 2 + (across / ellipse.semi_y) ** 2 <= 1.0
        tenths += round(10 * ellipse.intensity) * inside
    return jnp.asarray(tenths / 10.0, dtype=dtype)


def shepp_logan_sinogram(
    angles: Float[ArrayLike, " angles"], offsets: Float[ArrayLike, " offsets"]
) -> Float[Array, "angles offsets"]:
    r"""The exact line integrals of the phantom, $\int f\,ds$ along $x\cos\theta + y\sin\theta = t$.

    An ellipse with half-axes $a, b$, turned by $\phi$ and centred at $c$, contributes
    $2 \rho\, a b \sqrt{s^2 - \tau^2} / s^2$ where $s^2 = a^2\cos^2(\theta - \phi) +
    b^2\sin^2(\theta - \phi)$ and $\tau = t - c_x\cos\theta - c_y\sin\theta$, and nothing where
    $|\tau| > s$. Data made this way do not come from the operator that is inverted later, so
    a reconstruction cannot profit from the same discretisation twice ("inverse crime").

    **Arguments:**

    - `angles`: $\theta$ in radians, shape `(angles,)`.
    - `offsets`: $t$, the signed distances of the lines from the centre, in units in which the
        phantom fills $[-1, 1]^2$; shape `(offsets,)`, of the dtype of `angles`.

    **Returns:** the sinogram, shape `(angles, offsets)`, in the same unit of length. Multiply by
    $n/2$ for lengths in pixels of an $n \times n$ image.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv.data
        >>> angles = jnp.array([0.0, jnp.pi / 2])
        >>> sinogram = jinv.data.shepp_logan_sinogram(angles, jnp.array([0.0, 0.9]))
        >>> sinogram.round(4)
        Array([[0.5146, 0.    ],
               [0.2077, 0.2862]], dtype=float32)

        ```

    ??? cite
        A. C. Kak and M. Slaney, "Principles of Computerized Tomographic Imaging", IEEE Press,
        1988, chapter 3.
    """
    angles, offsets = jnp.asarray(angles), jnp.asarray(offsets)
    if angles.dtype != offsets.dtype:
        raise ValueError(
            f"`offsets` must have the dtype of `angles`, {angles.dtype}; got {offsets.dtype}."
        )
    theta = angles[:, None]
    total = jnp.zeros((angles.shape[0], offsets.shape[0]), dtype=angles.dtype)
    for ellipse in SHEPP_LOGAN_ELLIPSES:
        turned = theta - float(np.deg2rad(ellipse.angle))
        a, b = ellipse.semi_x, ellipse.semi_y
        width = (a * jnp.cos(turned)) ** 2 + (b * jnp.sin(turned)) ** 2
        centre = ellipse.x * jnp.cos(theta) + ellipse.y * jnp.sin(theta)
        square = width - (offsets[None, :] - centre) ** 2
        # The inner `where` keeps the derivative finite on lines that miss the ellipse.
        chord = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        total = total + 2 * ellipse.intensity * a * b * chord / width
    return total


def _cos_sin(degrees: float) -> tuple[float, float]:
    radians = np.deg2rad(degrees)
    return float(np.cos(radians)), float(np.sin(radians))
