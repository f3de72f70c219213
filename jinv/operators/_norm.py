"""The spectral norm of an operator, in closed form where it is known."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Key, Real

from ._base import _Derived, adjoint
from ._spectrum import gram_spectrum


@ft.singledispatch
def norm_bound(operator: lx.AbstractLinearOperator) -> Real[Array, ""] | None:
    r"""The spectral norm $\|A\|_2$ in closed form, or `None` where none is known.

    The value is exact, hence a sharp upper bound. It comes from
    [`jinv.operators.gram_spectrum`][] unless an operator registers its own rule. A composition
    has none, because the product of the norms is only an upper bound.

    **Arguments:**

    - `operator`: any lineax operator.

    !!! example
        ```python
        >>> import jinv
        >>> K = jinv.operators.FiniteDifference((64, 64), boundary="circular")
        >>> round(float(jinv.operators.norm_bound(K)) ** 2, 4)
        8.0

        ```
    """
    spectrum = gram_spectrum(operator)
    return None if spectrum is None else jnp.sqrt(jnp.max(spectrum.eigenvalues))


@norm_bound.register
def _(operator: lx.MulLinearOperator):
    inner = norm_bound(operator.operator)
    return None if inner is None else _times(inner, jnp.abs(operator.scalar))


@norm_bound.register
def _(operator: lx.DivLinearOperator):
    inner = norm_bound(operator.operator)
    return None if inner is None else _times(inner, 1 / jnp.abs(operator.scalar))


@norm_bound.register(lx.NegLinearOperator)
@norm_bound.register(lx.TaggedLinearOperator)
@norm_bound.register(_Derived)
def _(operator):
    return norm_bound(operator.operator)


def _times(norm, factor):
    return norm * factor.astype(norm.dtype)


def operator_norm(
    operator: lx.AbstractLinearOperator,
    *,
    key: Key[Array, ""] | None = None,
    max_steps: int = 64,
    rtol: Real[jax.typing.ArrayLike, ""] = 1e-4,
) -> Real[Array, ""]:
    r"""The spectral norm $\|A\|_2 = \max_{\|x\| = 1} \|A x\|$, which sets the step sizes of
    first-order solvers.

    Where [`jinv.operators.norm_bound`][] knows it, the closed form is returned. Otherwise it is
    estimated by Golub-Kahan bidiagonalisation (Lanczos' method on $A^* A$): one product with $A$
    and one with $A^*$ per step, until two successive steps change it by less than `rtol`,
    relatively.
    The estimate approaches the norm **from below**: when a step size must not exceed
    $1/\|A\|$, leave a margin of some `rtol`.

    The result carries no derivative: every array of `operator` is behind a `stop_gradient`.

    **Arguments:**

    - `operator`: any lineax operator; its inputs and outputs may be PyTrees.
    - `key`: of the random start vector; a fixed one by default, so that results repeat.
    - `max_steps`: the largest number of steps. Few more than 20 are usually taken.
    - `rtol`: the relative change at which to stop.

    **Returns:** a scalar in the real dtype of the operator; 0 for a zero operator.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv, lineax as lx
        >>> A = lx.MatrixLinearOperator(jnp.array([[3.0, 0.0], [4.0, 5.0]]))
        >>> round(float(jinv.operators.operator_norm(A)), 3)
        6.708

        ```

    Source: Golub and Kahan, "Calculating the singular values and pseudo-inverse of a matrix",
    1965. No reorthogonalisation: rounding repeats Ritz values but does not move the largest.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    arrays, static = eqx.partition(operator, eqx.is_array)
    operator = eqx.combine(lax.stop_gradient(arrays), static)
    closed = norm_bound(operator)
    if closed is not None:
        return closed
    return _golub_kahan(operator, jax.random.key(0) if key is None else key, max_steps, rtol)


def _golub_kahan(operator, key, max_steps, rtol):
    back = adjoint(operator)
    leaves, treedef = jax.tree.flatten(operator.in_structure())
    keys = jax.random.split(key, len(leaves))
    start = [jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, leaves, strict=True)]
    v, _ = _unit(jax.tree.unflatten(treedef, start))
    u, alpha = _unit(operator.mv(v))
    dtype = alpha.dtype
    rtol = jnp.asarray(rtol, dtype=dtype)
    gram = jnp.zeros((max_steps, max_steps), dtype).at[0, 0].set(alpha**2)

    def unfinished(carry):
        step, calm, *_ = carry
        return (step < max_steps) & (calm < 2)

    def advance(carry):
        step, calm, norm, gram, alpha, u, v = carry
        v, beta = _unit(_axpy(-alpha, v, back.mv(u)))
        u, new_alpha = _unit(_axpy(-beta, u, operator.mv(v)))
        gram = gram.at[step, step].set(new_alpha**2 + beta**2)
        gram = gram.at[step - 1, step].set(alpha * beta).at[step, step - 1].set(alpha * beta)
        new_norm = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], norm**2))
        # Written so that a NaN ends the loop.
        calm = jnp.where(new_norm - norm > rtol * new_norm, 0, calm + 1)
        return step + 1, calm, new_norm, gram, new_alpha, u, v

    init = (jnp.asarray(1), jnp.asarray(0), alpha, gram, alpha, u, v)
    return lax.while_loop(unfinished, advance, init)[2]


def _axpy(scalar, x, y):
    return jax.tree.map(lambda a, b: b + scalar.astype(b.dtype) * a, x, y)


def _unit(tree):
    """The tree over its norm (zero stays zero), and the norm."""
    squares = [jnp.sum(x.real**2 + x.imag**2) for x in jax.tree.leaves(tree)]
    dtype = jnp.result_type(*squares)
    norm = jnp.sqrt(sum(s.astype(dtype) for s in squares))
    inverse = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    return jax.tree.map(lambda x: x * inverse.astype(x.dtype), tree), norm
