"""jinv's multigrid neural operator: outputs of a batch, and a step of its training."""

import jax
import jax.numpy as jnp
import optax

import jinv

from . import _mgno_problems as mgno
from ._compiled import CompiledCalls, CompiledSteps, device as device, training
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("jinv", "jax", "jaxlib")


def _model(problem):
    weights = {k: v for k, v in problem.data.items() if k not in ("input", "target")}
    return jinv.nn.mgno_from_torch("darcy", weights)


class _Infer(MeasuredMemory, CompiledCalls):
    def __init__(self, problem, params):
        del params
        u = jnp.asarray(problem.data["input"])
        super().__init__(_model(problem), lambda model, u: jax.vmap(model)(u), u)


class _Step(MeasuredMemory, CompiledSteps):
    """`TrainStep` with the authors' norm, and Adam with the decay in the gradient."""

    def __init__(self, problem, params):
        del params
        decay = optax.add_decayed_weights(mgno.WEIGHT_DECAY)
        chain = optax.chain(decay, optax.adam(mgno.LEARNING_RATE))
        step = jinv.train.TrainStep(jinv.train.OperatorMatching(jinv.train.spectral_h1), chain)
        batch = tuple(jnp.asarray(problem.data[name]) for name in ("input", "target"))
        model = _model(problem)
        super().__init__(model, *training(model, step), batch, looped=True)

    def metrics(self, problem):
        return {**super().metrics(problem), **trained(self, self.losses)}


METHODS = {"infer": _Infer, "step": _Step}
