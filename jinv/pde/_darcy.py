"""Darcy flow on the unit square: the five-point scheme on nodes, and a direct solver for it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..linear import Diffusion
from ._checks import check_square


def darcy_operator(coefficient: Float[Array, "rows columns"]) -> Diffusion:
    r"""The five-point matrix of $-\nabla\cdot(a\nabla u)$ on the inner nodes of the unit square,
    with $u = 0$ on the boundary:
    $h^{-2} \sum_{j \sim i} \tfrac12 (a_i + a_j) (u_i - u_j)$, $h = 1/(n - 1)$.

    The same scheme as [`jinv.pde.solve_darcy`][], matrix-free: for `jit`, `vmap`, derivatives with
    respect to the coefficient, the GPU, and grids too large for a direct solver. Solve with
    [`jinv.linear.PCG`][] and [`jinv.linear.Multigrid`][].

    **Arguments:**

    - `coefficient`: $a > 0$ at all $n \times n$ nodes; entry $(i, j)$ is at $(ih, jh)$.

    **Returns:** a [`jinv.linear.Diffusion`][] on $(n - 2) \times (n - 2)$ nodes.

    Raises `ValueError` if the grid is not square or has less than 3 x 3 nodes.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.pde.darcy_operator(jnp.ones((33, 33)))
        >>> solver = jinv.linear.PCG(rtol=1e-5, atol=0.0)
        >>> u = lx.linear_solve(A, jnp.ones((31, 31)), solver).value
        >>> round(float(u.max()), 3)  # 0.0737 in the limit
        0.074

        ```
    """
    check_square(coefficient, "coefficient")
    across, along = _faces(coefficient)
    scale = (coefficient.shape[-1] - 1) ** 2
    return Diffusion([scale * across, scale * along])


def solve_darcy(
    coefficient: Float[ArrayLike, "rows columns"],
    source: Float[ArrayLike, "..."] | float | int = 1.0,
) -> Float[Array, "rows columns"]:
    r"""Solves $-\nabla\cdot(a\nabla u) = f$ in $(0, 1)^2$, $u = 0$ on the boundary.

    The system of [`jinv.pde.darcy_operator`][] is factorised by SciPy in float64 on the host,
    whatever JAX's dtype is, so the error is the scheme's alone also for contrasts of $10^6$:
    $O(h^2)$ for smooth coefficients. It costs about $O(n^3)$ time and $O(n^2 \log n)$ memory, and
    cannot be traced. With jumps of the coefficient between nodes the order is one.

    **Arguments:**

    - `coefficient`: $a > 0$ at the nodes; entry $(i, j)$ is at $(i, j)/(n - 1)$.
    - `source`: $f$, a number or values at the nodes, of which those of the boundary are not used.

    **Returns:** $u$ at the nodes, in JAX's default float; exactly zero on the boundary.

    Raises `ValueError` if the grid is not square, a coefficient is not positive and finite, or
    `source` is not finite or has another shape.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> round(float(jinv.pde.solve_darcy(jnp.ones((65, 65))).max()), 4)
        0.0737

        ```

    ??? cite "Source"
        The scheme of the data generation of Z. Li et al., "Fourier Neural Operator for
        Parametric Partial Differential Equations", ICLR 2021.
    """
    a = np.asarray(coefficient, np.float64)
    return jnp.asarray(direct(a, source), jnp.result_type(float))


def direct(a: np.ndarray, source) -> np.ndarray:
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    check_square(a, "coefficient")
    if not (np.isfinite(a).all() and (a > 0).all()):
        raise ValueError(
            f"`coefficient` must be positive and finite, got values from {a.min()} to {a.max()}."
        )
    f = np.asarray(source, np.float64)
    if f.shape not in ((), a.shape) or not np.isfinite(f).all():
        raise ValueError(f"`source` must be finite, a number or of shape {a.shape}, got {source}.")
    inner = len(a) - 2
    across, along = _faces(a)
    main = across[1:] + across[:-1] + along[:, 1:] + along[:, :-1]
    right = np.zeros_like(main)  # of each node; the last of a line has no right neighbour
    right[:, :-1] = -along[:, 1:-1]
    below, right = -across[1:-1].ravel(), right.ravel()[:-1]
    diagonals = [main.ravel(), right, right, below, below]
    offsets: Any = [0, 1, -1, inner, -inner]
    matrix = diags_array(diagonals, offsets=offsets, format="csc")
    options = {"SymmetricMode": True}  # positive definite: no pivots, half the fill
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    rhs = np.broadcast_to(f, a.shape)[1:-1, 1:-1] / (len(a) - 1) ** 2
    u = np.zeros_like(a)
    u[1:-1, 1:-1] = factors.solve(rhs.ravel()).reshape(inner, inner)
    return u


def _faces(a):
    """The means of neighbouring coefficients on the edges of the grid that leave inner nodes."""
    return (a[1:, 1:-1] + a[:-1, 1:-1]) / 2, (a[1:-1, 1:] + a[1:-1, :-1]) / 2
