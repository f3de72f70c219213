"""pdequinox' Fourier neural operator, of equinox: as many frequencies and channels.

It lifts and projects by one product and takes no coordinates, so that it has a little fewer
weights. It starts from its own: outputs must be finite and the loss must fall.
"""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pdequinox

from . import _fno_problems as fno
from ._compiled import CompiledCalls, CompiledSteps, device as device, plain_training
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("pdequinox", "equinox", "jax", "jaxlib", "optax")


def _model(problem):
    return pdequinox.arch.ClassicFNO(
        2,
        1,
        1,
        hidden_channels=problem.params["channels"],
        num_modes=(fno.MODES // 2, fno.MODES // 2 + 1),
        num_blocks=fno.LAYERS,
        key=jax.random.key(0),
    )


def _apply(model, u):
    return jax.vmap(model)(u[:, None])[:, 0]


class _Infer(MeasuredMemory, CompiledCalls):
    def __init__(self, problem, params):
        del params
        super().__init__(_model(problem), _apply, jnp.asarray(problem.data["input"]))

    def metrics(self, problem):
        return {"finite": float(np.all(np.isfinite(self.found)))}


class _Step(MeasuredMemory, CompiledSteps):
    """The mean relative error in L2, and Adam."""

    def __init__(self, problem, params):
        size = lambda v: jnp.linalg.norm(v.reshape(len(v), -1), axis=1)

        def loss(model, batch):
            u, target = batch
            return jnp.mean(size(_apply(model, u) - target) / size(target))

        batch = tuple(jnp.asarray(problem.data[name]) for name in ("input", "target"))
        model = _model(problem)
        chain = optax.adam(fno.LEARNING_RATE)
        steps = plain_training(model, loss, chain)
        super().__init__(model, *steps, batch, looped=params["looped"])

    def metrics(self, problem):
        return trained(self, self.losses)


METHODS = {"infer": _Infer, "step": _Step}
