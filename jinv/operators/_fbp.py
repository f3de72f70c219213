"""Filtered back-projection."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import check_choice, check_vector
from ._fan_beam import FanBeam
from ._radon import ParallelBeam
from ._rays import zeros_like_data


_WINDOWS = {
    "ramp": np.ones_like,
    "shepp-logan": np.sinc,
    "cosine": lambda f: np.cos(np.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(2 * np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(2 * np.pi * f),
}


def filtered_back_projection(
    operator: ParallelBeam | FanBeam,
    sinogram: Float[Array, "num_angles num_detectors"],
    *,
    window: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = "ramp",
) -> Float[Array, "height width"]:
    r"""Inverts an X-ray transform directly:
    $$x(p) = \frac{\pi}{N}\sum_a \frac{1}{U_a(p)^2}\,\big(h * w y_a\big)\big(s_a(p)\big),$$
    with the ramp filter $h$; for parallel beams $U = 1$ and $w = 1$, and for a fan
    $U_a(p) = 1 + \langle p, d_a\rangle/R$ and $w = \cos\gamma$, $\gamma$ the fan angle.

    The angles must be equispaced over half a turn or whole turns for a parallel beam, and over
    whole turns for a fan beam: this is not checked, and few or missing angles give streaks. It is
    linear in the sinogram, differentiable, and costs two gathers for each pixel and angle. It is
    an approximate inverse and not the pseudo-inverse; use it as a first guess or a baseline.

    **Arguments:**

    - `operator`: the transform the data come from.
    - `sinogram`: its output.
    - `window`: taper of the ramp filter. `"ramp"` is none, `"hann"` suppresses most noise.

    **Returns:** the image; a pixel which a view does not see gets nothing from that view.

    **Raises:** `ValueError` for an unknown window or a sinogram of the wrong shape or dtype.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> angles = jnp.linspace(0, jnp.pi, 60, endpoint=False)
        >>> A = jinv.operators.ParallelBeam((32, 32), angles)
        >>> x = jnp.zeros((32, 32)).at[10:20, 12:24].set(1.0)
        >>> y = jinv.operators.filtered_back_projection(A, A.mv(x))
        >>> bool(jnp.abs(y - x)[12:18, 14:22].max() < 0.05)
        True

        ```

    ??? cite "Source"
        A. C. Kak and M. Slaney, *Principles of Computerized Tomographic Imaging*, IEEE Press,
        1988, chapter 3: the band-limited ramp filter in the space domain, parallel projections,
        and fan projections on equally spaced collinear detectors.
    """
    check_choice(window, tuple(_WINDOWS), "window")
    check_vector(sinogram, operator.out_structure(), "filtered_back_projection")
    geometry, angles = operator.geometry, operator.angles
    weights, spacing = geometry.detector_weights(angles.dtype)
    filtered = _filter(sinogram * weights[None, :], spacing, window)

    # Without the checkpoint the backward pass would keep weights for each pixel and angle.
    @jax.checkpoint
    def view(image, angle_and_row):
        angle, row = angle_and_row
        position, weight = geometry.locate(angle)
        seen = (position >= 0) & (position <= geometry.num_detectors - 1)
        index = jnp.floor(jax.lax.stop_gradient(position)).astype(jnp.int32)
        index = jnp.clip(index, 0, max(geometry.num_detectors - 2, 0))
        fraction = position - index.astype(position.dtype)
        following = jnp.minimum(index + 1, geometry.num_detectors - 1)
        value = (1 - fraction) * row[index] + fraction * row[following]
        return image + jnp.where(seen, weight * value, 0), None

    image = zeros_like_data(geometry.shape, filtered)
    image, _ = jax.lax.scan(view, image, (angles, filtered))
    return image * (math.pi / angles.shape[0])


def _filter(rows, spacing, window):
    """Convolution with the band-limited ramp, sampled in space so that its mean is right."""
    num = rows.shape[1]
    size = 2 ** math.ceil(math.log2(max(64, 2 * num)))
    offsets = np.arange(size)
    offsets = np.minimum(offsets, size - offsets)
    kernel = np.zeros(size)
    kernel[0] = 0.25
    odd = offsets % 2 == 1
    kernel[odd] = -1 / (np.pi * offsets[odd]) ** 2
    response = np.fft.rfft(kernel).real * _WINDOWS[window](np.fft.rfftfreq(size)) / spacing
    spectrum = jnp.fft.rfft(rows, n=size, axis=1)
    response = jnp.asarray(response, dtype=spectrum.dtype)[None, :]
    return jnp.fft.irfft(spectrum * response, n=size, axis=1)[:, :num]
