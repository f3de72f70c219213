"""jinv's learned proximal network: prox of a batch, and a step of its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jinv

from . import _lpn_problems as lpn
from ._compiled import CompiledCalls, CompiledSteps, device as device, training


VERSIONS = ("jinv", "jax", "jaxlib")


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


class _Prox(CompiledCalls):
    """`at_once` images at a time, or all."""

    def __init__(self, problem, params):
        count = params.get("at_once")

        def prox(model, y):
            if count is None:
                return jax.vmap(model.gradient)(y)
            return jax.lax.map(model.gradient, y, batch_size=count)

        super().__init__(network(problem), prox, jnp.asarray(problem.data["noisy"]))


class _Step(CompiledSteps):
    """`TrainStep` with proximal matching, Adam and the projection."""

    def __init__(self, problem, params):
        del params
        data, model = problem.data, network(problem)
        clean, noisy = jnp.asarray(data["clean"]), jnp.asarray(data["noisy"])
        gamma = jnp.asarray(lpn.GAMMA * problem.params["side"], clean.dtype)
        chain = optax.chain(optax.adam(lpn.LEARNING_RATE), jinv.nn.keep_nonnegative())
        step = jinv.train.TrainStep(jinv.train.ProximalMatching(), chain)
        super().__init__(model, *training(model, step), (clean, noisy, gamma), looped=True)


METHODS = {"prox": _Prox, "step": _Step}
