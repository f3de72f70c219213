"""A hypergradient as a contender, for any library on JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from ._contender import AbstractContender


class Hypergradient(AbstractContender):
    """Calls of one compiled function theta -> (value, solution), differentiated in theta = log lam.

    Any JAX library is written this way. `solve(theta, data)` returns the inner solution; data are
    arguments, since XLA would fold closed-over constants.
    """

    def __init__(self, problem, solve):
        self._data = {name: jnp.asarray(value) for name, value in problem.data.items()}
        dtype = next(iter(self._data.values())).dtype
        self._theta = jnp.asarray(np.log(problem.params["lam"]), dtype)
        loss = _LOSSES[problem.name]

        def outer(theta, data):
            x = solve(theta, data)
            return loss(x, data), x

        self._function = jax.jit(jax.value_and_grad(outer, has_aux=True))

    def compile(self):
        self._compiled = self._function.lower(self._theta, self._data).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = jax.block_until_ready(self._compiled(self._theta, self._data))

    def metrics(self, problem):
        (value, x), slope = self._found
        return {
            "objective": problem.objective(np.asarray(x, np.float64)),
            "outer_value": float(value),
            "hypergradient": float(slope),
        }


def _validation(w, data):
    residual = data["valid_x"] @ w - data["valid_y"]
    return 0.5 * jnp.mean(residual**2)


def _squared_error(x, data):
    return 0.5 * jnp.mean((x - data["truth"]) ** 2)


_LOSSES = {"lasso": _validation, "tv_weight": _squared_error}
