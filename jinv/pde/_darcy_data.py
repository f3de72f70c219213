"""Data sets of Darcy flow: two-phase, rough, log-normal and multiscale coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ._checks import check_count, check_positive, check_stride
from ._darcy import direct
from ._data import OperatorData, as_record, solve_each
from ._field import GaussianField


def darcy_two_phase(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    field: GaussianField | None = None,
    values: tuple[float | int, float | int] = (12, 3),
    stride: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> OperatorData:
    r"""Darcy flow $-\nabla\cdot(a\nabla u) = 1$, $u = 0$ on the boundary of the unit square, in a
    medium of two phases: $a$ is `values[0]` where a Gaussian field is not negative, else
    `values[1]`. The map to learn is $a \mapsto u$.

    The standard test of operator networks. `darcy_two_phase(1100, 127, key=..., stride=2)` gives
    64 x 64 nodes in about a minute on one core; the published files have 421 x 421.
    A sample depends on the key, its number and `size`, not on `num`.

    **Arguments:**

    - `num`: samples.
    - `size`: nodes along each side of the grid of the field and of the solve, boundary included.
    - `key`: a JAX PRNG key.
    - `field`: `GaussianField(alpha=2, tau=3)` by default.
    - `values`: of $a$, where the field is $\geq 0$ and $< 0$.
    - `stride`: keep every `stride`-th node; must divide `size - 1`.
    - `workers`: threads that solve at the same time.
    - `progress`: show a tqdm bar.

    **Returns:** [`jinv.pde.OperatorData`][]; inputs $a$ and outputs $u$ of shape `(num, n, n)`,
    $n = 1 + (\text{size} - 1)/\text{stride}$, entry `[i, j]` at $(x, y) = (i, j)/(n - 1)$.

    Raises `ValueError` for numbers out of range.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.darcy_two_phase(
        ...     4, 33, key=jax.random.key(0), stride=2, progress=False
        ... )
        >>> data.inputs.shape, sorted(set(data.inputs.ravel().tolist()))
        ((4, 17, 17), [3.0, 12.0])

        ```

    ??? cite "Source"
        Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart and
        A. Anandkumar, "Fourier Neural Operator for Parametric Partial Differential Equations",
        ICLR 2021, appendix A.3.2, and the data generation published with it.
        Deviations: the field is evaluated at the nodes, where the published code interpolates
        it by splines from cell centres to nodes and the solution back. So $u$ is exactly
        zero on the boundary here, and $a$ has two values in the solver too.
        The published script has 4 in place of 3, the paper and the files 3.
    """
    field = GaussianField(2, 3) if field is None else field
    if len(values) != 2:
        raise ValueError(f"`values` must be two numbers, got {values}.")
    for value in values:
        check_positive(value, "values")

    def coefficient(key):
        rock = field.sample((size, size), key=key)
        high, low = (jnp.asarray(value, rock.dtype) for value in values)
        return jnp.where(rock >= 0, high, low)

    return _darcy(coefficient, num, size, key, stride, workers, progress)


def darcy_rough(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    stride: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> OperatorData:
    r"""Two-phase Darcy flow with shorter interfaces and higher contrast: `darcy_two_phase` with
    $\tau = 5$ and the values 12 and 2.

    **Arguments:** those of [`jinv.pde.darcy_two_phase`][].

    **Returns:** as there. Raises `ValueError` as there.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.darcy_rough(2, 33, key=jax.random.key(0), progress=False)
        >>> sorted(set(data.inputs.ravel().tolist()))
        [2.0, 12.0]

        ```

    ??? cite "Source"
        J. He, X. Liu and J. Xu, "MgNO: Efficient Parameterization of Linear Operators via
        Multigrid", ICLR 2024 ("Darcy rough": 512 x 512, every second point kept; 1280 training
        samples). $\alpha$ and $\tau$ are those in the name of the published file; the two values
        are not documented there: 12 and 2 are our reading of its contrast of 6.
    """
    options = {"key": key, "stride": stride, "workers": workers, "progress": progress}
    return darcy_two_phase(num, size, field=GaussianField(2, 5), values=(12, 2), **options)


def darcy_smooth(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    field: GaussianField | None = None,
    stride: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> OperatorData:
    r"""Darcy flow in a log-normal medium: $a = \exp(g)$ with a Gaussian field $g$, otherwise
    [`jinv.pde.darcy_two_phase`][]. The solver has its full second order here.

    **Arguments:** those of `darcy_two_phase`, without `values`.

    - `field`: $g$; `GaussianField(alpha=2, tau=3)` by default. Its `sigma` sets the contrast.

    **Returns:** as `darcy_two_phase`. Raises `ValueError` as there.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.darcy_smooth(2, 33, key=jax.random.key(0), progress=False)
        >>> bool((data.inputs > 0).all())
        True

        ```

    ??? cite "Source"
        The log-normal coefficient of the Darcy data generation of Z. Li et al., "Fourier Neural
        Operator for Parametric Partial Differential Equations", ICLR 2021, with the deviation of
        `darcy_two_phase`.
    """
    field = GaussianField(2, 3) if field is None else field
    coefficient = lambda key: jnp.exp(field.sample((size, size), key=key))
    return _darcy(coefficient, num, size, key, stride, workers, progress)


def darcy_multiscale(
    num: int,
    size: int,
    *,
    key: PRNGKeyArray,
    num_scales: int = 6,
    stride: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> OperatorData:
    r"""Darcy flow in an oscillating medium without scale separation, otherwise
    [`jinv.pde.darcy_two_phase`][]:
    $a = \prod_{k=1}^q (1 + \tfrac12\cos(\omega_k\pi(x + y)))
    (1 + \tfrac12\sin(\omega_k\pi(y - 3x)))$ with independent
    $\omega_k \sim U[2^{k-1}, 1.5 \cdot 2^{k-1}]$. The contrast can reach $9^q$.

    With six scales the shortest wave has a length of about 1/76: give `size` about 1023,
    and `stride` what the network shall see.

    **Arguments:** those of `darcy_two_phase`, without `field` and `values`.

    - `num_scales`: $q$.

    **Returns:** as `darcy_two_phase`. Raises `ValueError` as there.

    !!! example
        ```python
        >>> import jax, jinv
        >>> options = dict(key=jax.random.key(0), progress=False)
        >>> data = jinv.pde.darcy_multiscale(2, 33, num_scales=2, **options)
        >>> data.outputs.shape
        (2, 33, 33)

        ```

    ??? cite "Source"
        H. Owhadi, "Multigrid with rough coefficients and multiresolution operator decomposition
        from hierarchical information games", SIAM Review 59(1), 2017, for the coefficient with
        fixed frequencies; J. He, X. Liu and J. Xu, "MgNO", ICLR 2024, for the data set (1023 x
        1023, every fourth point kept). Deviations: the five-point scheme in place of linear
        finite elements; the law of the frequencies is the one reported for these files, which
        do not document it.
    """
    check_count(num_scales, "num_scales")

    def coefficient(key):
        dtype = jnp.result_type(float)
        lowest = 2.0 ** np.arange(num_scales)
        draws = jax.random.uniform(key, (num_scales,), jnp.float32).astype(dtype)
        omega = jnp.asarray(np.pi * lowest, dtype) * (1 + draws / 2)
        x = jnp.linspace(0, 1, size, dtype=dtype)[None, :, None]
        y = jnp.linspace(0, 1, size, dtype=dtype)[None, None, :]
        omega = omega[:, None, None]
        waves = (1 + jnp.cos(omega * (x + y)) / 2) * (1 + jnp.sin(omega * (y - 3 * x)) / 2)
        return jnp.prod(waves, axis=0)

    return _darcy(coefficient, num, size, key, stride, workers, progress)


def _darcy(coefficient, num, size, key, stride, workers, progress):
    check_count(size, "size", 3)
    check_stride(stride, size - 1)

    def solve(a):
        u = direct(a.astype(np.float64), 1.0)
        return a[::stride, ::stride], u[::stride, ::stride]

    inputs, outputs = solve_each(
        coefficient, solve, num, key=key, workers=workers, progress=progress
    )
    points = np.linspace(0, 1, size)[::stride]
    return as_record(inputs, outputs, (points, points))
