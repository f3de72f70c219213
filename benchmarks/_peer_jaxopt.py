"""jaxopt's contenders (no longer maintained; its features are what its users miss)."""

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from jaxopt import linear_solve

from ._contender import AbstractContender


VERSIONS = ("jaxopt", "jax", "jaxlib")


def device():
    kind = jax.devices()[0]
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


class Hypergradient(AbstractContender):
    """Calls of one compiled function theta -> (value, solution), differentiated in theta = log lam.

    Public: any JAX library can be written this way, jinv included. `solve(theta, data)` returns
    the lasso weights; data are arguments, since XLA would fold closed-over constants.
    """

    def __init__(self, problem, solve):
        self._data = {name: jnp.asarray(value) for name, value in problem.data.items()}
        dtype = self._data["train_x"].dtype
        self._theta = jnp.asarray(np.log(problem.params["lam"]), dtype)

        def outer(theta, data):
            w = solve(theta, data)
            residual = data["valid_x"] @ w - data["valid_y"]
            return 0.5 * jnp.mean(residual**2), w

        self._function = jax.jit(jax.value_and_grad(outer, has_aux=True))

    def compile(self):
        self._compiled = self._function.lower(self._theta, self._data).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = jax.block_until_ready(self._compiled(self._theta, self._data))

    def metrics(self, problem):
        (value, w), slope = self._found
        return {
            "objective": problem.objective(np.asarray(w, np.float64)),
            "outer_value": float(value),
            "hypergradient": float(slope),
        }


def _misfit(w, data):
    residual = data["train_x"] @ w - data["train_y"]
    return 0.5 * jnp.mean(residual**2)


def _proximal_gradient(problem, params):
    """ProximalGradient (FISTA) with prox_lasso; `adjoint` is the linear solve of the implicit
    rule, or "unrolled"."""
    train_x = problem.data["train_x"]
    lipschitz = float(np.linalg.norm(train_x.astype(np.float64), 2) ** 2 / len(train_x))
    unrolled = params["adjoint"] == "unrolled"
    options = (
        {"implicit_diff": False, "unroll": True}
        if unrolled
        else {"implicit_diff_solve": getattr(linear_solve, f"solve_{params['adjoint']}")}
    )
    solver = jaxopt.ProximalGradient(
        fun=_misfit,
        prox=jaxopt.prox.prox_lasso,
        stepsize=1 / lipschitz if params["step_size"] == "fixed" else 0.0,
        maxiter=params["max_steps"],
        tol=params["tol"],
        acceleration=params["accelerated"],
        **options,
    )
    start = np.zeros(problem.size, train_x.dtype)

    def solve(theta, data):
        return solver.run(jnp.asarray(start), jnp.exp(theta), data).params

    return Hypergradient(problem, solve)


METHODS = {"ProximalGradient": _proximal_gradient}
