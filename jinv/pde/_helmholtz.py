"""Time-harmonic waves in the unit square, by bilinear finite elements and a direct solver."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ._checks import check_count, check_positive, check_square, check_stride
from ._data import OperatorData, as_record, solve_each
from ._field import GaussianField


def solve_helmholtz(
    speed: Float[ArrayLike, "rows columns"],
    source: Float[ArrayLike, "..."] | float | int = 0.0,
    flux: Float[ArrayLike, "..."] | float | int = 0.0,
    *,
    frequency: float | int,
) -> Float[Array, "rows columns"]:
    r"""Solves $-\Delta u - (\omega/c)^2 u = f$ in $(0, 1)^2$, where $\partial u/\partial n = g$ on
    the top side $y = 1$ and 0 on the others.

    Bilinear elements on $n \times n$ nodes with 3 x 3 Gauss points, of second order; about
    ten elements per wave length $2\pi c/\omega$ are the least, and more the more waves there
    are. The matrix is indefinite and may be nearly singular at a resonance. SciPy factorises it
    in float64 on the host, whatever JAX's dtype is; this cannot be traced.

    **Arguments:**

    - `speed`: $c > 0$ at the nodes, bilinear between them; entry $(i, j)$ is at $(x, y) =
        (i, j)/(n - 1)$.
    - `source`: $f$, a number or values at the nodes, bilinear between them.
    - `flux`: $g$, a number or one value for each of the $n - 1$ elements of the top side.
    - `frequency`: $\omega$.

    **Returns:** $u$ at the nodes, in JAX's default float.

    Raises `ValueError` for a grid that is not square, a speed that is not positive and finite, and
    for other arguments out of range or of other shapes.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> u = jinv.pde.solve_helmholtz(jnp.ones((33, 33)), flux=1.0, frequency=2.0)
        >>> round(float(u[0, 0]), 3)  # -1 / (2 sin 2)
        -0.55

        ```

    ??? cite "Source"
        M. V. de Hoop, D. Z. Huang, E. Qian and A. M. Stuart, "The cost-accuracy trade-off in
        operator learning with neural networks", Journal of Machine Learning 1(3), 2022. Deviation:
        the speed is bilinear between the nodes.
    """
    c = np.asarray(speed, np.float64)
    return jnp.asarray(_direct(c, source, flux, frequency), jnp.result_type(float))


def helmholtz(
    num: int,
    size: int = 101,
    *,
    key: PRNGKeyArray,
    frequency: float | int = 1000.0,
    field: GaussianField | None = None,
    stride: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> OperatorData:
    r"""Waves in a random medium: $-\Delta u - (\omega/c)^2 u = 0$ in the unit square, with
    $\partial u/\partial n = 1$ on $|x - 1/2| \leq 0.15$ of the top side and 0 elsewhere, and
    the speed $c = 20 + \tanh(g)$ with a Gaussian field $g$. The map to learn is $c \mapsto u$.

    There are about eight waves along a side of a cavity without loss, and 100 elements do not
    resolve them: three samples differed by 0.6 to 0.9 (relative, $L^2$) from those of 800
    elements. The recipe's map is that of its scheme, not of the equation.

    **Arguments:**

    - `num`: samples.
    - `size`: nodes along each side; 101 in the published data, of 40,000 samples. The
        ends of the source, 0.35 and 0.65, are moved to nodes.
    - `key`: a JAX PRNG key.
    - `frequency`: $\omega$.
    - `field`: $g$; by default the 100 lowest modes of $N(0, (-\Delta + 9)^{-2})$, Neumann.
    - `stride`: keep every `stride`-th node; must divide `size - 1`.
    - `workers`: threads that solve at the same time.
    - `progress`: show a tqdm bar.

    **Returns:** [`jinv.pde.OperatorData`][]: inputs $c$ and outputs $u$ of shape `(num, n, n)`,
    $n = 1 + (\text{size} - 1)/\text{stride}$, entry `[i, j]` at $(x, y) = (i, j)/(n - 1)$.

    Raises `ValueError` for numbers out of range.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.helmholtz(2, 21, frequency=200, key=jax.random.key(0), progress=False)
        >>> data.outputs.shape
        (2, 21, 21)

        ```

    ??? cite "Source"
        M. V. de Hoop, D. Z. Huang, E. Qian and A. M. Stuart, "The cost-accuracy trade-off in
        operator learning with neural networks", Journal of Machine Learning 1(3), 2022, and the
        code published with it, whose $\tanh$ the text does not have.
    """
    check_count(size, "size", 3)
    check_stride(stride, size - 1)
    check_positive(frequency, "frequency")
    field = GaussianField(2, 3, 1, num_modes=100) if field is None else field
    centres = (np.arange(size - 1) + 0.5) / (size - 1)
    flux = (np.abs(centres - 0.5) < 0.15).astype(float)

    def solve(c):
        u = _direct(c.astype(np.float64), 0.0, flux, frequency)
        return c[::stride, ::stride], u[::stride, ::stride]

    speed = lambda key: 20 + jnp.tanh(field.sample((size, size), key=key))
    inputs, outputs = solve_each(speed, solve, num, key=key, workers=workers, progress=progress)
    points = np.linspace(0, 1, size)[::stride]
    return as_record(inputs, outputs, (points, points))


def _direct(c, source, flux, frequency):
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    check_square(c, "speed")
    if not (np.isfinite(c).all() and (c > 0).all()):
        raise ValueError(
            f"`speed` must be positive and finite, got values from {c.min()} to {c.max()}."
        )
    check_positive(frequency, "frequency")
    cells = len(c) - 1
    f = _values("source", source, c.shape)
    g = _values("flux", flux, (cells,))
    ids = np.arange(c.size).reshape(c.shape)
    # The corners of each element, in the order (0, 0), (0, 1), (1, 0), (1, 1).
    corners = [ids[i : i + cells, j : j + cells].ravel() for i in (0, 1) for j in (0, 1)]
    corners = np.stack(corners, axis=1)
    shapes, stiffness, weights = _reference()
    square = (frequency / (c.ravel()[corners] @ shapes.T)) ** 2
    products = shapes[:, :, None] * shapes[:, None, :]
    mass = np.einsum("eg,g,gij->eij", square, weights, products) / cells**2
    rows, columns = np.repeat(corners, 4, axis=1), np.tile(corners, (1, 4))
    values = (stiffness[None] - mass).ravel()
    shape = (c.size, c.size)
    matrix = coo_array((values, (rows.ravel(), columns.ravel())), shape=shape).tocsc()
    loads = np.einsum("eg,g,gi->ei", f.ravel()[corners] @ shapes.T, weights, shapes) / cells**2
    rhs = np.bincount(corners.ravel(), loads.ravel(), c.size).reshape(c.shape)
    rhs[:-1, -1] += g / (2 * cells)
    rhs[1:, -1] += g / (2 * cells)
    return splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(rhs.ravel()).reshape(c.shape)


def _values(name, value, shape):
    value = np.asarray(value, np.float64)
    if value.shape not in ((), shape) or not np.isfinite(value).all():
        raise ValueError(
            f"`{name}` must be finite, a number or of shape {shape}, got shape {value.shape}."
        )
    return np.broadcast_to(value, shape)


def _reference():
    """On the unit square: the four shape functions at 3 x 3 Gauss points, the stiffness matrix,
    which does not depend on the size in 2-D, and the weights of the points."""
    points, weights = np.polynomial.legendre.leggauss(3)
    points, weights = (points + 1) / 2, weights / 2
    line = np.stack([1 - points, points], axis=1)
    slope = np.array([[-1.0, 1.0]] * 3)
    tensor = lambda a, b: np.einsum("gi,hj->ghij", a, b).reshape(9, 4)
    weights = np.outer(weights, weights).ravel()
    gradients = np.stack([tensor(slope, line), tensor(line, slope)])
    stiffness = np.einsum("g,dgi,dgj->ij", weights, gradients, gradients)
    return tensor(line, line), stiffness, weights
