"""When a splitting solver stops: primal and dual residuals against relative and absolute bounds."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Real

from .. import _tree
from .._composite import Composite


class Residuals(eqx.Module):
    """Norms of the primal and dual residual, the norms they are compared with, the objective."""

    primal: Real[Array, ""]
    dual: Real[Array, ""]
    primal_scale: Real[Array, ""]
    dual_scale: Real[Array, ""]
    objective: Real[Array, ""]

    def converged(self, rtol: Any, atol: Any, sizes: tuple[int, int]) -> Bool[Array, ""]:
        """Each norm is at most `sqrt(size) * atol + rtol * scale` (Boyd, Parikh, Chu, Peleato,
        Eckstein, Distributed optimization and statistical learning via ADMM, 2011, eq. 3.12)."""

        def small(residual, scale, size):
            cast = lambda x: jnp.asarray(x, residual.dtype)
            bound = cast(size**0.5) * cast(atol) + cast(rtol) * scale
            # Squares of a diverging iterate overflow first: inf <= inf is no convergence.
            return (residual <= bound) & jnp.isfinite(residual)

        primal = small(self.primal, self.primal_scale, sizes[0])
        return primal & small(self.dual, self.dual_scale, sizes[1])

    def relative(self) -> tuple[Real[Array, ""], Real[Array, ""]]:
        """The primal and the dual residual over their scales."""
        return _ratio(self.primal, self.primal_scale), _ratio(self.dual, self.dual_scale)

    def stats(self) -> dict[str, Array]:
        return {
            "residual": jnp.maximum(*self.relative()),
            "objective": self.objective,
            "primal_residual": self.primal,
            "dual_residual": self.dual,
        }


def unmeasured(x: PyTree[Array]) -> Residuals:
    """Residuals before the first measurement."""
    infinite = jnp.asarray(jnp.inf, _tree.real_dtype(x))
    one = jnp.ones_like(infinite)
    return Residuals(infinite, infinite, one, one, infinite)


def _ratio(residual, scale):
    return jnp.where(residual == 0, 0, residual / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))


def size(tree: PyTree[Array]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def require_composite(problem: Any, solver: Any) -> Composite:
    if not isinstance(problem, Composite):
        raise ValueError(
            f"{type(solver).__name__} solves jinv.Composite problems, got {type(problem).__name__}"
        )
    return problem


def check_tolerances(solver: Any, **positive: Any) -> None:
    """Rejects what is wrong in the constructor of a solver, as far as it is a Python number."""
    for name, value in {"rtol": solver.rtol, "atol": solver.atol}.items():
        if isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"`{name}` must be non-negative, got {value}")
    if solver.check_every < 1:
        raise ValueError(f"`check_every` must be at least 1, got {solver.check_every}")
    for name, value in positive.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}")
