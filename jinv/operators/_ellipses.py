"""Images of ellipses and their exact line integrals."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._fan_beam import FanBeam
from ._radon import ParallelBeam


def ellipse_sinogram(
    operator: ParallelBeam | FanBeam, ellipses: Float[Array, "n 6"]
) -> Float[Array, "num_angles num_detectors"]:
    r"""Exact line integrals of a sum of ellipses along the rays of `operator`:
    $$\sum_i \frac{2 c_i a_i b_i}{r_i^2}\sqrt{\max(r_i^2 - t_i^2, 0)},\quad
    r_i^2 = a_i^2\cos^2(\theta - \phi_i) + b_i^2\sin^2(\theta - \phi_i),$$
    where $t_i$ is the distance of the ray from the centre of ellipse $i$.

    Data made this way contain no discretisation, so a reconstruction from them is not flattered
    by having been made with its own model.

    **Arguments:**

    - `operator`: its angles and detectors are used, its image grid is not.
    - `ellipses`: one row `(value, a, b, X, Y, phi)` for each: the value inside, the semi-axes, the
        centre (to the right of, and above, the centre of rotation), all in the unit of the
        operator's `pixel_size`, and the angle of the first axis in radians, anticlockwise.

    **Returns:** an array like the output of `operator`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.ParallelBeam(
        ...     (9, 9), jnp.array([0.3]), num_detectors=3, detector_spacing=3.0
        ... )
        >>> disk = jnp.array([[1.0, 5.0, 5.0, 0.0, 0.0, 0.0]])
        >>> [round(float(chord), 3) for chord in jinv.operators.ellipse_sinogram(A, disk)[0]]
        [8.0, 10.0, 8.0]

        ```

    ??? cite "Source"
        A. C. Kak and M. Slaney, *Principles of Computerized Tomographic Imaging*, IEEE Press,
        1988, section 3.1.
    """
    theta, s = operator.geometry.lines(operator.angles)

    def one(total, ellipse):
        value, a, b, x, y, phi = ellipse
        radius2 = (a * jnp.cos(theta - phi)) ** 2 + (b * jnp.sin(theta - phi)) ** 2
        t = s - x * jnp.cos(theta) - y * jnp.sin(theta)
        inside = radius2 > t**2
        # The inner `where` keeps the derivative of the root finite outside.
        half_chord = jnp.where(inside, jnp.sqrt(jnp.where(inside, radius2 - t**2, 1)), 0)
        return total + 2 * value * a * b * half_chord / radius2, None

    return jax.lax.scan(one, jnp.zeros_like(s), ellipses.astype(s.dtype))[0]


def ellipse_image(
    operator: ParallelBeam | FanBeam, ellipses: Float[Array, "n 6"], *, samples: int = 8
) -> Float[Array, "height width"]:
    """Pixel means of a sum of ellipses on the grid of `operator`, from `samples**2` points each.

    **Arguments:**

    - `operator`: its image grid is used, its rays are not.
    - `ellipses`: as for [`jinv.operators.ellipse_sinogram`][].
    - `samples`: points in each direction in a pixel; one gives the value at its centre.

    **Returns:** an array like the input of `operator`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.ParallelBeam((3, 3), jnp.zeros(1))
        >>> disk = jnp.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
        >>> jinv.operators.ellipse_image(A, disk)[1]
        Array([0.46875, 1.     , 0.46875], dtype=float32)

        ```
    """
    if samples < 1:
        raise ValueError(f"samples must be a positive integer, got {samples}.")
    geometry, dtype = operator.geometry, operator.angles.dtype
    rows, columns = geometry.pixels(dtype)
    shifts = ((jnp.arange(samples, dtype=dtype) + 0.5) / samples - 0.5) * geometry.pixel_size
    dx, dy = (d.reshape(-1) for d in jnp.meshgrid(shifts, shifts))

    def one(total, ellipse):
        value, a, b, x, y, phi = ellipse

        def count(number, shift):
            right, up = columns + shift[0] - x, -rows + shift[1] - y
            u = right * jnp.cos(phi) + up * jnp.sin(phi)
            v = up * jnp.cos(phi) - right * jnp.sin(phi)
            return number + ((u / a) ** 2 + (v / b) ** 2 <= 1).astype(dtype), None

        number, _ = jax.lax.scan(count, jnp.zeros_like(total), (dx, dy))
        return total + value * number / samples**2, None

    image = jnp.zeros(geometry.shape, dtype)
    return jax.lax.scan(one, image, ellipses.astype(dtype))[0]
