"""The levels of a multigrid cycle on red-black grids."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Float

from .. import _tree
from ._coarsen import pad
from ._diffusion import Diffusion
from ._preconditioner import AbstractReduction, AbstractSymmetricPositive
from ._red_black import RedBlack


# Of each cycle: how a coarse grid is solved by cycles B of its own, and of which kind these are.
# Richardson steps with the inverses of the roots leave the residual p(A B) r, where p has those
# roots, and make the approximate inverse (1 - p(B A)) A^-1. It is positive definite where p < 1:
# for one root and for (1, 1, 3) always; for two, such as the textbook's (1, 1) of the W cycle, only
# while B A is less than their sum.
_VISITS = {
    "V": ((1.0,), "V"),
    "F": ((1.0,), "F, second grid"),
    "F, second grid": ((1.0, 1.0, 3.0), "V"),
    "W": ((1.0,), "W, second grid"),
    "W, second grid": ((1.0, 1.0, 3.0), "W"),
}


class Level(eqx.Module):
    r"""One grid: red-black relaxation and the transfers to the next grid.

    Black cells are always solved exactly, and red ones relaxed by factors in (0, 2) that may
    differ from cell to cell. Every half sweep then lowers the energy, before (red, black) and
    after (black, red) the coarse correction: the cycle is symmetric and positive definite
    whatever the factors, the transfers and the coarse operators are. A half sweep reads half of
    the grid, and leaves no residual on black cells: only red ones take part in transfers.
    """

    layout: RedBlack
    diagonal: tuple[Array, Array]
    inverse: tuple[Array, Array]
    links: tuple[Array, Array]
    shares: list[dict[tuple[int, ...], Array | None]]
    relaxation: Float[Array, " size"]
    sweeps: int = eqx.field(static=True)

    @staticmethod
    def make(operator: Diffusion, shares, relaxation, sweeps: int) -> "Level":
        """From an operator, the shares of `Coarsening` along each axis (`None` where an axis is
        not coarsened) and the relaxation factors of all cells."""
        layout = RedBlack(operator.shape)
        diagonal = operator.diagonal()
        inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)
        # Lone cells, and padding, are exact, whatever was interpolated into them.
        excess = jnp.where(operator.active(), relaxation - 1, 0)
        grids = [diagonal, inverse, excess]
        for axis, w in enumerate(operator.faces):
            inside = lax.slice_in_dim(w, 1, operator.shape[axis], axis=axis)
            grids.append(pad(inside, axis, 0, 1))
        # All at once: compiling is what small grids cost most.
        red, black = layout.pack(jnp.stack(grids))
        halo = [(0, 0), (layout.halo, layout.halo)]
        links = jnp.pad(red[3:], halo), jnp.pad(black[3:], halo)
        blocks = [_corners(alpha, axis, layout) for axis, alpha in enumerate(shares)]
        return Level(
            layout, (red[0], black[0]), (red[1], black[1]), links, blocks, 1 + red[2], sweeps
        )

    def solve(self, coarser: list, rhs: Float[Array, "..."], cycle: str) -> Float[Array, "..."]:
        """An approximate solution on this grid, as part of the cycle of the next finer one."""
        both = self.layout.pack(rhs)
        roots, below = _VISITS[cycle]
        if len(roots) == 1:
            return self.layout.unpack(*self.relax(coarser, both, below))
        scales = jnp.asarray([1 / root for root in roots], rhs.dtype)

        # A loop, so that the program does not grow with the visits.
        def visit(k, x):
            residual = jax.tree.map(jnp.subtract, both, self.product(x))
            correction = self.relax(coarser, residual, below)
            return jax.tree.map(lambda a, b: a + scales[k] * b, x, correction)

        zero = jax.tree.map(jnp.zeros_like, both)
        return self.layout.unpack(*lax.fori_loop(0, len(roots), visit, zero))

    def relax(self, coarser: list, rhs: tuple[Array, Array | None], cycle: str):
        """One cycle from zero; returns both colours. A black right-hand side of `None` is zero."""
        red, black = rhs
        scaled = self.relaxation * self.inverse[0]
        x = self._place(scaled * red)
        y = self._black(x, black)
        for _ in range(self.sweeps - 1):
            x = self._red(x, y, red)
            y = self._black(x, black)
        residual = red + self._off(y, 0) - self.diagonal[0] * self._core(x)
        # Nothing can be done for an empty row.
        residual = jnp.where(self.diagonal[0] > 0, residual, 0)
        # A buffer of its own: fused with what reads it, it would be computed many times.
        residual = self._core(self._place(residual))
        coarse = coarser[0].solve(coarser[1:], self._restrict(residual), cycle)
        x = x + self._place(self._prolong(coarse))
        for _ in range(self.sweeps):
            y = self._black(x, black)
            x = self._red(x, y, red)
        return self._core(x), self._core(y)

    def product(self, x: tuple[Array, Array]) -> tuple[Array, Array]:
        """The operator in this layout."""
        red, black = (self._place(colour) for colour in x)
        product = lambda c, other: self.diagonal[c] * x[c] - self._off(other, c)
        return product(0, black), product(1, red)

    def eliminate(self, red: Array, black: Array) -> Array:
        """The red right-hand side after the black unknowns are eliminated."""
        return red + self._off(self._place(self.inverse[1] * black), 0)

    def complement(self, red: Array) -> Array:
        """The Schur complement of the black cells."""
        y = self._black(self._place(red), None)
        return self.diagonal[0] * red - self._off(y, 0)

    def complete(self, red: Array, black: Array) -> Array:
        """The black unknowns that go with the red ones."""
        return self._core(self._black(self._place(red), black))

    def _red(self, x, y, rhs):
        old = self._core(x)
        new = self.inverse[0] * (rhs + self._off(y, 0))
        return self._place(old + self.relaxation * (new - old))

    def _black(self, x, rhs):
        total = self._off(x, 1)
        return self._place(self.inverse[1] * (total if rhs is None else rhs + total))

    def _off(self, other, colour):
        """The weighted sum over the neighbours, of the other colour, of all cells of a colour."""
        halo, size = self.layout.halo, self.layout.size
        window = lambda x, start: lax.slice(x, (halo + start,), (halo + start + size,))
        total = jnp.zeros((), other.dtype)
        own, others = self.links[colour], self.links[1 - colour]
        for axis, stride in enumerate(self.layout.strides):
            ahead = (stride + 2 * colour - 1) // 2
            behind = ahead - stride
            total = total + window(own[axis], 0) * window(other, ahead)
            total = total + window(others[axis], behind) * window(other, behind)
        return total

    def _place(self, x):
        """With a halo of zeros on both sides."""
        halo = self.layout.halo
        zeros = jnp.zeros(x.shape[0] + 2 * halo, x.dtype)
        return lax.dynamic_update_slice(zeros, x, (halo,))

    def _core(self, x):
        halo = self.layout.halo
        return lax.slice(x, (halo,), (halo + self.layout.size,))

    def _prolong(self, coarse):
        """The red cells of the interpolated grid; the last axis goes first."""
        blocks: dict[tuple[int, ...], Array] = {(): coarse}
        for axis in reversed(range(len(self.shares))):
            fine = {}
            for (parity, *rest), alpha in self.shares[axis].items():
                u = blocks[tuple(rest)]
                if alpha is None:
                    fine[parity, *rest] = lax.slice_in_dim(u, parity, u.shape[axis], 2, axis)
                else:
                    fine[parity, *rest] = u + alpha * (_shift(u, axis, 1 - 2 * parity) - u)
            blocks = fine
        return self.layout.join(blocks, 0)

    def _restrict(self, red):
        """The transpose of `_prolong`."""
        blocks = self.layout.split(red, 0)
        for axis, shares in enumerate(self.shares):
            coarse = {}
            for (parity, *rest), alpha in shares.items():
                r = blocks[parity, *rest]
                if alpha is None:
                    r = _dilate(r, axis, parity)
                else:
                    r = r - alpha * r + _shift(alpha * r, axis, 2 * parity - 1)
                coarse[*rest,] = coarse[*rest,] + r if (*rest,) in coarse else r
            blocks = coarse
        return blocks[()]


class Coarsest(eqx.Module):
    r"""The last grid, solved by a dense inverse: of the operator with its diagonal increased by
    one part in ten thousand, so that a singular one has an inverse too."""

    inverse: Float[Array, "n n"]

    @staticmethod
    def make(operator: Diffusion) -> "Coarsest":
        n, dtype = operator.sink.size, operator.sink.dtype
        basis = jnp.eye(n, dtype=dtype)
        matrix = jax.vmap(operator.mv)(basis.reshape(n, *operator.shape)).reshape(n, n)
        diagonal = jnp.diagonal(matrix)
        shift = jnp.where(diagonal > 0, jnp.asarray(1e-4, dtype) * diagonal, 1)
        return Coarsest(_inverse(matrix + jnp.diag(shift)))

    def solve(self, coarser: list, rhs: Float[Array, "..."], cycle: str) -> Float[Array, "..."]:
        return (self.inverse @ rhs.ravel()).reshape(rhs.shape)


class Cycle(AbstractSymmetricPositive):
    """A multigrid cycle as an approximate inverse on grids."""

    levels: list
    kind: str = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def mv(self, vector):
        dtype = _dtype(self.levels)
        fine, *coarser = self.levels
        rhs = vector.astype(dtype)
        if isinstance(fine, Level):
            value = fine.layout.unpack(*fine.relax(coarser, fine.layout.pack(rhs), self.kind))
        else:
            value = fine.solve(coarser, rhs, self.kind)
        return value.astype(vector.dtype)

    def in_structure(self):
        return self.structure


class RedCycle(AbstractSymmetricPositive):
    """The cycle's red part, for right-hand sides without black part: an approximate inverse of
    the Schur complement."""

    levels: list
    kind: str = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def mv(self, vector):
        red = vector.astype(_dtype(self.levels))
        value, _ = self.levels[0].relax(self.levels[1:], (red, None), self.kind)
        return value.astype(vector.dtype)

    def in_structure(self):
        return self.structure


class Complement(AbstractSymmetricPositive):
    """The Schur complement of the black cells."""

    level: Level

    def mv(self, vector):
        return self.level.complement(vector)

    def in_structure(self):
        return _tree.structure((self.level.layout.size,), self.level.inverse[0].dtype)


class RedSystem(AbstractReduction):
    """The red cells alone. The black ones are solved exactly, so that they have no residual:
    its norm is that of the whole system."""

    operator: Any  # the Complement
    preconditioner: lx.AbstractLinearOperator

    def restrict(self, vector, y0):
        level = self.operator.level
        rhs = level.eliminate(*level.layout.pack(vector))
        return rhs, None if y0 is None else level.layout.pack(y0)[0]

    def extend(self, value, vector):
        level = self.operator.level
        _, black = level.layout.pack(vector)
        return level.layout.unpack(value, level.complete(value, black))


def _inverse(matrix):
    """The inverse of a small positive definite matrix, by Gauss-Jordan elimination.

    Not LAPACK's: on CPUs with few threads its batched calls from inside a larger program were seen
    to wait for the others, and for ever.
    """

    def eliminate(k, a):
        row, column = a[k] / a[k, k], a[:, k]
        b = a - jnp.outer(column, row)
        b = b.at[:, k].set(-column / a[k, k]).at[k].set(row)
        return b.at[k, k].set(1 / a[k, k])

    return lax.fori_loop(0, matrix.shape[0], eliminate, matrix)


def _dtype(levels):
    return levels[-1].inverse.dtype


def _corners(alpha, axis, layout) -> dict[tuple[int, ...], Any]:
    """The shares along one axis by the parities of the cells along this and all later axes; along
    the first axis those of red cells only."""
    corners = list(itertools.product((0, 1), repeat=len(layout.shape) - axis))
    corners = [c for c in corners if axis > 0 or sum(c) % 2 == 0]
    if alpha is None:
        return dict.fromkeys(corners)
    alpha = jnp.pad(alpha, [(0, n % 2 if a >= axis else 0) for a, n in enumerate(alpha.shape)])
    cut = lambda c: (slice(None),) * axis + tuple(slice(p, None, 2) for p in c)
    return {c: alpha[cut(c)] for c in corners}


def _shift(x, axis, by):
    """`y[i] = x[i - by]` along `axis`, zero where that is outside."""
    rule = [(by, -by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), rule)


def _dilate(x, axis, parity):
    """`y[2 i + parity] = x[i]` along `axis`."""
    rule = [(parity, 1 - parity, 1) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), rule)
