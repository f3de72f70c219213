"""jinv's multigrid neural operator: outputs of a batch, and a step of its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jinv

from . import _mgno_problems as mgno
from ._contender import AbstractContender


VERSIONS = ("jinv", "jax", "jaxlib")


def device():
    found = jax.devices()[0]
    return found.platform, found.device_kind


def _model(problem):
    weights = {k: v for k, v in problem.data.items() if k not in ("input", "target")}
    return jinv.nn.mgno_from_torch("darcy", weights)


class _Compiled(AbstractContender):
    _compiled: jax.stages.Compiled

    def peak_bytes(self):
        analysis = self._compiled.memory_analysis()
        return None if analysis is None else analysis.temp_size_in_bytes


class _Infer(_Compiled):
    def __init__(self, problem, params):
        del params
        model, u = _model(problem), jnp.asarray(problem.data["input"])
        self.n_weights = model.num_weights
        first, rest = eqx.partition(model, eqx.is_array)
        self._program = jax.jit(lambda arrays, u: jax.vmap(eqx.combine(arrays, rest))(u))
        self._fn, self._args = self._program, (first, u)

    def compile(self):
        self._compiled = self._program.lower(*self._args).compile()
        self._fn = self._compiled

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = jax.block_until_ready(self._fn(*self._args))

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self._found, np.float64))}


class _Step(_Compiled):
    """`TrainStep` with the authors' norm, and Adam with the decay in the gradient."""

    def __init__(self, problem, params):
        del params
        model = _model(problem)
        self.n_weights = model.num_weights
        decay = optax.add_decayed_weights(mgno.WEIGHT_DECAY)
        chain = optax.chain(decay, optax.adam(mgno.LEARNING_RATE))
        step = jinv.train.TrainStep(jinv.train.OperatorMatching(jinv.train.spectral_h1), chain)
        self._first, rest = eqx.partition(step.init(model), eqx.is_array)

        def advance(state, batch):
            state, metrics = step(eqx.combine(state, rest), batch, key=jax.random.key(0))
            return eqx.filter(state, eqx.is_array), metrics["loss"]

        self._program = self._fn = jax.jit(advance)
        self._batch = tuple(jnp.asarray(problem.data[name]) for name in ("input", "target"))

    def compile(self):
        self._compiled = self._program.lower(self._first, self._batch).compile()
        self._fn = self._compiled

    def restart(self):
        self._state, self._losses = self._first, []

    def run(self, num_steps):
        for _ in range(num_steps):
            self._state, loss = self._fn(self._state, self._batch)
            self._losses.append(float(loss))
        jax.block_until_ready(self._state)

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self._losses[0])), "loss": self._losses[-1]}


METHODS = {"infer": _Infer, "step": _Step}
