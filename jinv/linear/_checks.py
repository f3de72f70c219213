"""What the linear solvers share: checks of their arguments, and what symmetry makes trivial."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer


class AbstractSymmetricSolver(lx.AbstractLinearSolver):
    """A solver of real symmetric systems: the transposed and the conjugate one are the same."""

    def transpose(self, state, options):
        return state, options

    def conj(self, state, options):
        return state, options


def check_operator(operator: lx.AbstractLinearOperator, solver: str) -> None:
    """Raises unless `operator` is real, square and tagged semi-definite."""
    if operator.in_structure() != operator.out_structure():
        raise ValueError(
            f"{solver} needs a square operator, got {operator.in_structure()} to "
            f"{operator.out_structure()}."
        )
    if not (lx.is_positive_semidefinite(operator) or lx.is_negative_semidefinite(operator)):
        raise ValueError(
            f"{solver} needs an operator that is positive (or negative) semi-definite and says "
            "so: tag it with `lineax.TaggedLinearOperator(A, lineax.positive_semidefinite_tag)`."
        )
    for leaf in jax.tree.leaves(operator.in_structure()):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"{solver} solves real systems, got an operator of {leaf.dtype}.")


def check_tolerances(rtol, atol) -> None:
    """Raises for tolerances that are known to be negative or not a number."""
    for name, value in {"rtol": rtol, "atol": atol}.items():
        if not isinstance(value, Tracer) and not (np.asarray(value) >= 0).all():
            raise ValueError(f"{name} must not be negative, got {value}.")
