"""Convolutions of 3 x 3 kernels with fewer multiplications, and what images are cut into for it."""

import jax
import jax.numpy as jnp
import numpy as np


# For each stride matrices (A, B, G) with z[o] = sum_p A[p, o] (B x)[p] (G w)[p], for two outputs
# next to each other: 4 products for 6, and 5 for 6. Stride 1 is the minimal one of Winograd; for
# stride 2 even pixels meet two weights, of which Karatsuba saves one product, odd ones meet one.
FACTORS = {
    1: (
        np.array([[1, 0], [1, 1], [1, -1], [0, -1]]),
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    ),
    2: (
        np.array([[1, 0], [1, 1], [0, 1], [1, 0], [0, 1]]),
        np.array(
            [[1, 0, -1, 0, 0], [0, 0, 1, 0, 0], [0, 0, -1, 0, 1], [0, 1, 0, 0, 0]]
            + [[0, 0, 0, 1, 0]]
        ),
        np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]]),
    ),
}


def _combine(coefficients, arrays):
    """The linear combination, without the terms that are zero."""
    terms = zip(coefficients, arrays, strict=True)
    first, *rest = [array if c == 1 else float(c) * array for c, array in terms if c]
    return sum(rest, first)


def _both_axes(matrix, arrays):
    """The matrix on both axes of a nested list of arrays."""
    rows = [[_combine(row, column) for column in zip(*arrays, strict=True)] for row in matrix]
    return [[_combine(row, arrays) for row in matrix] for arrays in rows]


def grid_of(x, offsets, step, tiles, before):
    """`grid[i][j]`: the pixels `step * t + (i, j) - before`, with zeros around the image."""
    after = [
        step * (n - 1) + offsets - before - size
        for n, size in zip(tiles, x.shape[1:3], strict=True)
    ]
    x = jax.lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0), *((before, a, 0) for a in after), (0, 0, 0)]
    )
    cut = lambda x, i, axis: jax.lax.slice_in_dim(
        x, i, i + step * (tiles[axis - 1] - 1) + 1, step, axis
    )
    rows = [cut(x, i, 1) for i in range(offsets)]
    return [[cut(row, j, 2) for j in range(offsets)] for row in rows]


def interleave(grid, shape):
    """The inverse of `grid_of` without overlap: an image of the given shape."""
    x = jnp.stack([jnp.stack(row, 3) for row in grid], 2)
    n, h, a, w, b, c = x.shape
    return x.reshape(n, h * a, w * b, c)[:, : shape[0], : shape[1]]


def _tiles(out):
    return tuple(-(-n // 2) for n in out)


def winograd_forward(x, w, *, stride, shape, kernel, before, out):
    a, b, g = FACTORS[stride]
    v = _both_axes(b, grid_of(x, b.shape[1], 2 * stride, _tiles(out), before))
    u = _both_axes(g, w)
    z = [[p @ q for p, q in zip(*rows, strict=True)] for rows in zip(v, u, strict=True)]
    return interleave(_both_axes(a.T, z), out)


def winograd_kernel(x, z, *, stride, shape, kernel, before, out):
    a, b, g = FACTORS[stride]
    v = _both_axes(b, grid_of(x, b.shape[1], 2 * stride, _tiles(out), before))
    y = _both_axes(a, grid_of(z, 2, 2, _tiles(out), 0))
    u = [[contract(p, q) for p, q in zip(*rows, strict=True)] for rows in zip(v, y, strict=True)]
    return jnp.stack([jnp.stack(row) for row in _both_axes(g.T, u)])


def contract(x, z):
    # Of matrices: XLA contracts three axes at once four times slower.
    return x.reshape(-1, x.shape[3]).T @ z.reshape(-1, z.shape[3])
