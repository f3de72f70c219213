"""Incompressible flow on a torus, in the vorticity: pseudo-spectral, Crank-Nicolson."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import check_count, check_finite, check_positive, check_square, check_stride
from ._data import OperatorData, as_record, march
from ._field import GaussianField


def solve_navier_stokes(
    vorticity: Float[Array, "rows columns"],
    forcing: Float[Array, "..."] | None = None,
    *,
    viscosity: float | int,
    time: float | int,
    num_steps: int,
) -> Float[Array, "rows columns"]:
    r"""Solves $\omega_t + u\cdot\nabla\omega = \nu\Delta\omega + f$ on the unit torus, with
    $u = (\partial_y\psi, -\partial_x\psi)$, $-\Delta\psi = \omega$.

    Fourier in space with the 2/3 rule; in time Crank-Nicolson for the viscosity and Euler for
    the convection, as in the published data: of first order, so its errors of about
    $\Delta t$ are part of the data. Steps need $|u| \Delta t \ll 1/\text{size}$. For `jit`, `vmap`
    and derivatives with respect to `vorticity` and `forcing`; five FFTs per step.

    **Arguments:**

    - `vorticity`: $\omega$ at time 0, at $(x, y) = (i, j)/n$, of mean zero.
    - `forcing`: $f$ at the same points; zero if left out.
    - `viscosity`: $\nu$.
    - `time`: at which the solution is wanted.
    - `num_steps`: of equal length.

    **Returns:** $\omega$ at `time`, in the dtype of `vorticity`; too long steps give NaN.

    Raises `ValueError` for numbers that are not positive and for shapes that differ.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> x = jnp.arange(16) / 16
        >>> swirl = jnp.outer(jnp.cos(2 * jnp.pi * x), jnp.cos(2 * jnp.pi * x))
        >>> w = jinv.pde.solve_navier_stokes(swirl, viscosity=0.01, time=1.0, num_steps=100)
        >>> round(float(w.max()), 3)  # exp(-8 * pi**2 * 0.01)
        0.454

        ```

    ??? cite "Source"
        The scheme of the data generation of Z. Li et al., "Fourier Neural Operator for Parametric
        Partial Differential Equations", ICLR 2021. Deviation: both factors of the convection
        are cut to the lower 2/3 too, where there only the product is.
    """
    check_square(vorticity, "vorticity")
    if forcing is not None and forcing.shape != vorticity.shape:
        raise ValueError(
            f"`forcing` must have the shape {vorticity.shape} of `vorticity`, got {forcing.shape}."
        )
    check_positive(viscosity, "viscosity")
    check_positive(time, "time")
    check_count(num_steps, "num_steps")
    size, step = vorticity.shape[0], time / num_steps
    spectrum = jnp.fft.rfft2(vorticity)
    dtype = spectrum.dtype
    kx, ky = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size)[None, :] * size
    kept = (np.abs(kx) < size / 3) & (np.abs(ky) < size / 3)
    laplacian = 4 * np.pi**2 * (kx**2 + ky**2)
    inverse = kept / np.where(laplacian > 0, laplacian, 1)
    # Velocity and gradient of the vorticity, from its transform.
    factors = [2j * np.pi * ky * inverse, -2j * np.pi * kx * inverse]
    factors = [*factors, 2j * np.pi * kx * kept, 2j * np.pi * ky * kept]
    factors = jnp.asarray(np.stack(factors), dtype)
    friction = viscosity * step / 2 * laplacian
    keep = jnp.asarray((1 - friction) / (1 + friction), dtype)
    gain = jnp.asarray(step / (1 + friction), dtype)
    convect = -gain * jnp.asarray(kept, dtype)
    source = 0 if forcing is None else gain * jnp.fft.rfft2(forcing)

    def advance(w, _):
        u, v, w_x, w_y = jnp.fft.irfft2(factors * w[None], s=(size, size))
        return keep * w + convect * jnp.fft.rfft2(u * w_x + v * w_y) + source, None

    spectrum, _ = jax.lax.scan(advance, spectrum, None, length=num_steps)
    return jnp.fft.irfft2(spectrum, s=(size, size))


def navier_stokes(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    viscosity: float | int = 1e-3,
    field: GaussianField | None = None,
    final_time: float | int = 50.0,
    num_frames: int = 50,
    step_size: float = 1e-4,
    stride: int = 1,
    batch_size: int = 16,
    progress: bool = True,
) -> OperatorData:
    r"""The vorticity of a forced flow on the unit torus, from a Gaussian initial value, with
    $f = 0.1(\sin 2\pi(x + y) + \cos 2\pi(x + y))$. The map to learn is $\omega(0)$, or some first
    frames, to the later ones.

    With [`jinv.pde.solve_navier_stokes`][]. The defaults are the published data's and mean
    500,000 steps per sample: take a GPU, or a shorter time and longer steps. A sample depends on
    the key, its number and `size`, not on `num`.

    **Arguments:**

    - `num`: samples.
    - `size`: points along each side of the field and of the solve; 256 in the published data.
    - `key`: a JAX PRNG key.
    - `viscosity`: $\nu$.
    - `field`: of $\omega(0)$; by default $N(0, 2 \cdot 7^3(-\Delta + 49)^{-2.5})$, periodic.
    - `final_time`: $T$.
    - `num_frames`: the number of equidistant times at which $\omega$ is kept, $T$ the last.
    - `step_size`: the longest time step.
    - `stride`: keep every `stride`-th point; must divide `size`.
    - `batch_size`: samples that are solved together.
    - `progress`: show a tqdm bar.

    **Returns:** [`jinv.pde.OperatorData`][]: inputs `(num, n, n)`, outputs
    `(num, num_frames, n, n)`, $n = \text{size}/\text{stride}$, entry `[i, j]` at $(i, j)/n$.

    Raises `ValueError` for numbers out of range and for a `step_size` that was too long.

    !!! example
        ```python
        >>> import jax, jinv
        >>> options = dict(key=jax.random.key(0), progress=False)
        >>> short = dict(final_time=0.5, num_frames=5, step_size=0.01)
        >>> data = jinv.pde.navier_stokes(2, 32, **short, **options)
        >>> data.inputs.shape, data.outputs.shape
        ((2, 32, 32), (2, 5, 32, 32))

        ```

    ??? cite "Source"
        Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart and
        A. Anandkumar, "Fourier Neural Operator for Parametric Partial Differential Equations",
        ICLR 2021, appendix A.3.3, and the data generation published with it: $\nu = 10^{-3}$ and
        $T = 50$, or $\nu = 10^{-5}$ and $T = 20$, every fourth of 256 points kept. The variance
        is that of the published code, whose noise is complex; the paper writes $7^{3/2}$ in place
        of $2 \cdot 7^3$.
    """
    check_count(size, "size", 4)
    check_count(num_frames, "num_frames")
    check_stride(stride, size)
    check_positive(final_time, "final_time")
    check_positive(step_size, "step_size")
    field = GaussianField(2.5, 7, math.sqrt(2) * 7**1.5, "periodic") if field is None else field
    if field.boundary != "periodic":
        raise ValueError(f"`field` must be periodic, its boundary is {field.boundary!r}.")
    interval = final_time / num_frames
    num_steps = math.ceil(interval / step_size * (1 - 1e-9))
    points = np.arange(size) / size
    phase = 2 * np.pi * (points[:, None] + points[None, :])
    forcing = jnp.asarray(0.1 * (np.sin(phase) + np.cos(phase)), jnp.result_type(float))
    advance = lambda w: solve_navier_stokes(
        w, forcing, viscosity=viscosity, time=interval, num_steps=num_steps
    )
    options = {"key": key, "batch_size": batch_size, "progress": progress}
    sample = lambda key: field.sample((size, size), key=key)
    starts, ends = march(sample, advance, num, num_frames, **options)
    check_finite(ends, "step_size", f"{step_size} is too long")
    times = final_time * np.arange(1, num_frames + 1) / num_frames
    points = points[::stride]
    keep = np.s_[..., ::stride, ::stride]
    return as_record(starts[keep], ends[keep], (times, points, points))
