"""Whether the convergence theorem of a solver covers a run with a non-convex term."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Real

from .._composite import Composite
from .._functional import AbstractFunctional
from ..data_terms import DataTerm


def needs_certificate(*terms: AbstractFunctional | None) -> bool:
    """Whether one of the terms is not convex by construction."""
    return any(_modulus(term) is not None for term in terms)


def _modulus(term):
    """The modulus of weak convexity; `None` for a convex term."""
    weak = 0.0 if term is None else term.weak_convexity()
    return None if isinstance(weak, float) and weak == 0 else weak


def curvature(problem: Composite) -> Real[Array, ""] | None:
    r"""The Lipschitz constant $L$ of the gradient of the data term, `None` if it is not known."""
    for term in (problem.smooth, problem.proximable):
        if isinstance(term, DataTerm) and term.has_lipschitz_gradient():
            return term.lipschitz()
    return None


def forward_backward(
    term: AbstractFunctional, step_size: Real[Array, ""], lipschitz: Real[Array, ""]
) -> Bool[Array, ""]:
    r"""Proximal gradient: $t L < 1$, for any term with an exact prox."""
    return (step_size * lipschitz < 1) & ~jnp.isnan(jnp.asarray(_modulus(term)))


def alternating_directions(
    terms: tuple[AbstractFunctional, ...],
    penalty: Real[Array, ""],
    lipschitz: Real[Array, ""],
    relaxation,
) -> Bool[Array, ""]:
    r"""ADMM: $\rho > L$, with proxes at $1/\rho$ of terms of modulus at most $\rho$ and without
    over-relaxation."""
    found = (penalty > lipschitz) & (jnp.asarray(relaxation) == 1)
    for term in terms:
        modulus = _modulus(term)
        if modulus is not None:
            slack = 1 + 8 * jnp.finfo(penalty.dtype).eps
            found = found & (jnp.asarray(modulus, penalty.dtype) <= penalty * slack)
    return found
