"""Algebraic multigrid for sparse matrices: set up on the host, applied in JAX."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..operators._checks import as_inexact, check_choice
from ._aggregation import galerkin, inverse_bound, smoothed_aggregation
from ._preconditioner import AbstractPreconditioner, AbstractSymmetricPositive
from ._read_off import Colouring, flat_product
from ._sparse import SparseMatrix, check_tags, to_scipy


class AlgebraicMultigrid(AbstractPreconditioner):
    r"""One cycle of algebraic multigrid, a symmetric positive definite approximation of
    $A^{-1}$: on every level $M^{-1} = 2S - SAS + (I - SA)\, P M_c^{-1} P^T (I - AS)$, with the
    Galerkin matrix $A_c = P^T A P$ on the next one and the (pseudo-)inverse on the last.

    For sparse matrices without a grid, or with coefficients that a grid's own multigrid does
    not see. The hierarchy is made once, on the host, with NumPy and SciPy; that takes about as
    long as pyamg's. The smoother $S$ is a polynomial in $D_v^{-1} A$, the Chebyshev polynomial
    of the fourth kind for the spectrum $(0, 1]$, where $D_v = \mathrm{diag}(|A| v) / v$ with
    $v_i = a_{ii}^{-1/2}$. As $A \preceq D_v$ for every positive $v$, no eigenvalue is
    estimated, and the cycle is positive definite whatever the prolongations are. A cycle costs
    `2 degree` products on every level; all levels together have 1.2 to 2 times the entries of
    the matrix.

    **Arguments:**

    - `matrix`: symmetric positive (semi-)definite: a [`jinv.linear.Diffusion`][], or anything
        else that [`jinv.linear.to_scipy`][] takes. Concrete, with `n` unknowns.
    - `setup`: `"smoothed_aggregation"`, or a function of the SciPy matrix that returns the
        prolongations, finest first, or an object with pyamg's `levels`, such as
        `pyamg.ruge_stuben_solver` (a good choice for scalar problems with jumps).
    - `near_null_space`: vectors that the operator nearly annihilates, shape `(k, ...)`: the
        coarse levels represent them. Constants by default; rigid motions for elasticity. Only
        for smoothed aggregation, as are the next two.
    - `block_size`: the number of consecutive unknowns that belong to one node.
    - `threshold`: how small a link between two unknowns may be, relative to the largest ones
        that they have (their geometric mean), to make them neighbours; halved on every level.
    - `degree`: the degree of `S`; 1 is damped Jacobi.
    - `cycle`: `"V"` or `"W"`, which visits every coarse level twice.
    - `refresh`: a solve takes the values of its own operator, which must have the pattern of
        `matrix`; otherwise those of `matrix`. The prolongations stay. Each level's matrix is
        read off from some 10 to 40 products with sums of its columns that do not meet: about
        the cost of a few cycles, in every solve, in JAX; this is traced, batched and
        differentiable. Where coefficients move far, set up anew.
    - `dtype`: that of the cycle. float32 inside a float64 solve saves half the time.

    Raises `ValueError` for a matrix that is not symmetric, and for arguments that do not fit;
    in `init` for an operator of another size.

    Sources: P. Vaněk, J. Mandel and M. Brezina, *Algebraic multigrid by smoothed aggregation*,
    1996; J. Lottes, *Optimal polynomial smoothers for multigrid V-cycles*, 2022; A. Curtis,
    M. Powell and J. Reid, *On the estimation of sparse Jacobian matrices*, 1974, for the
    refreshing. Deviations: $D_v$ in the place of an estimated spectral radius; links are
    compared with the largest of their row instead of the diagonal, which depends on how many
    they are.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((64, 64))
        >>> preconditioner = jinv.linear.AlgebraicMultigrid(A)
        >>> solver = jinv.linear.PCG(1e-5, 0.0, preconditioner=preconditioner)
        >>> solution = lx.linear_solve(A, jnp.ones((64, 64)), solver)
        >>> bool(solution.stats["num_steps"] < 12)
        True

        ```
    """

    levels: tuple["_Level", ...]
    inverse: Float[Array, "m m"]
    degree: int = eqx.field(static=True)
    cycle: str = eqx.field(static=True)
    refresh: bool = eqx.field(static=True)

    def __init__(
        self,
        matrix: Any,
        *,
        setup: str | Callable[[Any], Any] = "smoothed_aggregation",
        near_null_space: Float[Array | np.ndarray, "k *shape"] | None = None,
        block_size: int = 1,
        threshold: float = 0.25,
        degree: int = 2,
        cycle: str = "V",
        refresh: bool = False,
        dtype: Any = None,
    ):
        check_choice(cycle, ("V", "W"), "cycle")
        if degree < 1:
            raise ValueError(f"degree must be at least 1, got {degree}.")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be at least 0 and below 1, got {threshold}.")
        csr = to_scipy(matrix)
        check_tags(csr, frozenset([lx.positive_semidefinite_tag]))
        dtype = as_inexact(csr.dtype if dtype is None else dtype)
        csr = csr.astype(np.float64)
        if callable(setup):
            made = setup(_without_zeros(csr))
            made = [level.P for level in made.levels[:-1]] if hasattr(made, "levels") else made
        else:
            check_choice(setup, ("smoothed_aggregation",), "setup")
            n = csr.shape[0]
            if block_size < 1 or n % block_size:
                raise ValueError(f"block_size must divide the {n} unknowns, got {block_size}.")
            candidates = _candidates(near_null_space, n)
            made = smoothed_aggregation(_without_zeros(csr), candidates, block_size, threshold)
        levels = []
        for prolongation in made:
            P = _as_prolongation(prolongation, csr.shape[0])
            levels.append(_level(csr, P, dtype, refresh))
            coarse = galerkin(csr, P)
            if refresh:
                coarse = _with_zeros(coarse, galerkin(_pattern(csr), _pattern(P)))
            csr = coarse
        if csr.shape[0] > _MOST:
            raise ValueError(
                f"the coarsest level has {csr.shape[0]} unknowns, too many for its inverse: "
                "lower threshold, or let setup coarsen further."
            )
        self.levels = tuple(levels)
        self.inverse = jnp.asarray(np.linalg.pinv(csr.toarray(), hermitian=True), dtype)
        self.degree, self.cycle, self.refresh = degree, cycle, refresh

    def init(self, operator):
        structure = operator.in_structure()
        unknowns = sum(leaf.size for leaf in jax.tree.leaves(structure))
        expected = self.levels[0].scaling.size if self.levels else self.inverse.shape[0]
        if unknowns != expected:
            raise ValueError(
                f"AlgebraicMultigrid was set up for {expected} unknowns, got an operator of "
                f"{unknowns}."
            )
        levels, inverse = self.levels, self.inverse
        if self.refresh:
            levels, inverse = _refreshed(levels, flat_product(operator, inverse.dtype), inverse)
        return _Cycle(levels, inverse, self.degree, self.cycle, structure)


# The most unknowns of a level that is solved densely.
_MOST = 4000


class _Level(eqx.Module):
    matrix: SparseMatrix
    prolongation: SparseMatrix
    restriction: SparseMatrix
    scaling: Float[Array, " n"]
    colouring: Colouring | None


class _Cycle(AbstractSymmetricPositive):
    levels: tuple[_Level, ...]
    inverse: Float[Array, "m m"]
    degree: int = eqx.field(static=True)
    cycle: str = eqx.field(static=True)
    structure: PyTree[jax.ShapeDtypeStruct] = eqx.field(static=True)

    def mv(self, vector):
        flat, unravel = jax.flatten_util.ravel_pytree(vector)
        return unravel(self._descend(0, flat.astype(self.inverse.dtype)).astype(flat.dtype))

    def _descend(self, depth, b):
        if depth == len(self.levels):
            return self.inverse @ b
        level = self.levels[depth]
        x, rest = self._smooth_from_zero(level, b)
        down = level.restriction.mv(rest)
        if self.cycle == "W" and depth + 1 < len(self.levels):
            product = self.levels[depth + 1].matrix.mv
            visit = lambda _, x: x + self._descend(depth + 1, down - product(x))
            coarse = jax.lax.fori_loop(0, 2, visit, jnp.zeros_like(down))
        else:
            coarse = self._descend(depth + 1, down)
        return self._smooth_on(level, x, rest, level.prolongation.mv(coarse))

    # Chebyshev polynomials of the fourth kind, for the spectrum (0, 1]. Every product stands in
    # a loop of its own: XLA fuses chains of products, and computes them again for each entry.
    def _smooth_from_zero(self, level, b):
        """The smoother's value and its residual, by `degree` products."""

        def body(k, carry):
            x, step, residual = carry
            x, residual = x + step, residual - level.matrix.mv(step)
            return x, _next_step(k + 1, step, level.scaling * residual), residual

        first = _next_step(1, jnp.zeros_like(b), level.scaling * b)
        carry = jnp.zeros_like(b), first, b
        x, _, residual = jax.lax.fori_loop(1, self.degree + 1, body, carry)
        return x, residual

    def _smooth_on(self, level, x, residual, step):
        """The value after the correction `step` and the smoother, by `degree` products."""

        def body(k, carry):
            x, step, residual = carry
            residual = residual - level.matrix.mv(step)
            step = _next_step(k, step, level.scaling * residual)
            return x + step, step, residual

        return jax.lax.fori_loop(1, self.degree + 1, body, (x + step, step, residual))[0]

    def in_structure(self):
        return self.structure


def _next_step(k, step, scaled):
    k = jnp.asarray(k, step.dtype)
    kept = jnp.where(k == 1, 0, (2 * k - 3) / (2 * k + 1))
    return kept * step + (8 * k - 4) / (2 * k + 1) * scaled


def _without_zeros(csr):
    import scipy.sparse as sp

    matrix = sp.csr_matrix(csr, copy=True)
    matrix.eliminate_zeros()
    return matrix


def _candidates(near_null_space, n):
    if near_null_space is None:
        return np.ones((n, 1))
    vectors = np.asarray(near_null_space, np.float64)
    vectors = vectors.reshape(len(vectors), -1) if vectors.ndim > 1 else vectors
    if vectors.ndim != 2 or vectors.shape[1] != n or not np.isfinite(vectors).all():
        raise ValueError(
            f"near_null_space must hold finite vectors of {n} entries along a first axis, got "
            f"shape {np.shape(near_null_space)}."
        )
    return vectors.T


def _as_prolongation(prolongation: Any, n: int) -> Any:
    import scipy.sparse as sp

    P: Any = sp.csr_array(prolongation)
    P.sum_duplicates()
    if P.shape[0] != n or not 0 < P.shape[1] < n:
        raise ValueError(
            f"setup must return prolongations from fewer unknowns to {n}, got shape {P.shape}."
        )
    return P


def _pattern(csr: Any) -> Any:
    import scipy.sparse as sp

    return sp.csr_array((np.ones(csr.nnz), csr.indices, csr.indptr), shape=csr.shape)


def _with_zeros(csr: Any, pattern: Any) -> Any:
    """The matrix with explicit zeros where only the pattern has entries."""
    import scipy.sparse as sp

    both = csr.tocoo(), pattern.tocoo()
    values = np.concatenate([both[0].data, np.zeros(both[1].nnz)])
    place = [np.concatenate(pair) for pair in zip(both[0].coords, both[1].coords, strict=True)]
    return sp.coo_array((values, tuple(place)), shape=csr.shape).tocsr()


def _level(csr, P, dtype, refresh):
    return _Level(
        matrix=SparseMatrix(csr.astype(dtype), lx.positive_semidefinite_tag),
        prolongation=SparseMatrix(P.astype(dtype)),
        restriction=SparseMatrix(P.T.astype(dtype)),
        scaling=jnp.asarray(inverse_bound(csr), dtype),
        colouring=Colouring(csr) if refresh else None,
    )


def _refreshed(levels, product, inverse):
    """The levels with the values of the operator whose product with a vector is `product`."""
    made = []
    for level in levels:
        matrix = level.colouring.read_off(level.matrix, product)
        made.append(eqx.tree_at(lambda l: (l.matrix, l.scaling), level, (matrix, _bound(matrix))))
        product = lambda x, level=made[-1]: level.restriction.mv(
            level.matrix.mv(level.prolongation.mv(x))
        )
    dense = jax.lax.map(product, jnp.eye(len(inverse), dtype=inverse.dtype))
    return tuple(made), jnp.linalg.pinv((dense + dense.T) / 2, hermitian=True)


def _bound(matrix):
    """As `inverse_bound`, in JAX."""
    diagonal = matrix.diagonal()
    root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    total = root * matrix.with_values(jnp.abs(matrix.values)).mv(1 / root)
    return jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 1)
