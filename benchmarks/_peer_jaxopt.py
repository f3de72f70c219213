"""jaxopt's contenders (no longer maintained; its features are what its users miss)."""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from jaxopt import linear_solve

from ._hypergradient import Hypergradient


VERSIONS = ("jaxopt", "jax", "jaxlib")


def device():
    kind = jax.devices()[0]
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


def _misfit(w, data):
    residual = data["train_x"] @ w - data["train_y"]
    return 0.5 * jnp.mean(residual**2)


def _derivative(adjoint: str) -> dict[str, Any]:
    """`adjoint` is the linear solve of the implicit rule, or "unrolled"."""
    if adjoint == "unrolled":
        return {"implicit_diff": False, "unroll": True}
    return {"implicit_diff_solve": getattr(linear_solve, f"solve_{adjoint}")}


def _proximal_gradient(problem, params):
    """ProximalGradient (FISTA) with prox_lasso."""
    train_x = problem.data["train_x"]
    lipschitz = float(np.linalg.norm(train_x.astype(np.float64), 2) ** 2 / len(train_x))
    solver = jaxopt.ProximalGradient(
        fun=_misfit,
        prox=jaxopt.prox.prox_lasso,
        stepsize=1 / lipschitz if params["step_size"] == "fixed" else 0.0,
        maxiter=params["max_steps"],
        tol=params["tol"],
        acceleration=params["accelerated"],
        **_derivative(params["adjoint"]),
    )
    start = np.zeros(problem.size, train_x.dtype)

    def solve(theta, data):
        return solver.run(jnp.asarray(start), jnp.exp(theta), data).params

    return Hypergradient(problem, solve)


def _dual_projected_gradient(problem, params):
    """TV denoising through its dual, min 1/2 |y - K'p|^2 with |p_i| <= lam: ProjectedGradient
    with the projection that jaxopt lacks."""
    shape = problem.data["y"].shape

    def image(p, data):
        down, right = jnp.pad(p[0, :-1], ((1, 1), (0, 0))), jnp.pad(p[1, :, :-1], ((0, 0), (1, 1)))
        return data["y"] + (down[1:] - down[:-1]) + (right[:, 1:] - right[:, :-1])

    def project(p, radius):
        length = jnp.sqrt(jnp.maximum(jnp.sum(p**2, axis=0, keepdims=True), radius**2))
        return p * (radius / length)

    solver = jaxopt.ProjectedGradient(
        fun=lambda p, data: 0.5 * jnp.sum(image(p, data) ** 2),
        projection=project,
        stepsize=1 / 8,
        maxiter=params["max_steps"],
        tol=params["tol"],
        acceleration=True,
        **_derivative(params["adjoint"]),
    )
    start = np.zeros((2, *shape), problem.data["y"].dtype)

    def solve(theta, data):
        p = solver.run(jnp.asarray(start), jnp.exp(theta), data).params
        return image(p, data)

    return Hypergradient(problem, solve)


METHODS = {
    "ProximalGradient": _proximal_gradient,
    "dual ProjectedGradient": _dual_projected_gradient,
}
