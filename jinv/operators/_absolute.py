"""Row and column sums of the moduli of an operator's entries, for diagonal preconditioning."""

import functools as ft

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree, Real

from ._convolution import Convolution
from ._fan_beam import FanBeam
from ._finite_difference import FiniteDifference
from ._pointwise import Diagonal, Mask
from ._radon import ParallelBeam
from ._stack import Stack


_DENSE = 4096


@ft.singledispatch
def absolute_sums(
    operator: lx.AbstractLinearOperator,
) -> tuple[PyTree[Real[Array, "..."]], PyTree[Real[Array, "..."]]]:
    r"""Upper bounds of $\sum_j |A_{ij}|$ (per row) and $\sum_i |A_{ij}|$ (per column).

    They are exact for masks, matrices and X-ray transforms, and constant bounds for
    convolutions and differences. An operator without a rule is materialised if it has at most
    4096 unknowns.

    **Arguments:**

    - `operator`: any lineax operator.

    **Returns:** the row sums, which broadcast against the range, and the column sums, which
    broadcast against the domain; real.

    Raises `ValueError` for a large operator without a rule.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv, lineax as lx
        >>> A = lx.MatrixLinearOperator(jnp.array([[1.0, -2.0], [0.0, 3.0]]))
        >>> jinv.operators.absolute_sums(A)
        (Array([3., 3.], dtype=float32), Array([1., 5.], dtype=float32))

        ```
    """
    inputs = jax.tree.leaves(operator.in_structure())
    if operator.in_size() > _DENSE or len(inputs) > 1:
        raise ValueError(
            f"no rule for the absolute sums of a {type(operator).__name__} of "
            f"{operator.in_size()} unknowns: register one with `absolute_sums.register`, or give "
            "the step sizes"
        )
    matrix = jnp.abs(operator.as_matrix())
    (output,) = jax.tree.leaves(operator.out_structure())
    return matrix.sum(1).reshape(output.shape), matrix.sum(0).reshape(inputs[0].shape)


@absolute_sums.register(Mask)
@absolute_sums.register(Diagonal)
def _(operator):
    ones = jnp.ones(operator.in_structure().shape, operator.in_structure().dtype)
    entries = jnp.abs(operator.mv(ones))
    return entries, entries


@absolute_sums.register
def _(operator: FiniteDifference):
    real = jnp.finfo(operator.dtype).dtype
    return jnp.asarray(2, real), jnp.asarray(2 * len(operator.axes), real)


@absolute_sums.register
def _(operator: Convolution):
    centre = tuple(n // 2 for n in operator.shape)
    delta = jnp.zeros(operator.shape, operator.dtype).at[centre].set(1)
    total = jnp.sum(jnp.abs(operator.mv(delta)))
    return total, total


@absolute_sums.register(ParallelBeam)
@absolute_sums.register(FanBeam)
def _(operator):
    # All weights are non-negative: the sums are a projection and a back-projection of ones.
    source, target = operator.in_structure(), operator.out_structure()
    rows = operator.mv(jnp.ones(source.shape, source.dtype))
    return rows, operator.adjoint_mv(jnp.ones(target.shape, target.dtype))


@absolute_sums.register
def _(operator: Stack):
    sums = [absolute_sums(op) for op in operator.operators]
    columns = [c for _, c in sums]
    return tuple(r for r, _ in sums), ft.reduce(jnp.add, columns)


@absolute_sums.register
def _(operator: lx.MulLinearOperator):
    return _scaled(operator.operator, jnp.abs(operator.scalar))


@absolute_sums.register
def _(operator: lx.DivLinearOperator):
    return _scaled(operator.operator, 1 / jnp.abs(operator.scalar))


@absolute_sums.register(lx.NegLinearOperator)
@absolute_sums.register(lx.TaggedLinearOperator)
def _(operator):
    return absolute_sums(operator.operator)


def _scaled(operator, factor):
    return jax.tree.map(lambda s: s * factor.astype(s.dtype), absolute_sums(operator))
