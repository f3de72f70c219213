"""Work in matvec equivalents: matrix entries touched, over the entries of the system's matrix.

One product with A is one. What is counted: every operator product of a solve, that is those
of the iteration, of its preconditioner (smoothing, residuals and transfers of all levels, the
triangular solves of a factorisation) and of checks of the residual. What is not: inner products
and sums of vectors, and the set-up. These are the formulas for SciPy's and pyamg's structures;
`_work_jax.py` counts in the programs of JAX.
"""

from typing import Any

import numpy as np


def cycle_entries(hierarchy: Any) -> float:
    """Entries touched by one V-cycle of a pyamg hierarchy with its default smoothing.

    Before and after the coarse correction, a symmetric Gauss-Seidel sweep (forward and
    backward: two passes over the level's matrix), one residual, the restriction and the
    prolongation; on the coarsest level, a product with the dense pseudo-inverse.
    """
    total = 0.0
    for level in hierarchy.levels[:-1]:
        total += (2 + 2 + 1) * level.A.nnz + level.R.nnz + level.P.nnz
    return total + hierarchy.levels[-1].A.shape[0] ** 2


def transform_entries(unknowns: int) -> float:
    """Real multiplications of a fast cosine or sine transform there and back, with the division
    by the eigenvalues between: n log2(n) + n, half of n log2(n) for each transform."""
    return unknowns * (np.log2(unknowns) + 1)
