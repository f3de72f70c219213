"""Finite-volume diffusion on structured grids: the five- and seven-point operators."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Shaped

from .. import _tree
from ..operators._base import AbstractOperator
from ..operators._checks import as_inexact, as_shape, check_vector


class Diffusion(AbstractOperator):
    r"""Diffusion between the cells of a 1-, 2- or 3-D grid, with a sink in every cell:
    $(A x)_i = s_i x_i + \sum_{j \sim i} w_{ij} (x_i - x_j)$.

    Symmetric and positive semi-definite. The first and the last face along an axis lead to a
    value of zero (Dirichlet); a face of weight zero is closed (Neumann). The sink is the place
    of Dirichlet cells inside the grid and of a Helmholtz shift. The constructors of the usual
    cases are [`jinv.linear.poisson`][], [`jinv.linear.heterogeneous_diffusion`][] and
    [`jinv.linear.pressure_poisson`][]. One product reads every weight once; with the
    differences taken first, its rounding error is that of a gradient.

    **Arguments:**

    - `faces`: one non-negative array per axis, with one entry more than the grid has cells
        along that axis: entry `i` is the weight of the face between cells `i - 1` and `i`.
    - `sink`: non-negative, of the shape of the grid; zero by default.

    **Returns** (of `mv`): an array of the shape of the grid.

    Raises `ValueError` for weights that are negative, not finite or of the wrong shape or
    dtype. Without sink and Dirichlet faces, and for every region that is cut off from both,
    constants are in the null space: see [`jinv.linear.null_space`][].

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.linear.Diffusion([jnp.ones(4)])
        >>> A.mv(jnp.array([1.0, 2.0, 4.0]))
        Array([ 0., -1.,  6.], dtype=float32)

        ```
    """

    faces: tuple[Float[Array, "..."], ...]
    sink: Float[Array, "..."]

    def __init__(
        self,
        faces: Sequence[Shaped[Array | np.ndarray, "..."]],
        sink: Shaped[Array | np.ndarray, "..."] | None = None,
    ):
        faces = tuple(jnp.asarray(w) for w in faces)
        if not 1 <= len(faces) <= 3:
            raise ValueError(f"faces must hold one array per axis, for 1 to 3, got {len(faces)}.")
        shape = _cells(faces)
        dtype = faces[0].dtype
        if not jnp.issubdtype(dtype, jnp.floating) or any(w.dtype != dtype for w in faces):
            raise ValueError(
                f"faces must be real and of one dtype, got {[w.dtype for w in faces]}."
            )
        sink = jnp.zeros(shape, dtype) if sink is None else jnp.asarray(sink)
        if sink.shape != shape or sink.dtype != dtype:
            raise ValueError(
                f"sink must have the shape and dtype {shape}, {dtype} that go with faces, "
                f"got {sink.shape}, {sink.dtype}."
            )
        for name, weights in [*((f"faces[{a}]", w) for a, w in enumerate(faces)), ("sink", sink)]:
            check_weights(weights, name)
        self.faces, self.sink = faces, sink

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of cells along each axis."""
        return self.sink.shape

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "Diffusion")
        y = self.sink * vector
        for axis, w in enumerate(self.faces):
            flux = _slice(w, axis, 1, -1) * jnp.diff(vector, axis=axis)
            first = _slice(w, axis, 0, 1) * _slice(vector, axis, 0, 1)
            last = _slice(w, axis, -1, None) * _slice(vector, axis, -1, None)
            after = self.shape[axis] - 1
            y = y - _pad(flux, axis, 0, 1) + _pad(flux, axis, 1, 0)
            y = y + _pad(first, axis, 0, after) + _pad(last, axis, after, 0)
        return y

    def flux(self, vector: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
        """The weighted differences across all faces, from low to high index and with zeros
        outside: without sink, `A.mv(x)` is minus their divergence, `-sum(jnp.diff(f, axis=a))`
        over the axes. In a pressure projection, what is subtracted from the face velocities."""
        check_vector(vector, self.in_structure(), "Diffusion")
        return tuple(
            w * jnp.diff(_pad(vector, axis, 1, 1), axis=axis) for axis, w in enumerate(self.faces)
        )

    def adjoint_mv(self, vector):
        return self.mv(vector)

    def transpose(self):
        return self

    def in_structure(self):
        return _tree.structure(self.shape, self.sink.dtype)

    def out_structure(self):
        return self.in_structure()

    def diagonal(self) -> Float[Array, "..."]:
        """The diagonal, of the shape of the grid."""
        total = self.sink
        for axis, w in enumerate(self.faces):
            total = total + _slice(w, axis, 0, -1) + _slice(w, axis, 1, None)
        return total

    def active(self) -> Bool[Array, "..."]:
        """The cells with at least one open face; the others are alone with their sink."""
        return self.diagonal() - self.sink > 0


for _query in (lx.is_symmetric, lx.is_positive_semidefinite):
    _query.register(Diffusion, lambda operator: True)
lx.conj.register(Diffusion, lambda operator: operator)
lx.diagonal.register(Diffusion, lambda operator: operator.diagonal().ravel())


def poisson(
    shape: int | Sequence[int],
    *,
    spacing: float | Sequence[float] = 1.0,
    boundary: str = "dirichlet",
    dtype=None,
) -> Diffusion:
    r"""The Poisson operator $-\sum_a \partial_a^2$ on cells, by the 3-, 5- or 7-point stencil.

    **Arguments:**

    - `shape`: cells along each axis.
    - `spacing`: the size of a cell, one number or one per axis; weights are `1 / spacing**2`.
    - `boundary`: `"dirichlet"` (value zero in a ghost cell beyond the last one: the stencil of
        the textbooks, with `2 d` on the whole diagonal) or `"neumann"` (closed; singular).
    - `dtype`: the default floating-point dtype if `None`.

    Raises `ValueError` for anything else.

    !!! example
        ```python
        >>> import jinv
        >>> print(jinv.linear.poisson(3).as_matrix())
        [[ 2. -1.  0.]
         [-1.  2. -1.]
         [ 0. -1.  2.]]

        ```
    """
    shape, dtype = as_shape(shape), as_inexact(dtype)
    if boundary not in ("dirichlet", "neumann"):
        raise ValueError(f"boundary must be 'dirichlet' or 'neumann', got {boundary!r}.")
    outer = float(boundary == "dirichlet")
    faces = []
    for axis, h in enumerate(_spacings(spacing, len(shape))):
        inner = np.ones([n - (a == axis) for a, n in enumerate(shape)])
        ends = [(int(a == axis),) * 2 for a in range(len(shape))]
        faces.append(jnp.asarray(np.pad(inner, ends, constant_values=outer) / h**2, dtype))
    return Diffusion(faces)


def heterogeneous_diffusion(
    coefficient: Float[Array, "..."] | Sequence[Float[Array, "..."]],
    *,
    spacing: float | Sequence[float] = 1.0,
    boundary: str | Sequence[str] = "dirichlet",
    shift: float | Float[Array, "..."] = 0.0,
) -> Diffusion:
    r"""The operator $-\nabla \cdot (k \nabla x) + c\, x$ for a coefficient given in cells.

    The weight of a face is the harmonic mean of its two cells' coefficients over the squared
    spacing, which keeps the flux continuous over a jump; a Dirichlet face is half a cell away.

    **Arguments:**

    - `coefficient`: positive, of the shape of the grid; or one such array per axis for a
        diagonal tensor (anisotropic diffusion).
    - `spacing`: the size of a cell, one number or one per axis.
    - `boundary`: `"dirichlet"` (zero on the wall) or `"neumann"` (closed), one for all or one
        per axis.
    - `shift`: the non-negative $c$ (Helmholtz-type, positive definite), a number or an array.

    Raises `ValueError` for shapes that do not fit and for coefficients that are negative.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> k = jnp.array([1.0, 3.0])
        >>> print(jinv.linear.heterogeneous_diffusion(k).as_matrix())
        [[ 3.5 -1.5]
         [-1.5  7.5]]

        ```
    """
    several = isinstance(coefficient, Sequence)
    ndim = len(coefficient) if several else jnp.ndim(coefficient)
    tensor = [jnp.asarray(k) for k in (coefficient if several else [coefficient] * ndim)]
    if not 1 <= ndim <= 3 or any(k.shape != tensor[0].shape or k.ndim != ndim for k in tensor):
        raise ValueError(
            "coefficient must be an array of rank 1 to 3, or one such array per axis, got "
            f"{[k.shape for k in tensor]}."
        )
    walls = [boundary] * ndim if isinstance(boundary, str) else list(boundary)
    if len(walls) != ndim or not set(walls) <= {"dirichlet", "neumann"}:
        raise ValueError(
            f"boundary must be 'dirichlet' or 'neumann', or one of them per axis, got {boundary!r}."
        )
    faces = []
    for axis, (k, h, wall) in enumerate(zip(tensor, _spacings(spacing, ndim), walls, strict=True)):
        check_weights(k, "coefficient")
        left, right = _slice(k, axis, 0, -1), _slice(k, axis, 1, None)
        total = left + right
        inner = 2 * left * right / jnp.where(total > 0, total, 1)
        ends = [_slice(k, axis, 0, 1), _slice(k, axis, -1, None)]
        open_ = 2.0 if wall == "dirichlet" else 0.0
        parts = [open_ * ends[0], inner, open_ * ends[1]]
        faces.append(jnp.concatenate(parts, axis=axis) / jnp.asarray(h**2, k.dtype))
    sink = jnp.broadcast_to(jnp.asarray(shift, tensor[0].dtype), tensor[0].shape)
    return Diffusion(faces, sink)


FLUID, SOLID, AIR = 0, 1, 2


def pressure_poisson(
    cells: Shaped[Array | np.ndarray, "..."],
    *,
    open_sides: Sequence[tuple[int, int]] = (),
    dtype=None,
) -> Diffusion:
    r"""The pressure equation of an incompressible fluid among obstacles, on a staggered grid.

    Fluid cells exchange with their fluid neighbours (weight 1); faces of solid cells and
    closed walls carry Neumann conditions; air cells and what lies beyond an open side have
    pressure zero. Solid and air cells keep an identity row, so that they stay what they are.

    **Arguments:**

    - `cells`: 0 for fluid, 1 for solid, 2 for air, of rank 1 to 3. May be traced.
    - `open_sides`: pairs `(axis, side)`, side 0 for the first and 1 for the last cells.
    - `dtype`: the default floating-point dtype if `None`.

    Raises `ValueError` for other values, and for sides that are not there.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.linear.pressure_poisson(jnp.array([0, 0, 1]), open_sides=[(0, 0)])
        >>> print(A.as_matrix())
        [[ 2. -1.  0.]
         [-1.  1.  0.]
         [ 0.  0.  1.]]

        ```
    """
    dtype = as_inexact(dtype)
    cells = jnp.asarray(cells)
    if not 1 <= cells.ndim <= 3:
        raise ValueError(f"cells must be an array of rank 1 to 3, got shape {cells.shape}.")
    if not jnp.issubdtype(cells.dtype, jnp.integer) and cells.dtype != bool:
        raise ValueError(f"cells must hold integers, got {cells.dtype}.")
    if _is_known(cells) and not np.isin(cells, (FLUID, SOLID, AIR)).all():
        raise ValueError("cells must be 0 (fluid), 1 (solid) or 2 (air).")
    for side in open_sides:
        if len(side) != 2 or side[0] not in range(cells.ndim) or side[1] not in (0, 1):
            raise ValueError(f"open_sides must hold pairs (axis, 0 or 1), got {side!r}.")
    fluid, air = cells == FLUID, cells == AIR
    sink = (~fluid).astype(dtype)
    faces = []
    for axis in range(cells.ndim):
        left, right = (_slice(fluid, axis, 0, -1), _slice(fluid, axis, 1, None))
        ends = [
            _slice(fluid, axis, *cut) & ((axis, side) in open_sides)
            for side, cut in enumerate([(0, 1), (-1, None)])
        ]
        faces.append(jnp.concatenate([ends[0], left & right, ends[1]], axis=axis).astype(dtype))
        from_left = (_slice(air, axis, 0, -1) & right).astype(dtype)
        from_right = (left & _slice(air, axis, 1, None)).astype(dtype)
        sink = sink + _pad(from_left, axis, 1, 0) + _pad(from_right, axis, 0, 1)
    return Diffusion(faces, sink)


def null_space(operator: Diffusion) -> Float[Array, "k ..."]:
    """The null space of a [`jinv.linear.Diffusion`][]: one indicator for each region of cells
    that is connected to neither a sink nor a Dirichlet face.

    Works on the host and needs concrete weights; use it once per geometry. Lone cells without
    sink count as regions too.

    **Returns:** an array of shape `(k, *shape)`, of `k` orthogonal indicators; `k` may be 0.

    !!! example
        ```python
        >>> import jinv
        >>> A = jinv.linear.poisson(4, boundary="neumann")
        >>> print(jinv.linear.null_space(A))
        [[1. 1. 1. 1.]]

        ```
    """
    import scipy.sparse as sp

    ids = np.arange(operator.sink.size).reshape(operator.shape)
    ground = np.asarray(operator.sink) > 0
    rows, columns = [], []
    for axis, w in enumerate(np.asarray(w) for w in operator.faces):
        first, inner, last = np.split(w, [1, operator.shape[axis]], axis=axis)
        rows.append(np.delete(ids, -1, axis)[inner > 0])
        columns.append(np.delete(ids, 0, axis)[inner > 0])
        ground = ground | _embed(first > 0, axis, 0, ground.shape)
        ground = ground | _embed(last > 0, axis, -1, ground.shape)
    links = np.concatenate(rows), np.concatenate(columns)
    graph = sp.coo_matrix((np.ones(links[0].size), links), shape=(ids.size, ids.size))
    count, labels = sp.csgraph.connected_components(graph, directed=False)
    grounded = np.zeros(count, bool)
    grounded[labels[ground.ravel()]] = True
    regions = [labels == label for label in np.flatnonzero(~grounded)]
    basis = np.array(regions, dtype=operator.sink.dtype).reshape(-1, *operator.shape)
    return jnp.asarray(basis)


def require_diffusion(operator: Any, method: str) -> Diffusion:
    if not isinstance(operator, Diffusion):
        raise ValueError(
            f"{method} needs a jinv.linear.Diffusion, got {type(operator).__name__}; for other "
            "sparse matrices there is jinv.linear.AlgebraicMultigrid."
        )
    return operator


def check_weights(weights: Array, name: str) -> None:
    """Raises for values that are known to be negative or not finite."""
    if _is_known(weights):
        values = np.asarray(weights)
        if values.size and not (np.isfinite(values).all() and values.min() >= 0):
            raise ValueError(f"{name} must be finite and non-negative.")


def _is_known(x):
    return eqx.is_array(x) and not isinstance(x, Tracer)


def _cells(faces):
    ndim = len(faces)
    shape = tuple(w.shape[a] - 1 if w.ndim == ndim else 0 for a, w in enumerate(faces))
    expected = [tuple(n + (a == b) for b, n in enumerate(shape)) for a in range(ndim)]
    if min(shape) < 1 or [w.shape for w in faces] != expected:
        raise ValueError(
            "faces[a] must have the shape of the grid with one entry more along axis a, got "
            f"{[w.shape for w in faces]}."
        )
    return shape


def _spacings(spacing, ndim):
    given = np.broadcast_to(np.asarray(spacing, float), (ndim,)) if np.ndim(spacing) < 2 else [0]
    if not all(h > 0 and np.isfinite(h) for h in given):
        raise ValueError(f"spacing must be positive, one number or one per axis, got {spacing!r}.")
    return [float(h) for h in given]


def _slice(x, axis, start, stop):
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _pad(x, axis, before, after):
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])


def _embed(x, axis, index, shape):
    out = np.zeros(shape, bool)
    out[(slice(None),) * axis + (slice(index, None if index else 1),)] = x
    return out
