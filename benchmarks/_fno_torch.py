"""neuraloperator's Fourier neural operator in PyTorch, with its defaults."""

# The peer is optional and may live elsewhere.
# pyright: basic, reportMissingImports=false

import os

import numpy as np
import torch
from neuralop.layers.embeddings import GridEmbeddingND
from neuralop.models import FNO

from . import _fno_problems as fno
from ._contender import NotAvailable
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("neuraloperator", "torch")
KIND = "gated"

torch.set_num_threads(int(os.environ.get("JINV_BENCH_THREADS", "1")))


def device():
    return "cpu", None


def _network(problem):
    """With the weights of the problem, and coordinates that reach 1 at the last point."""
    if problem.data["input"].dtype != np.float32:
        raise NotAvailable("neuraloperator transforms in single precision")
    side = problem.params["side"]
    model = FNO(
        n_modes=(fno.MODES, fno.MODES),
        in_channels=1,
        out_channels=1,
        hidden_channels=problem.params["channels"],
        n_layers=fno.LAYERS,
        positional_embedding=GridEmbeddingND(1, 2, [[0.0, side / (side - 1)]] * 2),
    )
    model.load_state_dict(_state(fno.weights_of(problem, KIND)))
    return model


def _state(w):
    found = {}

    def dense(place, name):
        i = 0
        while f"{name}.weight{i}" in w:
            found[f"{place}.fcs.{i}.weight"] = w[f"{name}.weight{i}"].T[..., None]
            found[f"{place}.fcs.{i}.bias"] = w[f"{name}.bias{i}"]
            i += 1

    dense("lifting", "lifting")
    dense("projection", "projection")
    for layer in range(fno.LAYERS):
        place = lambda part, layer=layer: f"fno_blocks.{part}.{layer}"
        spectral = w[f"{layer}.real"] + 1j * w[f"{layer}.imag"]
        # The frequencies of the first axis in growing order.
        spectral = np.fft.fftshift(spectral, 0).transpose(2, 3, 0, 1)
        found[f"{place('convs')}.weight.tensor"] = spectral
        found[f"{place('convs')}.bias"] = w[f"{layer}.skip.bias0"][:, None, None]
        found[f"{place('fno_skips')}.conv.weight"] = w[f"{layer}.skip.weight0"].T[..., None]
        found[f"{place('channel_mlp_skips')}.weight"] = w[f"{layer}.gate"][None, :, None, None]
        dense(place("channel_mlp"), f"{layer}.mlp")
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def _num_weights(model):
    return sum(w.numel() * (2 if w.is_complex() else 1) for w in model.parameters())


class _Infer(MeasuredMemory):
    def __init__(self, problem, params):
        del params
        self._model = _network(problem)
        self.n_weights = _num_weights(self._model)
        self._input = torch.from_numpy(problem.data["input"])[:, None]

    def restart(self):
        pass

    def run(self, num_steps):
        with torch.no_grad():
            for _ in range(num_steps):
                self._found = self._model(self._input)

    def metrics(self, problem):
        found = self._found[:, 0].double().numpy()
        return {"error": fno.error_of_output(problem, KIND, found)}


class _Step(MeasuredMemory):
    """The mean relative error in L2, and Adam."""

    def __init__(self, problem, params):
        del params
        self._problem = problem
        read = lambda name: torch.from_numpy(problem.data[name])[:, None]
        self._input, self._target = read("input"), read("target")

    def restart(self):
        self._model, self._losses = _network(self._problem), []
        self.n_weights = _num_weights(self._model)
        self._adam = torch.optim.Adam(self._model.parameters(), lr=fno.LEARNING_RATE)

    def run(self, num_steps):
        size = lambda v: torch.linalg.vector_norm(v.flatten(1), dim=1)
        for _ in range(num_steps):
            self._adam.zero_grad()
            gap = self._model(self._input) - self._target
            loss = (size(gap) / size(self._target)).mean()
            loss.backward()
            self._adam.step()
            self._losses.append(loss.item())

    def metrics(self, problem):
        error = fno.error_of_loss(problem, KIND, self._losses[0])
        return {"error": error, **trained(self, self._losses)}


METHODS = {"infer": _Infer, "step": _Step}
