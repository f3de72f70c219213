"""Sparse matrices whose products are whole-array operations."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.experimental import sparse as jsparse
from jaxtyping import Array, Float, Int

from .. import _tree
from ..operators._base import AbstractOperator
from ..operators._checks import as_inexact, check_choice, check_vector
from ._diffusion import Diffusion


class SparseMatrix(AbstractOperator):
    r"""A sparse matrix with a fixed pattern, $y_i = \sum_{j} a_{ij} x_j$.

    For matrices from elsewhere: finite elements, graphs, `scipy.sparse` and `BCOO`. The entries
    are not stored row by row, but so that one product is a few passes over whole vectors: the
    `k`-th entries of all rows side by side (`"rows"`; what is left of unusually long rows goes
    into a sorted sum), or the `k`-th diagonals (`"diagonals"`, for matrices from grids). On two
    CPU cores that takes 0.3 to 1.3 times SciPy's time and is 1.5 to 4 times as fast as `BCOO`;
    for a problem on a grid, [`jinv.linear.Diffusion`][] needs no matrix at all.

    **Arguments:**

    - `matrix`: real, two-dimensional: from `scipy.sparse`, a `BCOO`, a dense array, or any
        operator that [`jinv.linear.to_scipy`][] takes. Explicit zeros stay in the pattern.
        The pattern must be concrete; the values of a traced one come in by `with_values`.
    - `tags`: lineax's, such as `lineax.positive_semidefinite_tag`. Only what can be checked is:
        the matrix must be square and symmetric, and the sign of its diagonal must fit.
    - `layout`: `"rows"`, `"diagonals"`, or `"auto"`, which takes diagonals where they are few
        and mostly full.

    **Returns** (of `mv`): a vector of shape `(rows,)`. Products with the transpose of a matrix
    that is not tagged symmetric scatter, and take 2 to 3 times as long.

    Raises `ValueError` for a matrix that is not real, not finite, not two-dimensional, or not
    what its tags say.

    Source: Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2003, section 3.4
    (Ellpack-Itpack and diagonal formats).

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, scipy.sparse, jinv
        >>> A = scipy.sparse.csr_array([[2.0, -1.0], [-1.0, 2.0]])
        >>> A = jinv.linear.SparseMatrix(A, lx.positive_semidefinite_tag)
        >>> print(lx.linear_solve(A, jnp.array([1.0, 0.0]), jinv.linear.PCG(1e-6, 0.0)).value)
        [0.6666667  0.33333334]

        ```
    """

    slots: Float[Array, "width rows"]
    rest: Float[Array, " left"]
    columns: Int[Array, "width rows"] | None
    place: tuple[Int[Array, " left"], Int[Array, " left"]]
    order: Int[Array, " entries"]
    offsets: tuple[int, ...] | None = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, matrix: Any, tags: object | Iterable[object] = (), *, layout: str = "auto"):
        csr = to_scipy(matrix)
        self.tags = frozenset(tags) if isinstance(tags, Iterable) else frozenset([tags])
        check_tags(csr, self.tags)
        check_choice(layout, ("auto", "rows", "diagonals"), "layout")
        self.shape = csr.shape
        offsets = _offsets(csr)
        if layout == "auto":
            few = len(offsets) <= 64 and len(offsets) * csr.shape[0] <= 2 * csr.nnz
            layout = "diagonals" if few and csr.shape[0] == csr.shape[1] else "rows"
        self.offsets = tuple(map(int, offsets)) if layout == "diagonals" else None
        arrange = _by_diagonal if layout == "diagonals" else _by_row
        order, width, self.columns, self.place = arrange(csr, offsets)
        self.order = jnp.asarray(order, jnp.int32)
        data = np.zeros(width * csr.shape[0] + self.place[0].size, csr.dtype)
        data[order] = csr.data
        slots, rest = np.split(data, [width * csr.shape[0]])
        self.slots, self.rest = jnp.asarray(slots.reshape(width, -1)), jnp.asarray(rest)

    @property
    def values(self) -> Float[Array, " entries"]:
        """The entries, row by row and in each row by column."""
        return jnp.concatenate([self.slots.ravel(), self.rest])[self.order]

    def with_values(self, values: Float[Array, " entries"]) -> "SparseMatrix":
        """The matrix of the same pattern with other entries, which may be traced. Whether they
        are what the tags say is not checked."""
        if values.shape != self.order.shape:
            raise ValueError(f"values must have shape {self.order.shape}, got {values.shape}.")
        data = jnp.zeros(self.slots.size + self.rest.size, values.dtype)
        data = data.at[self.order].set(values, unique_indices=True)
        slots, rest = data[: self.slots.size].reshape(self.slots.shape), data[self.slots.size :]
        return eqx.tree_at(lambda matrix: (matrix.slots, matrix.rest), self, (slots, rest))

    def indices(self) -> tuple[Int[Array, " entries"], Int[Array, " entries"]]:
        """The rows and the columns of `values`."""
        rows = jnp.broadcast_to(jnp.arange(self.shape[0], dtype=jnp.int32), self.slots.shape)
        if self.columns is not None:
            columns = self.columns
        else:
            columns = rows + jnp.asarray(self.offsets, jnp.int32)[:, None]
        pairs = zip((rows, columns), self.place, strict=True)
        rows, columns = (jnp.concatenate([x.ravel(), y])[self.order] for x, y in pairs)
        return rows, columns

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "SparseMatrix")
        if self.offsets is not None:
            return _diagonal_product(self.slots, self.offsets, vector)
        y = _row_product(self.slots, self.columns, vector)
        if self.rest.size:
            rows, columns = self.place
            y = y.at[rows].add(self.rest * vector[columns], indices_are_sorted=True)
        return y

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "the adjoint of SparseMatrix")
        zeros = jnp.zeros(self.shape[1], self.slots.dtype)
        return jax.linear_transpose(self.mv, zeros)(vector)[0]

    def transpose(self):
        return self if lx.is_symmetric(self) else super().transpose()

    def in_structure(self):
        return _tree.structure(self.shape[1:], self.slots.dtype)

    def out_structure(self):
        return _tree.structure(self.shape[:1], self.slots.dtype)

    def diagonal(self) -> Float[Array, " rows"]:
        """The diagonal of a square matrix."""
        rows, columns = self.indices()
        entries = jnp.where(rows == columns, self.values, 0)
        return jnp.zeros(self.shape[0], entries.dtype).at[rows].add(entries)


_KNOWN_TAGS = {
    lx.symmetric_tag: lx.is_symmetric,
    lx.positive_semidefinite_tag: lx.is_positive_semidefinite,
    lx.negative_semidefinite_tag: lx.is_negative_semidefinite,
}
lx.is_symmetric.register(SparseMatrix, lambda operator: bool(operator.tags))
for _tag, _query in list(_KNOWN_TAGS.items())[1:]:
    _query.register(SparseMatrix, lambda operator, tag=_tag: tag in operator.tags)
lx.conj.register(SparseMatrix, lambda operator: operator)
lx.diagonal.register(SparseMatrix, lambda operator: operator.diagonal())


def to_scipy(operator: Any) -> Any:
    """The matrix of an operator as a `scipy.sparse.csr_array`, on the host.

    **Arguments:**

    - `operator`: a [`jinv.linear.Diffusion`][] (every pair of neighbours gets an entry, an
        explicit zero where the face is closed, so that the pattern depends on the grid only), a
        [`jinv.linear.SparseMatrix`][], a matrix of `scipy.sparse`, a `BCOO`, a dense array, or
        another lineax operator, of which the dense matrix is made. Concrete.

    **Returns:** the matrix in canonical form (sorted, no duplicates), of a floating-point dtype.

    Raises `ValueError` for what is traced, complex, not two-dimensional or not finite.

    !!! example
        ```python
        >>> import jinv
        >>> print(jinv.linear.to_scipy(jinv.linear.poisson(3)).toarray())
        [[ 2. -1.  0.]
         [-1.  2. -1.]
         [ 0. -1.  2.]]

        ```
    """
    import scipy.sparse as sp

    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operator)):
        raise ValueError(
            "the matrix must be concrete, got a traced one: make it outside of jit, and put "
            "traced values in with `SparseMatrix.with_values`."
        )
    if isinstance(operator, lx.TaggedLinearOperator):
        return to_scipy(operator.operator)
    matrix: Any
    if isinstance(operator, Diffusion):
        matrix = _assemble(operator)
    elif isinstance(operator, SparseMatrix):
        place = tuple(map(np.asarray, operator.indices()))
        matrix = sp.coo_array((np.asarray(operator.values), place), shape=operator.shape)
    elif isinstance(operator, jsparse.BCOO):
        if operator.n_batch or operator.n_dense:
            raise ValueError(f"matrix must be an unbatched BCOO, got {operator}.")
        place = tuple(np.asarray(operator.indices).T)
        matrix = sp.coo_array((np.asarray(operator.data), place), shape=operator.shape)
    elif isinstance(operator, lx.AbstractLinearOperator):
        matrix = np.asarray(operator.as_matrix())
    else:
        matrix = operator if sp.issparse(operator) else np.asarray(operator)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"matrix must be two-dimensional and not empty, got {matrix.shape}.")
    if not jnp.issubdtype(matrix.dtype, jnp.inexact):
        matrix = matrix.astype(as_inexact(None))
    dtype = as_inexact(matrix.dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"matrix must be real, got {dtype}.")
    csr = sp.csr_array(matrix, dtype=dtype, copy=True)
    csr.sum_duplicates()
    if not np.isfinite(csr.data).all():
        raise ValueError("matrix must be finite, got NaN or infinity.")
    return csr


def _assemble(operator):
    import scipy.sparse as sp

    ids = np.arange(operator.sink.size).reshape(operator.shape)
    rows, columns = [ids.ravel()], [ids.ravel()]
    values = [np.asarray(operator.diagonal()).ravel()]
    for axis, w in enumerate(operator.faces):
        low, high = np.delete(ids, -1, axis).ravel(), np.delete(ids, 0, axis).ravel()
        inner = -np.split(np.asarray(w), [1, operator.shape[axis]], axis=axis)[1].ravel()
        rows += [low, high]
        columns += [high, low]
        values += [inner, inner]
    place = np.concatenate(rows), np.concatenate(columns)
    return sp.coo_array((np.concatenate(values), place), shape=(ids.size, ids.size))


def check_tags(csr: Any, tags: frozenset[object]) -> None:
    """Raises unless a SciPy matrix can be what the tags say."""
    if not tags <= set(_KNOWN_TAGS):
        raise ValueError(
            "tags must be among lineax's symmetric_tag, positive_semidefinite_tag and "
            f"negative_semidefinite_tag, got {set(tags)}."
        )
    if not tags:
        return
    if csr.shape[0] != csr.shape[1]:
        raise ValueError(f"a matrix with tags {set(tags)} must be square, got {csr.shape}.")
    # Rounding of an assembly that adds in another order above than below the diagonal.
    slack = 100 * np.finfo(csr.dtype).eps * abs(csr).max()
    if abs(csr - csr.T).max() > slack:
        raise ValueError(f"a matrix with tags {set(tags)} must be symmetric, and it is not.")
    for tag, sign in ((lx.positive_semidefinite_tag, 1), (lx.negative_semidefinite_tag, -1)):
        if tag in tags and (sign * csr.diagonal() < 0).any():
            raise ValueError(f"the diagonal has the wrong sign for a matrix with {tag}.")


def _entries(csr):
    """The rows, the columns, and the place of each entry in its row."""
    counts = np.diff(csr.indptr)
    rows = np.repeat(np.arange(csr.shape[0]), counts)
    return rows, csr.indices.astype(int), np.arange(csr.nnz) - np.repeat(csr.indptr[:-1], counts)


def _offsets(csr):
    rows, columns, _ = _entries(csr)
    return np.unique(columns - rows)


def _by_diagonal(csr, offsets):
    rows, columns, _ = _entries(csr)
    order = np.searchsorted(offsets, columns - rows) * csr.shape[0] + rows
    nothing = jnp.zeros(0, jnp.int32)
    return order, len(offsets), None, (nothing, nothing)


def _by_row(csr, _):
    """Where the entries go, the number of slots, the columns in them; and the place of what is
    left."""
    rows, columns, slot = _entries(csr)
    n = csr.shape[0]
    # An entry that is left takes about as long as three in slots.
    longer = n - np.cumsum(np.bincount(np.diff(csr.indptr)))  # rows of more than w entries
    left = np.cumsum(longer[::-1])[::-1]  # entries beyond the first w of their row
    width = max(1, int(np.argmin(n * np.arange(left.size) + 3 * left)))
    inside = slot < width
    padded = np.zeros((width, n), np.int32)
    padded[slot[inside], rows[inside]] = columns[inside]
    order = slot * n + rows
    order[~inside] = width * n + np.arange((~inside).sum())
    rest = (jnp.asarray(rows[~inside], jnp.int32), jnp.asarray(columns[~inside], jnp.int32))
    return order, width, jnp.asarray(padded), rest


def _row_product(slots, columns, x):
    return _accumulate(lambda place: x.at[place].get(mode="promise_in_bounds"), slots, columns)


def _diagonal_product(slots, offsets, x):
    rows = slots.shape[1]
    before, after = max(0, -offsets[0]), max(0, rows + offsets[-1] - x.size)
    x = jnp.pad(x, (before, after))
    starts = np.asarray(offsets, np.int32) + np.int32(before)
    return _accumulate(lambda start: jax.lax.dynamic_slice(x, (start,), (rows,)), slots, starts)


def _accumulate(gather, slots, places):
    def add(y, slot):
        values, place = slot
        return y + values * gather(place), None

    y = jnp.zeros(slots.shape[1], slots.dtype)
    if len(slots) > 64:  # for the sake of compile time
        return jax.lax.scan(add, y, (slots, places))[0]
    for k in range(len(slots)):
        y, _ = add(y, (slots[k], places[k]))
    return y
