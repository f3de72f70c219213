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
    weak = _modulus(term)
    modulus = jnp.asarray(0.0 if weak is None else weak, step_size.dtype)
    exact = jnp.isinf(modulus) | (step_size * modulus <= 1 + _slack(step_size))
    return (step_size * lipschitz < 1) & exact


def alternating_directions(
    split: Split, penalty: Real[Array, ""], lipschitz: Real[Array, ""], relaxation
) -> Bool[Array, ""]:
    r"""ADMM: $\rho > L$ without over-relaxation, for a single copy of $x$ itself whose term has a
    modulus of at most $\rho$."""
    plain = (penalty > lipschitz) & (jnp.asarray(relaxation) == 1)
    return plain & _one_exact_copy(split, penalty)


def alternating_minimisation(
    split: Split, penalty: Real[Array, ""], limit: Real[Array, ""]
) -> Bool[Array, ""]:
    r"""Half-quadratic splitting at its last penalty: then it is the proximal gradient method for
    the Moreau envelope of the quadratic term at $1/\rho$, whose gradient has a Lipschitz constant
    of $\rho L / (\rho + L) < \rho$ whatever $L$ is."""
    return (penalty >= limit) & _one_exact_copy(split, penalty)


def reflections(
    term: AbstractFunctional, step_size: Real[Array, ""], lipschitz: Real[Array, ""], relaxation
) -> Bool[Array, ""]:
    r"""Douglas-Rachford with a convex smooth first term: $t L < 1$, a relaxation in (0, 2), and
    an exact prox of the other term, as for `forward_backward`."""
    relaxation = jnp.asarray(relaxation)
    between = (relaxation > 0) & (relaxation < 2)
    return between & forward_backward(term, step_size, lipschitz)


def _one_exact_copy(split: Split, penalty: Real[Array, ""]) -> Bool[Array, ""]:
    if split.operators != (None,):
        return jnp.zeros((), bool)
    modulus = jnp.asarray(_modulus(split.functionals[0]), penalty.dtype)
    return modulus <= penalty * (1 + _slack(penalty))


def _slack(step):
    """For what went through a reciprocal."""
    return 8 * float(jnp.finfo(step.dtype).eps)
