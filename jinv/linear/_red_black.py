"""Grids in red-black order: the two colours of a chequerboard, each as one contiguous vector."""

import itertools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact


class RedBlack(eqx.Module):
    """The layout of a grid of the given shape.

    Every axis is padded to an even length, and all but the first by one more cell, to an odd
    one. Then the colour of a cell (is the sum of its indices odd?) is the parity of its flat
    index `k`: `red[i]` is cell `2 i`, `black[i]` is cell `2 i + 1`, and the neighbours of a cell
    of one colour are contiguous slices of the other. A sweep over one colour is one loop
    without branches, whatever the dimension. The corners of the 2 x ... x 2 blocks, which
    coarsening pairs, are contiguous slices as well (`split`, `join`).
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def halves(self) -> tuple[int, ...]:
        """The number of 2 x ... x 2 blocks along each axis: the shape of the coarse grid."""
        return tuple((n + 1) // 2 for n in self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """The (odd) distance between neighbours along each axis in the flat grid."""
        strides = [1]
        for half in reversed(self.halves[1:]):
            strides.insert(0, strides[0] * (2 * half + 1))
        return tuple(strides)

    @property
    def size(self) -> int:
        """The number of cells of each colour, padding included."""
        return self.halves[0] * self.strides[0]

    @property
    def halo(self) -> int:
        """How far a neighbour can be away in the vector of the other colour."""
        return (self.strides[0] + 1) // 2

    def pack(self, x: Inexact[Array, "..."]) -> tuple[Array, Array]:
        """The red and the black cells of a grid; padding is zero."""
        even = [(0, n % 2) for n in self.shape]
        x = jnp.pad(x, even) if any(n % 2 for n in self.shape) else x
        corners = itertools.product((0, 1), repeat=len(self.shape))
        blocks: dict[tuple[int, ...], Array] = {
            c: x[tuple(slice(p, None, 2) for p in c)] for c in corners
        }
        return self.join(blocks, 0), self.join(blocks, 1)

    def unpack(self, red: Inexact[Array, " size"], black: Inexact[Array, " size"]) -> Array:
        """The inverse of `pack`."""
        blocks = {**self.split(red, 0), **self.split(black, 1)}
        x = _interleave(blocks, len(self.shape))
        return x[tuple(slice(0, n) for n in self.shape)]

    def join(self, blocks: dict[tuple[int, ...], Array], colour: int) -> Inexact[Array, " size"]:
        """The vector of one colour from the corners of all blocks, by their parities."""
        return self._join(blocks, (), colour)

    def _join(self, blocks, corner, colour) -> Any:
        axis = len(corner)
        if axis == len(self.shape):
            return blocks[corner][..., None] if colour == 0 else None
        even = self._join(blocks, (*corner, 0), colour)
        odd = self._join(blocks, (*corner, 1), 1 - colour)
        parts = [part for part in (even, odd) if part is not None]
        pair = jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        rows = pair.reshape(*pair.shape[:axis], -1)
        if axis == 0 or even is None:
            return rows
        return jnp.pad(rows, [(0, 0)] * axis + [(0, even.shape[-1])])

    def split(self, x: Inexact[Array, " size"], colour: int) -> dict[tuple[int, ...], Array]:
        """The inverse of `join`: the corners of that colour, each of the coarse grid's shape."""
        return dict(self._split(x, (), colour))

    def _split(self, x, corner, colour):
        axis = len(corner)
        if axis == len(self.shape):
            yield corner, x[..., 0]
            return
        half, slab = self.halves[axis], self.strides[axis]
        pair = x[..., : half * slab].reshape(*x.shape[:-1], half, slab)
        even = (slab + 1) // 2 if colour == 0 else slab // 2
        if even:
            yield from self._split(pair[..., :even], (*corner, 0), colour)
        if even < slab:
            yield from self._split(pair[..., even:], (*corner, 1), 1 - colour)


def _interleave(blocks, ndim):
    for axis in reversed(range(ndim)):
        corners = itertools.product((0, 1), repeat=axis)
        pairs = {c: jnp.stack([blocks[*c, 0], blocks[*c, 1]], axis=axis + 1) for c in corners}
        blocks = {c: x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]) for c, x in pairs.items()}
    return blocks[()]
