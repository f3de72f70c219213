"""The viscous Burgers equation on a ring, by a spectral method and an exponential integrator."""

import functools as ft
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import check_count, check_finite, check_positive, check_stride
from ._data import OperatorData, as_record, march
from ._field import GaussianField


def solve_burgers(
    initial: Float[Array, " size"],
    *,
    viscosity: float | int,
    time: float | int,
    num_steps: int,
) -> Float[Array, " size"]:
    r"""Solves $u_t + \partial_x(u^2/2) = \nu u_{xx}$ on $(0, 1)$, periodic.

    Fourier in space with the 2/3 rule, so that products are free of aliasing; in time the
    exponential integrator ETDRK4 of fixed steps: the stiff term, diagonal in Fourier space, is
    exact at any step, so only the transport limits it ($|u| \Delta t \lesssim 1/\text{size}$), and
    the error is of fourth order. An implicit or adaptive solver would pay for the stiffness at
    each step. For `jit`, `vmap`, and derivatives with respect to `initial`.

    **Arguments:**

    - `initial`: $u$ at time 0 and $x_i = i/n$.
    - `viscosity`: $\nu$, a Python number. Layers are about $\nu/|u|$ wide: several points must
        fit in.
    - `time`: at which the solution is wanted.
    - `num_steps`: of equal length.

    **Returns:** $u$ at `time`, in the dtype of `initial`; too long steps give NaN.

    Raises `ValueError` for numbers that are not positive.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> u0 = jnp.sin(2 * jnp.pi * jnp.arange(64) / 64)
        >>> u = jinv.pde.solve_burgers(u0, viscosity=0.1, time=0.1, num_steps=20)
        >>> round(float(u.max()), 3)
        0.669

        ```

    ??? cite "Source"
        A.-K. Kassam and L. N. Trefethen, "Fourth-order time-stepping for stiff PDEs", SIAM
        Journal on Scientific Computing 26(4), 2005, section 2: ETDRK4 and the contour integrals
        for its coefficients.
    """
    check_positive(viscosity, "viscosity")
    check_positive(time, "time")
    check_count(num_steps, "num_steps")
    size = initial.shape[0]
    wave = 2 * np.pi * np.arange(size // 2 + 1)
    kept = np.arange(size // 2 + 1) < size / 3
    spectrum = jnp.fft.rfft(initial)
    constants = _etdrk4(-viscosity * wave**2, time / num_steps)
    full, half, q, f1, f2, f3 = (jnp.asarray(c, spectrum.dtype) for c in constants)
    flux = jnp.asarray(-0.5j * wave * kept, spectrum.dtype)
    mask = jnp.asarray(kept, spectrum.dtype)

    def slope(v):
        return flux * jnp.fft.rfft(jnp.square(jnp.fft.irfft(v * mask, size)))

    def step(v, _):
        n = slope(v)
        a = half * v + q * n
        n_a = slope(a)
        n_b = slope(half * v + q * n_a)
        n_c = slope(half * a + q * (2 * n_b - n))
        return full * v + f1 * n + 2 * f2 * (n_a + n_b) + f3 * n_c, None

    return jnp.fft.irfft(jax.lax.scan(step, spectrum, None, length=num_steps)[0], size)


def burgers(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    viscosity: float | int = 1e-3,
    field: GaussianField | None = None,
    final_time: float | int = 1.0,
    num_frames: int | None = None,
    step_size: float | None = None,
    stride: int = 1,
    batch_size: int = 64,
    progress: bool = True,
) -> OperatorData:
    r"""The viscous Burgers equation $u_t + \partial_x(u^2/2) = \nu u_{xx}$ on the ring $(0, 1)$,
    from a Gaussian initial value. The map to learn is $u(0) \mapsto u(T)$.

    With [`jinv.pde.solve_burgers`][], which says why this integrator. A sample depends on the key,
    its number and `size`, not on `num`. From a `field` that is zero at 0 and 1 the solution is
    zero there at all times: the odd one on a ring of twice the length.

    **Arguments:**

    - `num`: samples.
    - `size`: points of the field and of the solve, with zero ends both of them included.
        $\nu = 1/1000$ needs about 1024, $\nu = 0.1$ about 64.
    - `key`: a JAX PRNG key.
    - `viscosity`: $\nu$.
    - `field`: of $u(0)$, `"periodic"` or `"dirichlet"`; by default
        $N(0, 625(-\Delta + 25)^{-2})$, periodic.
    - `final_time`: $T$.
    - `num_frames`: if given, the outputs are $u$ at so many equidistant times, $T$ the last.
    - `step_size`: the longest time step; $1 / (10\,\text{size})$ by default, for $|u|$ of a few
        units.
    - `stride`: keep every `stride`-th point; must divide `size`, with zero ends `size - 1`.
    - `batch_size`: samples that are solved together.
    - `progress`: show a tqdm bar.

    **Returns:** [`jinv.pde.OperatorData`][]: inputs `(num, n)`, outputs `(num, n)` or
    `(num, num_frames, n)`, $n = \text{size}/\text{stride}$, at $x_i = i/n$.

    Raises `ValueError` for numbers out of range, for a `step_size` that was too long and for a
    `size` that does not resolve the layers: where the highest resolved modes of a solution are
    more than 1/1000 of the largest.

    !!! example
        ```python
        >>> import jax, jinv
        >>> options = dict(viscosity=0.1, key=jax.random.key(0), progress=False)
        >>> data = jinv.pde.burgers(3, 64, **options)
        >>> data.inputs.shape, data.outputs.shape
        ((3, 64), (3, 64))
        >>> field = jinv.pde.GaussianField(2, 3, 6, "dirichlet")
        >>> data = jinv.pde.burgers(3, 65, field=field, **options)
        >>> data.outputs.shape, float(abs(data.outputs[:, ::64]).max())
        ((3, 65), 0.0)

        ```

    ??? cite "Source"
        Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart and
        A. Anandkumar, "Fourier Neural Operator for Parametric Partial Differential Equations",
        ICLR 2021, appendix A.3.1 (8192 points, $\nu = 0.1$). The published script has
        `GaussianField(2.5, 7, 49, "periodic")` and $\nu = 1/1000$. Deviation: steps of our choice;
        there Chebfun's `spin` takes the same integrator with steps of $10^{-4}$ or more.
    """
    frames = 1 if num_frames is None else num_frames
    check_count(frames, "num_frames")
    check_count(size, "size", 4)
    check_positive(final_time, "final_time")
    step_size = 0.1 / size if step_size is None else step_size
    check_positive(step_size, "step_size")
    field = GaussianField(2, 5, 25, "periodic") if field is None else field
    if field.boundary == "neumann":
        raise ValueError("`field` must be 'periodic' or 'dirichlet', its boundary is 'neumann'.")
    fixed_ends = field.boundary == "dirichlet"
    intervals = size - 1 if fixed_ends else size
    check_stride(stride, intervals)
    interval = final_time / frames
    num_steps = math.ceil(interval / step_size * (1 - 1e-9))
    solve = ft.partial(solve_burgers, time=interval, num_steps=num_steps)

    def advance(u):
        if not fixed_ends:
            return solve(u, viscosity=viscosity)
        # In units of the longer ring lengths and values are halves.
        ring = jnp.concatenate([u, -u[-2:0:-1]]) / 2
        found = 2 * solve(ring, viscosity=viscosity / 4)[:size]
        return found.at[jnp.array([0, -1])].set(0)

    options = {"key": key, "batch_size": batch_size, "progress": progress}
    sample = lambda key: field.sample(size, key=key)
    starts, ends = march(sample, advance, num, frames, **options)
    check_finite(ends, "step_size", f"{step_size} is too long")
    _check_resolved(ends, size, viscosity, fixed_ends)
    outputs, times = ends[:, 0], ()
    if num_frames is not None:
        outputs, times = ends, (final_time * np.arange(1, frames + 1) / frames,)
    points = np.arange(size)[::stride] / intervals
    return as_record(starts[:, ::stride], outputs[..., ::stride], (*times, points))


def _check_resolved(u, size, viscosity, fixed_ends):
    u = np.concatenate([u, -u[..., -2:0:-1]], axis=-1) if fixed_ends else u
    spectrum = np.abs(np.fft.rfft(u))[..., : math.ceil(u.shape[-1] / 3)]
    highest = spectrum[..., -max(1, u.shape[-1] // 24) :].max(axis=-1)
    tail = np.max(highest / spectrum.max(axis=-1))
    if tail > 1e-3:
        raise ValueError(
            f"`size` {size} does not resolve the layers of viscosity {viscosity}: "
            f"the highest modes are {tail:.1e} of the largest, at most 1e-3 is allowed."
        )


def _etdrk4(linear, step):
    """The factors of ETDRK4 for a real diagonal linear part: means over circles around `h L`,
    because the formulas cancel near zero."""
    circle = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
    z = step * linear[:, None] + circle[None, :]
    e = np.exp(z)
    mean = lambda values: step * values.mean(axis=1).real
    q = mean((np.exp(z / 2) - 1) / z)
    f1 = mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3)
    f2 = mean((2 + z + e * (z - 2)) / z**3)
    f3 = mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3)
    return np.exp(step * linear), np.exp(step * linear / 2), q, f1, f2, f3
