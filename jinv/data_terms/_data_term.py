"""Data terms: how far the prediction of a forward model is from the data."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, PyTree, Real

from .. import _tree
from .._functional import AbstractFunctional
from ..operators import NormalSystem, adjoint, operator_norm
from ..prox import L1, Huber, KullbackLeibler, SquaredL2, Translated


class DataTerm(AbstractFunctional):
    r"""A data term $f(x) = \ell(A x)$: a loss on the data space behind a forward model.

    Use `least_squares`, `poisson`, `huber`, `least_absolute` to make one. It serves as the
    `smooth` term of a `Composite` (where the loss is smooth) and, when the loss is quadratic or
    $A$ is the identity, as the `proximable` one. For any other loss without smoothness, pass
    `loss` as the `penalty` and `operator` as the `operator` of the composite problem.

    **Arguments:**

    - `operator`: $A$, or `None` for the identity.
    - `loss`: $\ell$, a functional on the data space.
    - `linear_solver`: for the prox of a quadratic term, where no fast transform solves
        $(I + t A^* W A) u = v + t A^* W b$; by default conjugate gradients.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.DataTerm(None, jinv.prox.L1())
        >>> float(f(jnp.array([1.0, -2.0])))
        3.0

        ```
    """

    operator: lx.AbstractLinearOperator | None
    loss: AbstractFunctional
    linear_solver: lx.AbstractLinearSolver | None = None

    def predict(self, x: PyTree[Array]) -> PyTree[Array]:
        """$A x$."""
        return x if self.operator is None else self.operator.mv(x)

    def __call__(self, x):
        return self.loss(self.predict(x))

    def is_quadratic(self) -> bool:
        """Whether the term is a (weighted) least-squares term."""
        return isinstance(self.loss, Translated) and isinstance(self.loss.functional, SquaredL2)

    def quadratic(self) -> tuple[PyTree[Array], PyTree[Array]]:
        """The weights $W$ and data $b$ of a least-squares term."""
        if not self.is_quadratic():
            raise ValueError("this data term is not a least-squares term")
        assert isinstance(self.loss, Translated) and isinstance(self.loss.functional, SquaredL2)
        return self.loss.functional.weight, self.loss.shift

    def normal_rhs(self) -> PyTree[Array]:
        """$A^* W b$ of a least-squares term."""
        weight, data = self.quadratic()
        weighted = jax.tree.map(lambda b: _tree.cast(weight, b) * b, data)
        return weighted if self.operator is None else adjoint(self.operator).mv(weighted)

    def has_lipschitz_gradient(self) -> bool:
        """Whether `lipschitz` knows a constant."""
        loss = self.loss.functional if isinstance(self.loss, Translated) else self.loss
        return isinstance(loss, SquaredL2 | Huber)

    def lipschitz(self) -> Real[Array, ""] | None:
        r"""A Lipschitz constant of the gradient, $\max W\,\|A\|^2$; `None` if none is known."""
        loss = self.loss.functional if isinstance(self.loss, Translated) else self.loss
        if not self.has_lipschitz_gradient():
            return None
        assert isinstance(loss, SquaredL2 | Huber)
        largest = jnp.max(jnp.asarray(loss.weight))
        if self.operator is None:
            return largest
        norm = operator_norm(self.operator)
        return largest.astype(norm.dtype) * norm**2

    def has_fast_prox(self):
        if self.operator is None:
            return self.loss.has_fast_prox()
        return self.is_quadratic() and self._system().spectra is not None

    def prox(self, v, step_size):
        if self.operator is None:
            return self.loss.prox(v, step_size)
        return self.warm_prox(v, step_size, v)[0]

    def init_prox(self, v):
        return None if self.operator is None else v

    def warm_prox(self, v, step_size, carry):
        if self.operator is None:
            return self.loss.prox(v, step_size), carry
        if not self.is_quadratic():
            raise ValueError(
                f"the prox of {type(self.loss).__name__} behind an operator has no closed form; "
                "pass the loss as `penalty` and the operator as `operator` of the Composite"
            )
        rhs = _tree.add_scaled(v, step_size, self.normal_rhs())
        u, _ = self._system().solve((step_size, 1.0), rhs, guess=carry)
        return u, u

    def _system(self) -> NormalSystem:
        weight, _ = self.quadratic()
        return NormalSystem((self.operator, None), (weight, 1.0), self.linear_solver)


def least_squares(
    operator: lx.AbstractLinearOperator | None,
    data: PyTree[ArrayLike],
    weight: PyTree[ArrayLike] = 1.0,
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
) -> DataTerm:
    r"""Weighted least squares, $f(x) = \tfrac12 \sum_i w_i |(A x - b)_i|^2$: Gaussian noise of
    variance $1 / w_i$.

    **Arguments:**

    - `operator`: $A$, or `None` for denoising.
    - `data`: $b$, of the structure of the range of $A$.
    - `weight`: $w \ge 0$, a scalar or an array that broadcasts against the data. A scalar keeps
        the fast transforms of convolutions and Fourier sampling available.
    - `linear_solver`: see `DataTerm`.

    **Returns:** a `DataTerm`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0]))
        >>> float(jinv.data_terms.least_squares(A, jnp.array([1.0, 0.0]))(jnp.array([3.0, 5.0])))
        2.0

        ```
    """
    data = _checked(operator, data)
    return DataTerm(operator, Translated(SquaredL2(weight), data), linear_solver)


def poisson(
    operator: lx.AbstractLinearOperator | None,
    counts: PyTree[ArrayLike],
    background: PyTree[ArrayLike] = 0.0,
) -> DataTerm:
    r"""The Kullback-Leibler divergence, $f(x) = \sum_i u_i + r_i - b_i \log(u_i + r_i)$ with
    $u = A x$, up to a constant: Poisson counts $b$ over a background $r$.

    Its gradient is not Lipschitz where $u + r$ reaches zero: use a positive background with
    FISTA, or pass the loss as a `penalty` to PDHG or ADMM.

    **Arguments:**

    - `operator`: $A$ with non-negative entries, or `None`.
    - `counts`: $b \ge 0$, of the structure of the range of $A$.
    - `background`: $r \ge 0$.

    **Returns:** a `DataTerm`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.poisson(None, jnp.array([2.0, 0.0]))
        >>> f.prox(jnp.array([2.0, -1.0]), 1.0)
        Array([2., 0.], dtype=float32)

        ```
    """
    return DataTerm(operator, KullbackLeibler(_checked(operator, counts, "counts"), background))


def huber(
    operator: lx.AbstractLinearOperator | None,
    data: PyTree[ArrayLike],
    delta: PyTree[ArrayLike] = 1.0,
    weight: PyTree[ArrayLike] = 1.0,
) -> DataTerm:
    r"""The Huber loss of $A x - b$: quadratic below `delta`, linear above (see
    `jinv.prox.Huber`); smooth, and robust against outliers.

    **Returns:** a `DataTerm`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.huber(None, jnp.zeros(2), delta=1.0)
        >>> float(f(jnp.array([1.0, 0.0])))
        0.5

        ```
    """
    return DataTerm(operator, Translated(Huber(delta, weight), _checked(operator, data)))


def least_absolute(
    operator: lx.AbstractLinearOperator | None,
    data: PyTree[ArrayLike],
    weight: PyTree[ArrayLike] = 1.0,
) -> DataTerm:
    r"""The weighted L1 distance, $f(x) = \sum_i w_i |(A x - b)_i|$: impulsive noise. Not smooth:
    pass its `loss` as a `penalty`.

    **Returns:** a `DataTerm`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> f = jinv.data_terms.least_absolute(None, jnp.array([1.0, 1.0]))
        >>> f.prox(jnp.array([4.0, 1.5]), 1.0)
        Array([3., 1.], dtype=float32)

        ```
    """
    return DataTerm(operator, Translated(L1(weight), _checked(operator, data)))


def _checked(operator: Any, data: PyTree[ArrayLike], name: str = "data") -> PyTree[Array]:
    data = jax.tree.map(jnp.asarray, data)
    if operator is None:
        return data
    told = lambda tree: jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)
    expected = told(operator.out_structure())
    if told(data) != expected:
        raise ValueError(
            f"`{name}` must have the structure of the range of `operator`, {expected}, "
            f"got {told(data)}"
        )
    return data
