"""jinv's Fourier neural operator: outputs of a batch, and a step of its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jinv

from . import _fno_problems as fno
from ._compiled import CompiledCalls, CompiledSteps, device as device, training
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("jinv", "jax", "jaxlib")


def network(problem, kind):
    """jinv's network with the weights of the problem."""
    channels, data = problem.params["channels"], fno.weights_of(problem, kind)
    model = jinv.nn.FNO(
        1,
        1,
        (fno.MODES // 2, fno.MODES // 2 + 1),
        channels,
        fno.LAYERS,
        lifting=(2 * channels,),
        projection=(2 * channels,),
        channel_mlp=round(channels / 2) if kind == "gated" else None,
        key=jax.random.key(0),
    )
    weights = lambda model: _weights(model, kind)
    return eqx.tree_at(weights, model, [jnp.asarray(data[name]) for name in _names(kind)])


def _names(kind):
    dense = lambda place, n: [f"{place}.{kind}{i}" for i in range(n) for kind in ("weight", "bias")]
    found = dense("lifting", 2) + dense("projection", 2)
    for layer in range(fno.LAYERS):
        found += [f"{layer}.real", f"{layer}.imag", *dense(f"{layer}.skip", 1)]
        found += [*dense(f"{layer}.mlp", 2), f"{layer}.gate"] if kind == "gated" else []
    return found


def _weights(model, kind):
    pairs = lambda mlp: [x for pair in zip(mlp.weights, mlp.biases, strict=True) for x in pair]
    found = pairs(model.lifting) + pairs(model.projection)
    for i, (spectral, skip) in enumerate(zip(model.spectral, model.skips, strict=True)):
        found += [spectral.real, spectral.imag, *pairs(skip)]
        found += [*pairs(model.mixers[i]), model.gates[i]] if kind == "gated" else []
    return found


class _Infer(MeasuredMemory, CompiledCalls):
    def __init__(self, problem, params):
        self._kind, u = params["kind"], jnp.asarray(problem.data["input"])
        super().__init__(network(problem, self._kind), lambda model, u: jax.vmap(model)(u), u)

    def metrics(self, problem):
        return {"error": fno.error_of_output(problem, self._kind, self.found)}


class _Step(MeasuredMemory, CompiledSteps):
    """`TrainStep` with the relative error in L2, and Adam."""

    def __init__(self, problem, params):
        self._kind = params["kind"]
        model, chain = network(problem, self._kind), optax.adam(fno.LEARNING_RATE)
        step = jinv.train.TrainStep(jinv.train.OperatorMatching(), chain)
        batch = tuple(jnp.asarray(problem.data[name]) for name in ("input", "target"))
        super().__init__(model, *training(model, step), batch, looped=True)

    def metrics(self, problem):
        error = fno.error_of_loss(problem, self._kind, self.losses[0])
        return {"error": error, **trained(self, self.losses)}


METHODS = {"infer": _Infer, "step": _Step}
