"""Grids in red-black order: the two colours of a chequerboard, each as one contiguous vector."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
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
        """The red and the black cells of a grid, or of several stacked along leading axes;
        padding is zero."""
        batch = x.shape[: x.ndim - len(self.shape)]
        padded = jnp.zeros((*batch, *self._padded), x.dtype)
        # Written into a buffer of its own: a fused padding would be computed cell by cell.
        flat = lax.dynamic_update_slice(padded, x, (0,) * x.ndim).reshape(*batch, self.size, 2)
        return flat[..., 0], flat[..., 1]

    def unpack(self, red: Inexact[Array, " size"], black: Inexact[Array, " size"]) -> Array:
        """The inverse of `pack`."""
        x = jnp.stack([red, black], axis=-1).reshape(self._padded)
        return x[tuple(slice(0, n) for n in self.shape)]

    @property
    def _padded(self) -> tuple[int, ...]:
        return tuple(2 * half + int(axis > 0) for axis, half in enumerate(self.halves))

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
