"""Search directions: the interface of learned ones, and what else can give a direction."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PyTree

from .. import _tree
from .._loop import hoist
from ._diffusion import Diffusion
from ._preconditioner import AbstractPreconditioner


class AbstractDirection(eqx.Module):
    """How to make a search direction from a residual, set up from an operator.

    For models that look at the operator. The setting up is part of a solve (`solver.init`), so
    that one model serves operators that change, inside `jit` and `vmap`. A model that sees the
    residual alone is simply a function.
    """

    @abc.abstractmethod
    def init(self, operator: lx.AbstractLinearOperator) -> Callable:
        """A function from a residual of norm one to a direction, linear or not."""


Direction = AbstractDirection | AbstractPreconditioner | lx.AbstractLinearOperator | Callable


def conjugate_direction_loss(
    direction: Direction, operator: lx.AbstractLinearOperator, batch: PyTree[Array]
) -> Float[Array, ""]:
    r"""How far a direction is from solving a system with the best step along it:
    $\operatorname{mean}_b \|b - \alpha A y\|^2 / \|b\|^2$ with $y = f(b / \|b\|)$,
    $\alpha = \langle y, b\rangle / \langle y, A y\rangle$.

    Unsupervised, for training the direction models of [`jinv.linear.DCDM`][]: no solutions are
    needed, the length of $y$ does not matter, and zero means that one step solves every system
    of the batch. Costs a direction and a product per right-hand side, and their derivatives.

    **Arguments:**

    - `direction`: $f$, whatever `DCDM` accepts, and applied as it does (see there).
    - `operator`: $A$, positive definite. For several, `vmap` over the operator and its batch.
    - `batch`: right-hand sides in the structure of the operator's vectors, stacked along a
        first axis; such as [`jinv.linear.RitzSamples`][].

    **Returns:** a scalar. A right-hand side or a direction of zero counts as one (nothing was
    gained), without a derivative.

    Raises `ValueError` for a direction that does not fit.

    Source: A. Kaneda et al., *A Deep Conjugate Direction Method for Iteratively Solving Linear
    Systems*, 2023, as in the authors' program, which takes the mean. Deviation: the division by
    the norms, which are one there.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> A = jinv.linear.poisson(8)
        >>> batch = jax.random.normal(jax.random.key(0), (5, 8))
        >>> identity = jinv.linear.conjugate_direction_loss(lambda r: r, A, batch)
        >>> inverse = jnp.linalg.inv(A.as_matrix())
        >>> solved = jinv.linear.conjugate_direction_loss(lambda r: inverse @ r, A, batch)
        >>> bool(identity > 0.1), bool(solved < 1e-6)
        (True, True)

        ```
    """
    apply = as_direction(direction, operator)

    def one(rhs):
        size = _tree.norm(rhs)
        rhs = _tree.scale(1 / jnp.where(size > 0, size, 1), rhs)
        y = apply(rhs)
        product = operator.mv(y)
        curvature = _tree.dot(y, product)
        useful = (curvature > 0) & (size > 0)
        step = jnp.where(useful, _tree.dot(y, rhs), 0) / jnp.where(useful, curvature, 1)
        rest = _tree.sum_squares(_tree.add_scaled(rhs, -step, product))
        return jnp.where(useful, rest, 1)

    return jnp.mean(jax.vmap(one)(batch))


def as_direction(given: Direction, operator: lx.AbstractLinearOperator) -> Callable:
    """`given` as a function of a residual that is a PyTree of its arrays.

    What a function does in the lone cells of a grid, which it may know nothing of, is replaced
    by their exact solution. The values are cast to the dtypes of the operator.
    """
    structure = operator.in_structure()
    if isinstance(given, AbstractPreconditioner):
        given = given.init(operator)
    informed = isinstance(given, lx.AbstractLinearOperator)
    if isinstance(given, AbstractDirection):
        made = given.init(operator)
    else:
        made = given.mv if informed else given
    _check(made, structure)
    grid = None if informed else as_diffusion(operator)
    apply = made if grid is None else _OpenCells(made, grid.active(), grid.sink)
    apply = _Cast(apply)
    if isinstance(made, eqx.Module | jax.tree_util.Partial):
        return apply  # its arrays are visible; hoisting makes a new function, to be compiled anew
    return hoist(apply, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), structure))


def _check(apply, structure):
    if not callable(apply):
        raise ValueError(
            "direction must be a function, an AbstractDirection, an AbstractPreconditioner or a "
            f"lineax operator, got {type(apply).__name__}."
        )
    try:
        out = jax.eval_shape(apply, structure)
    except (ValueError, TypeError) as error:
        raise ValueError(f"direction cannot be applied to {structure}: {error}") from error
    fits = jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, structure)
    if not fits or not all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(out)):
        raise ValueError(f"direction must map {structure} to the same shapes, got {out}.")


def as_diffusion(operator: lx.AbstractLinearOperator) -> Diffusion | None:
    """The grid operator below tags and pairs of signs, if it is one."""
    positive = True
    while not isinstance(operator, Diffusion):
        if isinstance(operator, lx.NegLinearOperator):
            positive = not positive
        elif not isinstance(operator, lx.TaggedLinearOperator):
            return None
        operator = operator.operator
    return operator if positive else None


class _OpenCells(eqx.Module):
    """A direction on the cells with open faces, and exact on the lone ones."""

    apply: Callable
    active: Bool[Array, "..."]
    sink: Float[Array, "..."]

    def __call__(self, residual):
        lone = jnp.where(self.sink > 0, residual / jnp.where(self.sink > 0, self.sink, 1), 0)
        direction = self.apply(jnp.where(self.active, residual, 0))
        return jnp.where(self.active, direction.astype(residual.dtype), lone)


class _Cast(eqx.Module):
    apply: Callable

    def __call__(self, residual):
        return jax.tree.map(lambda d, r: d.astype(r.dtype), self.apply(residual), residual)
