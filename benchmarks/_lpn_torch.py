"""The published learned proximal network in PyTorch, in an environment that has it (deepinv's)."""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

import os

import numpy as np
import torch
import torch.nn.functional as F

from . import _lpn_problems as lpn
from ._contender import AbstractContender


VERSIONS = ("torch",)

torch.set_num_threads(int(os.environ.get("JINV_BENCH_THREADS", "1")))


def device():
    return "cpu", None


class _Network(torch.nn.Module):
    """Written from the description: NCHW, and the prox by differentiating the potential."""

    def __init__(self, problem):
        super().__init__()
        self.w, hidden = torch.nn.ParameterDict(), problem.params["hidden"]
        for name, value in problem.data.items():
            if name in ("clean", "noisy"):
                continue
            if value.ndim == 4:
                value = np.moveaxis(value, (3, 2), (0, 1))
            elif name == "mix4":
                channels = problem.params["channels"]
                value = value.reshape(-1, channels, hidden).transpose(2, 1, 0).reshape(hidden, -1)
            elif value.ndim == 2:
                value = value.T
            self.w[name] = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(value)))

    def potential(self, x):
        w = self.w
        z = F.softplus(F.conv2d(x, w["lift0"], None, lpn.STRIDES[0], 1), lpn.BETA)
        for k, stride in enumerate(lpn.STRIDES[1:], 1):
            skip = F.conv2d(_resized(x, z), w[f"lift{k}"], w[f"bias{k}"], stride, 1)
            z = F.softplus(F.conv2d(z, w[f"mix{k}"], None, stride, 1) + skip, lpn.BETA)
        skip = F.linear(_resized(x, z).flatten(1), w["lift4"], w["bias4"])
        z = F.softplus(F.linear(z.flatten(1), w["mix4"]) + skip, lpn.BETA)
        return (z @ w["head"]).sum() + lpn.STRONG_CONVEXITY / 2 * (x * x).sum()

    def forward(self, x, create_graph=True):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(self.potential(x), x, create_graph=create_graph)[0]

    def clip(self):
        with torch.no_grad():
            for name, weight in self.w.items():
                if name == "head" or name.startswith("mix"):
                    weight.clamp_(min=0)


def _resized(x, z):
    if x.shape[2:] == z.shape[2:]:
        return x
    return F.interpolate(x, z.shape[2:], mode="bilinear", align_corners=False)


def _layout(mode):
    last = mode in ("channels last", "compiled")
    return torch.channels_last if last else torch.contiguous_format


class _Prox(AbstractContender):
    """`mode`: "published" builds the graph of second order as the published code does, "no graph"
    does not, nor do "channels last" and "compiled", which is channels last and `torch.compile`."""

    def __init__(self, problem, params):
        mode = params["mode"]
        network = _Network(problem).to(memory_format=_layout(mode))
        self.n_weights = sum(weight.numel() for weight in network.parameters())
        if mode != "published":
            network.requires_grad_(False)
        x = torch.from_numpy(problem.data["noisy"])[:, None]
        self._x = x.contiguous(memory_format=_layout(mode))
        self._fn = lambda x: network(x, mode == "published")
        if mode == "compiled":
            one = torch.ones((), dtype=self._x.dtype)
            self._fn = torch.compile(lambda x: torch.func.vjp(network.potential, x)[1](one)[0])

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._found = self._fn(self._x)

    def metrics(self, problem):
        return {"error": problem.objective(self._found.detach()[:, 0].double().numpy())}


class _Step(AbstractContender):
    """Proximal matching, Adam, weights clipped at zero; `mode` "published" or "channels last"."""

    def __init__(self, problem, params):
        self._problem, self._layout = problem, _layout(params["mode"])
        read = lambda name: torch.from_numpy(problem.data[name])[:, None].contiguous(
            memory_format=self._layout
        )
        self._clean, self._noisy = read("clean"), read("noisy")
        self._gamma = lpn.GAMMA * problem.params["side"]

    def restart(self):
        self._network = _Network(self._problem).to(memory_format=self._layout)
        self.n_weights = sum(weight.numel() for weight in self._network.parameters())
        self._adam = torch.optim.Adam(self._network.parameters(), lr=lpn.LEARNING_RATE)
        self._losses = []

    def run(self, num_steps):
        for _ in range(num_steps):
            self._adam.zero_grad()
            gap = self._network(self._noisy) - self._clean
            squares = (gap * gap).flatten(1).sum(1)
            loss = -torch.expm1(-squares / self._gamma**2).mean()
            loss.backward()
            self._adam.step()
            self._network.clip()
            self._losses.append(loss.item())

    def metrics(self, problem):
        return {"error": problem.objective(np.asarray(self._losses[0])), "loss": self._losses[-1]}


METHODS = {"prox": _Prox, "step": _Step}
