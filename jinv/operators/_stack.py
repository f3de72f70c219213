"""Block operators on tuples of arrays."""

import functools as ft
import operator as _operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import lineax as lx

from ._base import AbstractOperator, adjoint
from ._checks import check_vector
from ._norm import norm_bound
from ._spectrum import gram_spectrum


class Stack(AbstractOperator):
    r"""Stacks operators on one input, $A x = (A_1 x, \dots, A_n x)$, with a tuple as output.

    The adjoint sums, $A^* y = \sum_i A_i^* y_i$. Several data terms, or data and
    regularisation, become one operator this way.

    **Arguments:**

    - `operators`: any lineax operators with the same input structure.

    Raises `ValueError` if there are none, or their input structures differ.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0]))
        >>> K = jinv.operators.FiniteDifference((2,))
        >>> jinv.operators.Stack((A, K)).mv(jnp.array([3.0, 5.0]))
        (Array([3., 0.], dtype=float32), Array([[2., 0.]], dtype=float32))

        ```
    """

    operators: tuple[lx.AbstractLinearOperator, ...]

    def __init__(self, operators: Sequence[lx.AbstractLinearOperator]):
        self.operators = _checked(operators)
        first, *rest = [op.in_structure() for op in self.operators]
        if any(structure != first for structure in rest):
            raise ValueError(f"operators must share one input structure, got {[first, *rest]}.")

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "Stack")
        return tuple(op.mv(vector) for op in self.operators)

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "Stack (adjoint)")
        parts = [adjoint(op).mv(y) for op, y in zip(self.operators, vector, strict=True)]
        return jax.tree.map(lambda *leaves: ft.reduce(_operator.add, leaves), *parts)

    def in_structure(self):
        return self.operators[0].in_structure()

    def out_structure(self):
        return tuple(op.out_structure() for op in self.operators)


class BlockDiagonal(AbstractOperator):
    r"""Applies one operator to each entry of a tuple, $A (x_1, \dots, x_n) = (A_1 x_1, \dots,
    A_n x_n)$.

    **Arguments:**

    - `operators`: any lineax operators.

    Raises `ValueError` if there are none.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0]))
        >>> jinv.operators.BlockDiagonal((A, 2 * A)).mv((jnp.ones(2), jnp.ones(2)))
        (Array([1., 0.], dtype=float32), Array([2., 0.], dtype=float32))

        ```
    """

    operators: tuple[lx.AbstractLinearOperator, ...]

    def __init__(self, operators: Sequence[lx.AbstractLinearOperator]):
        self.operators = _checked(operators)

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "BlockDiagonal")
        return tuple(op.mv(x) for op, x in zip(self.operators, vector, strict=True))

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "BlockDiagonal (adjoint)")
        return tuple(adjoint(op).mv(y) for op, y in zip(self.operators, vector, strict=True))

    def in_structure(self):
        return tuple(op.in_structure() for op in self.operators)

    def out_structure(self):
        return tuple(op.out_structure() for op in self.operators)


def _checked(operators):
    operators = tuple(operators)
    if not operators:
        raise ValueError("operators must name at least one operator.")
    return operators


@gram_spectrum.register
def _(operator: Stack):
    spectra = [gram_spectrum(op) for op in operator.operators]
    total = spectra[0]
    for spectrum in spectra[1:]:
        if total is None or spectrum is None or not total.compatible(spectrum):
            return None
        total = total + spectrum
    return total


@norm_bound.register
def _(operator: BlockDiagonal):
    norms = [norm_bound(op) for op in operator.operators]
    known = [norm for norm in norms if norm is not None]
    return ft.reduce(jnp.maximum, known) if len(known) == len(norms) else None
