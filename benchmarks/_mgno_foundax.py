"""foundax' multigrid neural operator, of equinox: as many weights, but always periodic.

Its outputs cannot be those of the others, which pad with zeros: it starts from its own weights, its
outputs must be finite and its loss must fall.
"""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

import foundax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from . import _mgno_problems as mgno
from ._compiled import CompiledCalls, CompiledSteps, device as device, plain_training
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("foundax", "equinox", "jax", "jaxlib", "optax")


def _model(problem):
    spec, side = mgno.PLAIN, problem.params["side"]
    return foundax.nn.mgno2d(
        (side, side),
        num_layer=spec["layers"],
        num_channel_u=problem.params["channels"],
        num_channel_f=spec["inputs"],
        num_iteration=list(spec["smoothing"]),
        key=jax.random.key(0),
    )


def _apply(model, u):
    return model(u[..., None])[..., 0]


class _Infer(MeasuredMemory, CompiledCalls):
    def __init__(self, problem, params):
        del params
        super().__init__(_model(problem), _apply, jnp.asarray(problem.data["input"]))

    def metrics(self, problem):
        return {"finite": float(np.all(np.isfinite(self.found)))}


class _Step(MeasuredMemory, CompiledSteps):
    """The loss and the optimiser of the others, by optax."""

    def __init__(self, problem, params):
        del params
        side = problem.params["side"]
        k = np.abs(np.fft.fftfreq(side, 1 / side))
        k = k * (k < mgno.CUTOFF)
        weight = np.sqrt(1 + k[:, None] ** 2 + k**2)

        def size(v):
            transformed = jnp.fft.fft2(v) * jnp.asarray(weight, v.dtype)
            return jnp.linalg.norm(transformed.reshape(len(v), -1), axis=1)

        def loss(model, batch):
            u, target = batch
            return jnp.mean(size(_apply(model, u) - target) / size(target))

        decay = optax.add_decayed_weights(mgno.WEIGHT_DECAY)
        chain = optax.chain(decay, optax.adam(mgno.LEARNING_RATE))
        batch = tuple(jnp.asarray(problem.data[name]) for name in ("input", "target"))
        model = _model(problem)
        super().__init__(model, *plain_training(model, loss, chain), batch, looped=False)

    def metrics(self, problem):
        return trained(self, self.losses)


METHODS = {"infer": _Infer, "step": _Step}
