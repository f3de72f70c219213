"""Symmetric positive definite systems on grids, and the float64 residual that judges all solvers.

A system is given by the weights of its faces and a sink, as in `jinv.linear.Diffusion`, or as a
SciPy matrix over the unknowns only; both have the same solution. NumPy only, but for the
labelling of connected regions and the sparse matrix.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._problems import Problem


def linear_problem(
    name: str, size: int, params: Mapping[str, Any], dtype: np.dtype, seed: int
) -> Problem:
    """The system of that name with `size` cells along every axis.

    `params["dim"]` is "2-D" or "3-D".

    - `obstacles`: the pressure equation of an incompressible fluid among solids, closed walls but
        for the last face of the first axis, where the pressure is zero one cell further.
        `geometry` is "standard" (a ball, a tilted bar, a thin plate) or "random" (discs or balls,
        tilted bars, thin plates, a block with a channel of one cell; drawn by `seed`).
    - `box`: the same without solids, and with pressure zero beyond all walls.
    - `diffusion`: a coefficient of 1 or `jump`, in `coefficient` "blobs" (smooth outlines) or
        "blocks" (of 8 cells), zero on the walls; drawn by `seed`.
    - `anisotropic`: `box` with weights `ratio` times larger along the last axis.

    `data` has `face_0`, `face_1`, ... (one entry more than cells along its own axis), `sink`,
    `unknown` (cells that are not solid; a solid one has an identity row) and `rhs` on the grid,
    minus the divergence of a smooth random velocity field that is zero on closed faces.
    `objective` is the relative residual of an array on the grid, in float64.
    """
    dim = {"2-D": 2, "3-D": 3}[params["dim"]]
    shape = (size,) * dim
    faces, unknown = _MAKERS[name](shape, params, np.random.default_rng(seed))
    rhs = divergence(faces, unknown, np.random.default_rng(seed + 1))
    data = {f"face_{axis}": face.astype(dtype) for axis, face in enumerate(faces)}
    data["sink"] = (~unknown).astype(dtype)
    data["unknown"], data["rhs"] = unknown, rhs.astype(dtype)
    # Judge with the numbers that the libraries are given.
    exact = [data[f"face_{axis}"].astype(np.float64) for axis in range(dim)]
    sink, b = data["sink"].astype(np.float64), data["rhs"].astype(np.float64)

    def residual(x: np.ndarray) -> float:
        x = np.asarray(x, np.float64).reshape(shape)
        return float(np.linalg.norm(b - product(exact, sink, x)) / np.linalg.norm(b))

    return Problem(name, size, params, data, residual)


def faces_of(problem: Problem) -> list[np.ndarray]:
    """The weights of the faces, one array for each axis."""
    return [problem.data[f"face_{axis}"] for axis in range(problem.data["sink"].ndim)]


def product(faces: Sequence[np.ndarray], sink: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The operator's product with an array on the grid."""
    y = sink * x
    for axis, w in enumerate(faces):
        ends = [(int(a == axis),) * 2 for a in range(x.ndim)]
        flux = w * np.diff(np.pad(x, ends), axis=axis)
        y -= np.diff(flux, axis=axis)
    return y


def sparse_matrix(problem: Problem) -> Any:
    """The matrix over the unknowns, in the grid's order, as a float64 CSR array."""
    import scipy.sparse as sp

    unknown = problem.data["unknown"]
    ids = np.full(unknown.shape, -1, np.int32)
    ids[unknown] = np.arange(np.count_nonzero(unknown), dtype=np.int32)
    diagonal = problem.data["sink"].astype(np.float64)
    rows, columns, values = [], [], []
    for axis, w in enumerate(w.astype(np.float64) for w in faces_of(problem)):
        diagonal = diagonal + np.delete(w, -1, axis) + np.delete(w, 0, axis)
        inner = np.delete(w, [0, -1], axis)
        open_ = inner > 0
        i, j = np.delete(ids, -1, axis)[open_], np.delete(ids, 0, axis)[open_]
        rows += [i, j]
        columns += [j, i]
        values += [-inner[open_]] * 2
    own = ids[unknown]
    entries = np.concatenate([*values, diagonal[unknown]])
    where = np.concatenate([*rows, own]), np.concatenate([*columns, own])
    matrix = sp.csr_array((entries, where), shape=(own.size, own.size))
    matrix.sort_indices()
    # pyamg and SuperLU want 32-bit indices, and pyamg the older class.
    return sp.csr_matrix(
        (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)),
        shape=matrix.shape,
    )


def divergence(
    faces: Sequence[np.ndarray], unknown: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Minus the divergence of a velocity field of twelve Fourier modes, zero on closed faces and
    on the first face of every axis."""
    found = np.zeros(unknown.shape)
    for axis, w in enumerate(faces):
        flux = _smooth_field(unknown.shape, rng, 12, 6) * (np.delete(w, 0, axis) > 0)
        found -= np.diff(flux, axis=axis, prepend=0)
    return np.where(unknown, found, 0)


def standard_solids(shape: Sequence[int]) -> np.ndarray:
    """True in a ball, a tilted bar and a thin plate, in unit coordinates."""
    n, (y, x, z) = shape[0], _coordinates(shape)
    ball = (y - 0.35) ** 2 + (x - 0.32) ** 2 + (z - 0.5) ** 2 < 0.15**2
    c, s = np.cos(0.6), np.sin(0.6)
    u, v = c * (x - 0.68) + s * (y - 0.6), -s * (x - 0.68) + c * (y - 0.6)
    bar = (abs(u) < 0.22) & (abs(v) < 0.04) & (abs(z - 0.5) < 0.3)
    plate = (abs(y - 0.82) < max(1.0 / n, 0.008)) & (x > 0.1) & (x < 0.55) & (abs(z - 0.5) < 0.4)
    return ball | bar | plate


def random_solids(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Discs or balls, tilted bars, plates of one or two cells, and a block with a channel.

    Equal draws give equal geometries at every size, but for what is measured in cells.
    """
    dim = len(shape)
    points = np.stack(_coordinates(shape)[:dim], axis=-1)
    solid = np.zeros(shape, bool)
    # In 3-D more and larger ones, so that they block about as much.
    for _ in range((dim - 1) * rng.integers(2, 6)):
        centre, radius = rng.uniform(0.1, 0.9, dim), rng.uniform(0.02, 0.07) * dim
        solid |= np.sum((points - centre) ** 2, axis=-1) < radius**2
    for _ in range((dim - 1) * rng.integers(1, 4)):
        centre, frame = rng.uniform(0.15, 0.85, dim), np.linalg.qr(rng.standard_normal((dim, dim)))
        half = np.concatenate([rng.uniform(0.1, 0.25, dim - 1), rng.uniform(0.02, 0.05, 1)])
        solid |= np.all(np.abs((points - centre) @ frame[0]) < half, axis=-1)
    for _ in range(rng.integers(1, 4)):
        axis, position = int(rng.integers(dim)), rng.uniform(0.15, 0.85)
        thickness = int(rng.integers(1, 3))
        lower, length = rng.uniform(0.05, 0.5, dim), rng.uniform(0.2, 0.5, dim)
        where = [_cells(n, a, b) for n, a, b in zip(shape, lower, lower + length, strict=True)]
        first = int(position * shape[axis])
        where[axis] = slice(first, first + thickness)
        solid[tuple(where)] = True
    lower, length = rng.uniform(0.1, 0.6, dim), rng.uniform(0.15, 0.3, dim)
    block = [_cells(n, a, b) for n, a, b in zip(shape, lower, lower + length, strict=True)]
    solid[tuple(block)] = True
    axis = int(rng.integers(dim))
    channel = [slice(cut.start + (cut.stop - cut.start) // 2, None) for cut in block]
    channel = [slice(cut.start, cut.start + 1) for cut in channel]
    channel[axis] = block[axis]
    solid[tuple(channel)] = False
    return solid


def coefficient(
    shape: Sequence[int], kind: str, jump: float, rng: np.random.Generator
) -> np.ndarray:
    """1 or `jump` in each cell, in "blobs" with smooth outlines or in "blocks" of 8 cells."""
    if kind == "blobs":
        field = _smooth_field(shape, rng, 12, 4)
    elif kind == "blocks":
        field = rng.standard_normal([-(-n // 8) for n in shape])
        for axis in range(len(shape)):
            field = np.repeat(field, 8, axis=axis)
        field = field[tuple(slice(n) for n in shape)]
    else:
        raise ValueError(f"coefficient: expected 'blobs' or 'blocks', got {kind!r}.")
    return np.where(field > 0, float(jump), 1.0)


def _obstacles(shape, params, rng):
    geometry = params["geometry"]
    if geometry not in ("standard", "random"):
        raise ValueError(f"geometry: expected 'standard' or 'random', got {geometry!r}.")
    solid = standard_solids(shape) if geometry == "standard" else random_solids(shape, rng)
    fluid = _connected(~solid)
    faces = []
    for axis in range(len(shape)):
        ends = [(int(a == axis), 0) for a in range(len(shape))]
        before = np.pad(fluid, ends)
        after = np.pad(fluid, [pair[::-1] for pair in ends])
        w = (before & after).astype(np.float64)
        if axis == 0:
            w[-1] = fluid[-1]
        faces.append(w)
    return faces, fluid


def _connected(fluid: np.ndarray) -> np.ndarray:
    """Without the pockets that the open side cannot be reached from: singular blocks."""
    from scipy import ndimage

    labels = np.empty(fluid.shape, np.int32)
    ndimage.label(fluid, output=labels)
    return fluid & np.isin(labels, np.unique(labels[-1][fluid[-1]]))


def _box(shape, params, rng):
    return [np.ones(_face_shape(shape, axis)) for axis in range(len(shape))], np.ones(shape, bool)


def _anisotropic(shape, params, rng):
    faces, unknown = _box(shape, params, rng)
    return [*faces[:-1], params["ratio"] * faces[-1]], unknown


def _diffusion(shape, params, rng):
    k = coefficient(shape, params["coefficient"], params["jump"], rng)
    faces = []
    for axis in range(len(shape)):
        left, right = np.delete(k, -1, axis), np.delete(k, 0, axis)
        # The wall is half a cell away.
        first, last = 2 * np.take(k, [0], axis), 2 * np.take(k, [-1], axis)
        faces.append(np.concatenate([first, 2 * left * right / (left + right), last], axis=axis))
    return faces, np.ones(shape, bool)


def _smooth_field(shape, rng, modes: int, highest: int) -> np.ndarray:
    """A sum of cosines with wave numbers up to `highest` along every axis."""
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij", sparse=True)
    found = np.zeros(shape)
    for _ in range(modes):
        wave = rng.integers(-highest, highest + 1, len(shape))
        phase, size = rng.uniform(0, 2 * np.pi), rng.standard_normal()
        angle = phase
        for k, x in zip(wave, axes, strict=True):
            angle = angle + 2 * np.pi * k * x
        found += size * np.cos(angle)
    return found


def _coordinates(shape) -> list[np.ndarray]:
    """Centres of the cells in [0, 1], three arrays that broadcast; a missing axis is at 0.5."""
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    grids = np.meshgrid(*axes, indexing="ij")
    return [*grids, *[np.full(tuple(shape), 0.5)] * (3 - len(shape))]


def _cells(n: int, lower: float, upper: float) -> slice:
    return slice(int(lower * n), max(int(lower * n) + 3, int(upper * n)))


def _face_shape(shape, axis):
    return tuple(n + (a == axis) for a, n in enumerate(shape))


_MAKERS: dict[str, Callable[..., tuple[list[np.ndarray], np.ndarray]]] = {
    "obstacles": _obstacles,
    "box": _box,
    "diffusion": _diffusion,
    "anisotropic": _anisotropic,
}
NAMES = tuple(_MAKERS)
