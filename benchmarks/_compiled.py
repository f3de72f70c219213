"""Compiled programs of JAX as contenders: calls of a network, and steps of its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._contender import AbstractContender


_MOST_STEPS = 1024


def device():
    found = jax.devices()[0]
    return found.platform, found.device_kind


def num_weights(model):
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return sum(leaf.size for leaf in leaves)


class CompiledCalls(AbstractContender):
    """Calls of `function(model, inputs)`, judged by the objective of the problem."""

    def __init__(self, model, function, inputs):
        self.n_weights = num_weights(model)
        arrays, rest = eqx.partition(model, eqx.is_array)
        program = lambda arrays, inputs: function(eqx.combine(arrays, rest), inputs)
        self._program, self._args = jax.jit(program), (arrays, inputs)
        self._fn = self._program

    def compile(self):
        self._fn = self._program.lower(*self._args).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = jax.block_until_ready(self._fn(*self._args))

    @property
    def found(self):
        return np.asarray(self._found, np.float64)

    def metrics(self, problem):
        return {"error": problem.objective(self.found)}


class CompiledSteps(AbstractContender):
    """Steps `state, loss = advance(state, batch)`, of which the first loss is judged. With `looped`
    one program takes all of a window, as in `jinv.train.fit`; which is faster depends on the
    package, as convolutions of XLA are slower in loops."""

    def __init__(self, model, state, advance, batch, *, looped):
        self.n_weights, self._batch = num_weights(model), batch
        self._most = _MOST_STEPS if looped else 1
        self._first, rest = eqx.partition(state, eqx.is_array)

        def one(arrays, batch):
            state, loss = advance(eqx.combine(arrays, rest), batch)
            return eqx.filter(state, eqx.is_array), loss

        def program(arrays, batch, num_steps):
            if not looped:
                arrays, loss = one(arrays, batch)
                return arrays, loss[None]

            def body(index, carry):
                arrays, loss = one(carry[0], batch)
                return arrays, carry[1].at[index].set(loss)

            losses = jnp.zeros(_MOST_STEPS, jax.tree.leaves(batch)[0].dtype)
            return jax.lax.fori_loop(0, num_steps, body, (arrays, losses))

        self._program = self._fn = jax.jit(program)

    def compile(self):
        self._fn = self._program.lower(self._first, self._batch, 1).compile()

    def restart(self):
        self._state, self.losses = self._first, []

    def run(self, num_steps):
        while num_steps:
            count = min(num_steps, self._most)
            self._state, losses = jax.block_until_ready(self._fn(self._state, self._batch, count))
            self.losses += losses[:count].tolist()
            num_steps -= count

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self.losses[0])), "loss": self.losses[-1]}


def training(model, step):
    """The first state and `advance` of a `jinv.train.TrainStep`."""

    def advance(state, batch):
        state, metrics = step(state, batch, key=jax.random.key(0))
        return state, metrics["loss"]

    return step.init(model), advance


def plain_training(model, loss, chain):
    """The same of `loss(model, batch)` and an optimiser of optax, for other libraries."""

    def advance(state, batch):
        model, opt_state = state
        value, slope = eqx.filter_value_and_grad(loss)(model, batch)
        trained = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = chain.update(slope, opt_state, trained)
        return (eqx.apply_updates(model, updates), opt_state), value

    return (model, chain.init(eqx.filter(model, eqx.is_inexact_array))), advance
