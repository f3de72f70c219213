"""jinv's learned proximal network: prox of a batch, and a step of its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jinv

from . import _lpn_problems as lpn
from ._contender import AbstractContender


VERSIONS = ("jinv", "jax", "jaxlib")


def device():
    found = jax.devices()[0]
    return found.platform, found.device_kind


def network(problem):
    """jinv's network with the weights of the problem."""
    data, params = problem.data, problem.params
    model = jinv.nn.convolutional_icnn(
        (params["side"],) * 2,
        params["channels"],
        strides=lpn.STRIDES,
        hidden=params["hidden"],
        beta=lpn.BETA,
        strong_convexity=lpn.STRONG_CONVEXITY,
        key=jax.random.key(0),
    )
    names = [f"{kind}{k}" for k in range(5) for kind in ("lift", "bias", "mix")]
    new = [jnp.asarray(data[name]) for name in (*names, "head") if name in data]
    return eqx.tree_at(_weights, model, new)


def _weights(model):
    found = []
    for layer in model.layers:
        found += [layer.lift]
        found += [] if layer.bias is None else [layer.bias]
        found += [] if layer.mix is None else [layer.mix.stored]
    return [*found, model.layers[-1].head.stored]


class _Prox(AbstractContender):
    """`at_once` images at a time, or all."""

    def __init__(self, problem, params):
        model, y = network(problem), jnp.asarray(problem.data["noisy"])
        self.n_weights = model.num_weights
        count = params.get("at_once")

        def prox(model, y):
            if count is None:
                return jax.vmap(model.gradient)(y)
            return jax.lax.map(model.gradient, y, batch_size=count)

        self._program, self._args = jax.jit(prox), (model, y)
        self._fn = self._program

    def compile(self):
        self._fn = self._program.lower(*self._args).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = jax.block_until_ready(self._fn(*self._args))

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self._found, np.float64))}


class _Step(AbstractContender):
    """`TrainStep` with proximal matching, Adam and the projection."""

    def __init__(self, problem, params):
        del params
        data, model = problem.data, network(problem)
        self.n_weights = model.num_weights
        clean, noisy = jnp.asarray(data["clean"]), jnp.asarray(data["noisy"])
        gamma = jnp.asarray(lpn.GAMMA * problem.params["side"], clean.dtype)
        chain = optax.chain(optax.adam(lpn.LEARNING_RATE), jinv.nn.keep_nonnegative())
        step = jinv.train.TrainStep(jinv.train.ProximalMatching(), chain)
        self._first, rest = eqx.partition(step.init(model), eqx.is_array)

        def advance(state, batch):
            state, metrics = step(eqx.combine(state, rest), batch, key=jax.random.key(0))
            return eqx.filter(state, eqx.is_array), metrics["loss"]

        self._program, self._batch = jax.jit(advance), (clean, noisy, gamma)
        self._fn = self._program

    def compile(self):
        self._fn = self._program.lower(self._first, self._batch).compile()

    def restart(self):
        self._state, self._losses = self._first, []

    def run(self, num_steps):
        for _ in range(num_steps):
            self._state, loss = self._fn(self._state, self._batch)
            self._losses.append(float(loss))
        jax.block_until_ready(self._state)

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self._losses[0])), "loss": self._losses[-1]}


METHODS = {"prox": _Prox, "step": _Step}
