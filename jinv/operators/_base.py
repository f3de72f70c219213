"""The interface of forward models: lineax operators with an exact adjoint written beside them."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree


class AbstractOperator(lx.AbstractLinearOperator):
    r"""A linear operator $A$ on arrays (or PyTrees of arrays) of natural image shape.

    A subclass says `mv`, `adjoint_mv`, `in_structure` and `out_structure`; transposition,
    conjugation, composition (`A @ B`), sums and scalar multiples follow. The adjoint belongs
    to the inner product $\langle x, y\rangle = \sum \bar x_i y_i$, and `A.T` is lineax's
    (unconjugated) transpose; for real operators both are the same.
    """

    @abc.abstractmethod
    def adjoint_mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        r"""The adjoint $A^* y$, exact to rounding: $\langle Ax,y\rangle=\langle x,A^*y\rangle$."""

    def normal_mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """$A^* A x$; overridden where that costs less than the two products."""
        return self.adjoint_mv(self.mv(vector))

    def transpose(self) -> lx.AbstractLinearOperator:
        return _Derived(self, transposed=True, conjugated=False)

    # Scalars take the dtype of the operator: lineax would make a Python number as wide as x64
    # allows, and so widen float32 data.
    def __mul__(self, other):
        return super().__mul__(_as_scalar(other, self))

    def __truediv__(self, other):
        return super().__truediv__(_as_scalar(other, self))

    def as_matrix(self) -> Array:
        return lx.FunctionLinearOperator(self.mv, self.in_structure()).as_matrix()


class _Derived(lx.AbstractLinearOperator):
    """The transpose, the conjugate or the adjoint of an operator."""

    operator: AbstractOperator
    transposed: bool = eqx.field(static=True)
    conjugated: bool = eqx.field(static=True)

    def mv(self, vector):
        apply = self.operator.adjoint_mv if self.transposed else self.operator.mv
        if self.transposed == self.conjugated:
            return apply(vector)
        return _conj(apply(_conj(vector)))

    def transpose(self):
        return _derive(self.operator, not self.transposed, self.conjugated)

    def as_matrix(self):
        matrix = self.operator.as_matrix()
        matrix = matrix.T if self.transposed else matrix
        return matrix.conj() if self.conjugated else matrix

    def in_structure(self):
        op = self.operator
        return op.out_structure() if self.transposed else op.in_structure()

    def out_structure(self):
        op = self.operator
        return op.in_structure() if self.transposed else op.out_structure()


def _as_scalar(value, operator):
    value = jnp.asarray(value)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(operator.out_structure())}
    if len(dtypes) > 1 or (jnp.iscomplexobj(value) and not _is_complex(*dtypes)):
        return value
    return value.astype(dtypes.pop())


def _is_complex(dtype):
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _derive(operator, transposed, conjugated):
    if not (transposed or conjugated):
        return operator
    return _Derived(operator, transposed=transposed, conjugated=conjugated)


def _conj(tree):
    return jax.tree.map(lambda x: x.conj() if jnp.iscomplexobj(x) else x, tree)


def adjoint(operator: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    r"""The adjoint $A^*$ of any lineax operator: its conjugated transpose.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0, 1.0]))
        >>> jinv.operators.adjoint(A).mv(jnp.array([1.0, 2.0, 3.0]))
        Array([1., 0., 3.], dtype=float32)

        ```
    """
    return lx.conj(operator.transpose())


def _is_false(operator):
    return False


# lineax asks structural questions through `singledispatch`; the answers for a single forward
# model are "not known to be". An operator that knows better registers itself in its own file.
for _query in (
    lx.is_symmetric,
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.has_unit_diagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.is_positive_semidefinite,
    lx.is_negative_semidefinite,
):
    _query.register(AbstractOperator, _is_false)
    _query.register(_Derived, _is_false)


@lx.linearise.register(AbstractOperator)
@lx.linearise.register(_Derived)
def _(operator):
    return operator


@lx.materialise.register(AbstractOperator)
@lx.materialise.register(_Derived)
def _(operator):
    return lx.materialise(lx.FunctionLinearOperator(operator.mv, operator.in_structure()))


@lx.diagonal.register(AbstractOperator)
@lx.diagonal.register(_Derived)
def _(operator):
    return jnp.diagonal(operator.as_matrix())


@lx.conj.register(AbstractOperator)
def _(operator):
    return _derive(operator, False, True)


@lx.conj.register(_Derived)
def _(operator):
    return _derive(operator.operator, operator.transposed, not operator.conjugated)
