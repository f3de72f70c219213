"""Normal equations: sums of Gram operators, solved by a fast transform or by lineax."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Bool, PyTree

from .. import _tree
from .._linear import UnitScale, solver_tolerance
from .._loop import stop_gradient
from ._base import AbstractOperator, adjoint
from ._spectrum import Spectrum, gram_spectrum


class NormalSystem(eqx.Module):
    r"""The system $\big(\sum_i c_i K_i^* W_i K_i\big) x = r$ for coefficients $c_i \ge 0$.

    Where one orthogonal transform diagonalises every Gram operator the solve is exact and costs
    two transforms; otherwise it is a lineax solve, by default with conjugate gradients.

    **Arguments:**

    - `operators`: the $K_i$; `None` is the identity.
    - `weights`: the $W_i$, scalars or arrays that broadcast against the range of $K_i$.
    - `linear_solver`: used where no transform applies, or always if given.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0]))
        >>> system = jinv.operators.NormalSystem((A, None), (1.0, 1.0))
        >>> rhs = jnp.array([4.0, 3.0])
        >>> x, solved = system.solve((1.0, 1.0), rhs, guess=rhs)
        >>> jnp.round(x, 4)
        Array([2., 3.], dtype=float32)

        ```
    """

    operators: tuple[lx.AbstractLinearOperator | None, ...]
    weights: tuple[PyTree[Array], ...]
    spectra: tuple[Spectrum, ...] | None
    linear_solver: lx.AbstractLinearSolver | None

    def __init__(self, operators, weights, linear_solver=None):
        self.operators = operators
        self.weights = tuple(jax.tree.map(jnp.asarray, w) for w in weights)
        self.linear_solver = linear_solver
        self.spectra = None
        if all(map(_is_scalar, self.weights)) and linear_solver is None:
            self.spectra = _common_spectra(operators)

    def apply(self, coefficients, x: PyTree[Array]) -> PyTree[Array]:
        total = jax.tree.map(jnp.zeros_like, x)
        for c, op, weight in zip(coefficients, self.operators, self.weights, strict=True):
            scale = lambda u, w=weight: jax.tree.map(lambda leaf: _tree.cast(w, leaf) * leaf, u)
            if isinstance(op, AbstractOperator) and _is_scalar(weight):
                u = scale(op.normal_mv(x))
            else:
                u = scale(x if op is None else op.mv(x))
                u = u if op is None else adjoint(op).mv(u)
            total = _tree.add_scaled(total, c, u)
        return total

    def solve(
        self, coefficients, rhs: PyTree[Array], *, guess: PyTree[Array], rtol: Any = None
    ) -> tuple[PyTree[Array], Bool[Array, ""]]:
        """The solution, and whether the system could be solved."""
        if self.spectra is not None:
            total = self._spectrum(coefficients, rhs)
            smallest, largest = jnp.min(total.eigenvalues), jnp.max(total.eigenvalues)
            solvable = smallest > largest * jnp.finfo(largest.dtype).eps
            return total.solve(rhs), solvable
        tolerance = solver_tolerance(rhs) if rtol is None else rtol
        solver = self.linear_solver
        if solver is None:
            solver = UnitScale(lx.CG(rtol=tolerance, atol=tolerance, norm=optx.rms_norm))
        operator = lx.FunctionLinearOperator(
            lambda x: self.apply(coefficients, x),
            jax.eval_shape(lambda: rhs),
            lx.positive_semidefinite_tag,
        )
        options = {"y0": stop_gradient(guess)} if self.linear_solver is None else {}
        solution = lx.linear_solve(operator, rhs, solver, options=options, throw=False)
        solved = (solution.result == lx.RESULTS.successful) & _tree.all_finite(solution.value)
        return solution.value, solved

    def _spectrum(self, coefficients, rhs):
        assert self.spectra is not None
        leaf = jax.tree.leaves(rhs)[0].real
        parts = [
            s * (_tree.cast(c, leaf) * _tree.cast(w, leaf))
            for s, c, w in zip(self.spectra, coefficients, self.weights, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def _is_scalar(weight):
    return eqx.is_array(weight) and weight.ndim == 0


def _common_spectra(operators) -> tuple[Spectrum, ...] | None:
    identity = Spectrum(jnp.ones(()), "identity")
    spectra = [identity if op is None else gram_spectrum(op) for op in operators]
    known = tuple(s for s in spectra if s is not None)
    if len(known) < len(spectra):
        return None
    return known if all(a.compatible(b) for a in known for b in known) else None
