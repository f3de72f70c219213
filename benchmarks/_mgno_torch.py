"""The published multigrid neural operators in PyTorch, in an environment that has it (deepinv's).

`python -m benchmarks._mgno_torch tests/reference/mgno.npz` writes what the tests compare with.
"""

# The peer is optional and may live elsewhere.
# pyright: basic, reportMissingImports=false, reportOptionalMemberAccess=false

import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from . import _mgno_problems as mgno
from ._mgno_measures import MeasuredMemory, trained


VERSIONS = ("torch",)

torch.set_num_threads(int(os.environ.get("JINV_BENCH_THREADS", "1")))


def device():
    return "cpu", None


def conv(weights, name, x, mode, stride=1, pad=1):
    if mode != "zeros" and pad:
        x, pad = F.pad(x, (1, 1, 1, 1), mode=mode), 0
    bias = weights.get(f"{name}.bias")
    return F.conv2d(x, weights[f"{name}.weight"], bias, stride=stride, padding=pad)


def cycle(weights, name, f, spec):
    """One multigrid cycle on batches `(N, C, H, W)`."""
    mode, pad = spec["mode"], spec["pad"]
    down = mode if pad else "zeros"
    u, found = None, []
    for level, (first, _) in enumerate(spec["smoothing"]):
        if level:
            place = f"{name}.layer{level}.0"
            u = conv(weights, f"{place}.Pi", u, down, 2, pad)
            f = conv(weights, f"{place}.R", f, down, 2, pad)
        for i in range(first):
            place = f"{name}.layer{level}.{i + (level > 0)}"
            r = f if u is None else f - conv(weights, f"{place}.A", u, mode)
            step = conv(weights, f"{place}.S", r, mode)
            u = step if u is None else u + step
        found.append((u, f))
    for level in reversed(range(len(found) - 1)):
        finer, f = found[level]
        up = weights[f"{name}.RTlayers.{level}.weight"]
        u = finer + F.conv_transpose2d(u, up, stride=2, padding=pad)
        norm = f"{name}.norm_layer_list.{level}"
        if f"{norm}.weight" in weights:
            u = F.layer_norm(u, u.shape[1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        for i in range(spec["smoothing"][level][1]):
            place = f"{name}.post_smooth_layer{level}.{i}"
            r = f - conv(weights, f"{place}.A", u, mode)
            u = u + conv(weights, f"{place}.S", r, mode)
    assert u is not None
    return u


def network(weights, u, spec):
    v = u
    for i in range(spec["layers"]):
        w = cycle(weights, f"conv_list.{i}", v, spec)
        if f"linear_list.{i}.weight" in weights:
            w = w + conv(weights, f"linear_list.{i}", v, "zeros", pad=0)
        norm = f"norm_layer_list.{i}"
        if f"{norm}.weight" in weights:
            w = F.layer_norm(w, w.shape[1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        v = F.gelu(w)
    if "linear.weight" in weights:
        return conv(weights, "linear", v, "zeros", pad=0)
    if "last_layer.weight" in weights:
        return u + conv(weights, "last_layer", v, "zeros", pad=0)
    return cycle(weights, "last_layer", v, spec)


class _Model:
    """`mode`: "published", or "channels last"."""

    def __init__(self, problem, mode):
        self.spec = {**mgno.PLAIN, "channels": problem.params["channels"]}
        last = mode == "channels last"
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.weights = {
            name: self.placed(value).requires_grad_()
            for name, value in problem.data.items()
            if name not in ("input", "target")
        }
        self.input = self.placed(problem.data["input"][:, None])
        self.target = self.placed(problem.data["target"][:, None])

    def placed(self, value):
        tensor = torch.from_numpy(value)
        return tensor.clone(
            memory_format=self.layout if tensor.ndim == 4 else torch.preserve_format
        )

    def __call__(self):
        return network(self.weights, self.input, self.spec)

    @property
    def n_weights(self):
        return sum(weight.numel() for weight in self.weights.values())


class _Infer(MeasuredMemory):
    def __init__(self, problem, params):
        self._model = _Model(problem, params["mode"])
        self.n_weights = self._model.n_weights

    def restart(self):
        pass

    def run(self, num_steps):
        with torch.no_grad():
            for _ in range(num_steps):
                self._found = self._model()

    def metrics(self, problem):
        return {"error": problem.objective(self._found[:, 0].double().numpy())}


class _Step(MeasuredMemory):
    """The authors' norm, and Adam with the decay in the gradient."""

    def __init__(self, problem, params):
        self._problem, self._mode = problem, params["mode"]
        side = problem.params["side"]
        k = torch.fft.fftfreq(side, 1 / side).abs()
        k = k * (k < mgno.CUTOFF)
        self._weight = torch.sqrt(1 + k[:, None] ** 2 + k**2)

    def _size(self, v):
        return torch.linalg.vector_norm((torch.fft.fft2(v) * self._weight).flatten(1), dim=1)

    def restart(self):
        self._model, self._losses = _Model(self._problem, self._mode), []
        self.n_weights = self._model.n_weights
        self._adam = torch.optim.Adam(
            self._model.weights.values(), lr=mgno.LEARNING_RATE, weight_decay=mgno.WEIGHT_DECAY
        )

    def run(self, num_steps):
        for _ in range(num_steps):
            self._adam.zero_grad()
            found, target = self._model(), self._model.target
            loss = (self._size(found - target) / self._size(target)).mean()
            loss.backward()
            self._adam.step()
            self._losses.append(loss.item())

    def metrics(self, problem):
        error = problem.objective(np.asarray(self._losses[0]))
        return {"error": error, **trained(self, self._losses)}


METHODS = {"infer": _Infer, "step": _Step}


SMALL = {**mgno.PLAIN, "channels": 2, "layers": 2}
SPECS = {
    "darcy": {**SMALL, "size": 32},
    "darcy_smooth": {**SMALL, "size": 99, "up": (3, 4, 3, 3, 3)},
    "pipe": {**SMALL, "size": 32, "inputs": 2, "smoothing": ((1, 0),) * 4 + ((1, 1), (2, 0))},
    "navier_stokes": {
        **SMALL,
        "size": 32,
        "mode": "circular",
        "smoothing": ((1, 0),) * 3 + ((2, 0),) * 2,
        "up": (4,) * 4,
        "bias": True,
        "norm": True,
    },
    "helmholtz": {
        **SMALL,
        "size": 48,
        "mode": "reflect",
        "pad": 0,
        "smoothing": ((1, 0),) * 4 + ((2, 0),),
        "up": (4, 3, 3, 3),
        "channels": 1,
        "bias": True,
        "grows": True,
    },
}


def main():
    """Writes small numbers of all variants, for the tests of jinv: outputs and gradients."""
    stored = {}
    for number, (name, spec) in enumerate(SPECS.items()):
        rng = np.random.default_rng(number)
        single = lambda x: np.asarray(x, np.float32)
        weights = {k: single(v) for k, v in mgno.fresh(spec, rng).items()}
        u = single(rng.standard_normal((1, spec["inputs"], spec["size"], spec["size"])))
        cotangent = single(rng.standard_normal((1, 1, spec["size"], spec["size"])))
        leaves = {k: torch.tensor(v, dtype=torch.float64) for k, v in weights.items()}
        for leaf in leaves.values():
            leaf.requires_grad_()
        out = network(leaves, torch.tensor(u, dtype=torch.float64), spec)
        (out * torch.tensor(cotangent)).sum().backward()
        for k, v in weights.items():
            stored[f"{name}/weight/{k}"] = v
            slope = leaves[k].grad
            stored[f"{name}/slope/{k}"] = single(0 * leaves[k].detach() if slope is None else slope)
        stored[f"{name}/input"], stored[f"{name}/cotangent"] = u, cotangent
        stored[f"{name}/output"] = single(out.detach())
    np.savez_compressed(sys.argv[1], **stored)


if __name__ == "__main__":
    main()
