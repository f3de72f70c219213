"""Whether the convergence theorem of a solver covers a run with a non-convex term."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Real

from .._composite import Composite
from .._functional import AbstractFunctional
from ..data_terms import DataTerm
from ._quadratic import Split


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
    r"""Proximal gradient: $t L < 1$ with a known $L$, for any term with an exact prox: a closed
    form (of unbounded modulus), or $t$ at most one over the modulus. Comparisons with `nan`,
    for what is not known, are false."""
    modulus = jnp.asarray(_modulus(term), step_size.dtype)
    exact = jnp.isinf(modulus) | (step_size * modulus <= 1 + _slack(step_size))
    return (step_size * lipschitz < 1) & exact


def alternating_directions(
    split: Split, penalty: Real[Array, ""], lipschitz: Real[Array, ""], relaxation
) -> Bool[Array, ""]:
    r"""ADMM: $\rho > L$ without over-relaxation, for a single copy of $x$ itself whose term has a
    modulus of at most $\rho$."""
    if split.operators != (None,):
        return jnp.zeros((), bool)
    modulus = jnp.asarray(_modulus(split.functionals[0]), penalty.dtype)
    exact = modulus <= penalty * (1 + _slack(penalty))
    return (penalty > lipschitz) & (jnp.asarray(relaxation) == 1) & exact


def _slack(step):
    """For what went through a reciprocal."""
    return 8 * float(jnp.finfo(step.dtype).eps)
