"""The multigrid neural operators of the authors' code: weights by name, and one in NumPy."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._lpn_problems import _patches
from ._problems import Problem


PLAIN: dict[str, Any] = {
    "mode": "zeros",
    "pad": 1,
    "smoothing": ((1, 0),) * 5 + ((2, 0),),
    "up": (4,) * 5,
    "channels": 24,
    "inputs": 1,
    "layers": 4,
    "bias": False,
    "norm": False,
    "grows": False,
}
"""That of Darcy flow: 572,661 weights."""
CUTOFF = 20
LEARNING_RATE, WEIGHT_DECAY = 5e-4, 1e-4


def shapes(spec: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of the weights, under the names of the authors' modules."""
    found: dict[str, tuple[int, ...]] = {}

    def pair(place, u, f, with_a):
        for kind, sizes in {"S": (u, f), "A": (f, u)}.items():
            if kind == "S" or with_a:
                found[f"{place}.{kind}.weight"] = (*sizes, 3, 3)
                if spec["bias"]:
                    found[f"{place}.{kind}.bias"] = (sizes[0],)

    def cycle(name, u, f):
        for level, (first, then) in enumerate(spec["smoothing"]):
            here = level + 1 if spec["grows"] else 1
            below = here + 1 if spec["grows"] else 1
            for i in range(first):
                with_a = level > 0 or i > 0 or spec["grows"]
                pair(f"{name}.layer{level}.{i + (level > 0)}", u * here, f * here, with_a)
            for i in range(then):
                pair(f"{name}.post_smooth_layer{level}.{i}", u * here, f * here, True)
            if level < len(spec["smoothing"]) - 1:
                place, k = f"{name}.layer{level + 1}.0", spec["up"][level]
                found[f"{place}.Pi.weight"] = (u * below, u * here, 3, 3)
                found[f"{place}.R.weight"] = (f * below, f * here, 3, 3)
                found[f"{name}.RTlayers.{level}.weight"] = (u * below, u * here, k, k)
                if spec["norm"]:
                    n = spec["size"] // 2**level
                    for kind in ("weight", "bias"):
                        found[f"{name}.norm_layer_list.{level}.{kind}"] = (u, n, n)

    c, widths = spec["channels"], [spec["inputs"]] + [spec["channels"]] * (spec["layers"] - 1)
    for i, f in enumerate(widths):
        cycle(f"conv_list.{i}", c, f)
        if not spec["bias"]:
            found[f"linear_list.{i}.weight"] = (c, f, 1, 1)
            found[f"linear_list.{i}.bias"] = (c,)
        if spec["grows"]:
            for kind in ("weight", "bias"):
                found[f"norm_layer_list.{i}.{kind}"] = (c, spec["size"], spec["size"])
    if spec["grows"]:
        cycle("last_layer", 1, c)
    else:
        found["last_layer.weight" if spec["norm"] else "linear.weight"] = (1, c, 1, 1)
    return found


def fresh(spec: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights, larger than initial ones, so that all parts count."""
    scale = lambda shape: 1.5 * max(math.prod(shape[1:]), 1) ** -0.5
    return {k: scale(s) * rng.standard_normal(s) for k, s in shapes(spec).items()}


def make_mgno(name: str, size: int, params: Mapping[str, Any], dtype, seed: int) -> Problem:
    """`mgno_infer` and `mgno_step`: a batch of `size` images of `side` pixels, `channels`.

    Judged by the largest error over the largest value of the first two outputs, and by the relative
    error of the loss.
    """
    rng = np.random.default_rng(seed)
    spec = {**PLAIN, "channels": params["channels"]}
    data = fresh(spec, rng)
    data["input"] = rng.standard_normal((size, params["side"], params["side"]))
    data["target"] = rng.standard_normal(data["input"].shape)
    data = {key: np.asarray(value, dtype) for key, value in data.items()}
    exact = {key: np.asarray(value, np.float64) for key, value in data.items()}

    def error_of_output(found):
        few = network(exact, exact["input"][:2], spec)
        return float(np.max(np.abs(found[:2] - few)) / np.max(np.abs(few)))

    def error_of_loss(found):
        expected = spectral_loss(network(exact, exact["input"], spec), exact["target"])
        return abs(float(found) / expected - 1)

    judge = {"mgno_infer": error_of_output, "mgno_step": error_of_loss}[name]
    return Problem(name, size, params, data, judge)


def spectral_loss(found: np.ndarray, truth: np.ndarray) -> float:
    """The mean relative error in the norm that the authors train with."""
    k = np.abs(np.fft.fftfreq(found.shape[1], 1 / found.shape[1]))
    k = k * (k < CUTOFF)
    weight = np.sqrt(1 + k[:, None] ** 2 + k**2)
    size = lambda v: np.linalg.norm((weight * np.fft.fft2(v)).reshape(len(v), -1), axis=1)
    return float(np.mean(size(found - truth) / size(truth)))


def network(w: Mapping[str, np.ndarray], u: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The model of Darcy flow, on a batch `(N, H, W)`."""
    v = u[..., None]
    for i in range(spec["layers"]):
        linear = v @ w[f"linear_list.{i}.weight"][..., 0, 0].T + w[f"linear_list.{i}.bias"]
        v = _gelu(_cycle(w, f"conv_list.{i}", v, len(spec["smoothing"])) + linear)
    return (v @ w["linear.weight"][..., 0, 0].T)[..., 0]


def _gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _cycle(w, name, f, levels):
    conv = lambda place, x, stride=1: _convolution(w[f"{name}.{place}.weight"], x, stride)
    u, found = None, []
    for level in range(levels):
        if level:
            u, f = conv(f"layer{level}.0.Pi", u, 2), conv(f"layer{level}.0.R", f, 2)
        i = int(level > 0)
        while f"{name}.layer{level}.{i}.S.weight" in w:
            r = f if u is None else f - conv(f"layer{level}.{i}.A", u)
            step = conv(f"layer{level}.{i}.S", r)
            u, i = step if u is None else u + step, i + 1
        found.append(u)
    for level in reversed(range(levels - 1)):
        u = found[level] + _transposed(w[f"{name}.RTlayers.{level}.weight"], u)
    return u


def _convolution(weight, x, stride):
    return _patches(x, stride) @ np.moveaxis(weight, 0, -1).transpose(1, 2, 0, 3).reshape(
        -1, len(weight)
    )


def _transposed(weight, z):
    """Kernels of 4 x 4, stride 2, one pixel cut off on all sides."""
    n, h, width, _ = z.shape
    found = np.zeros((n, 2 * h + 2, 2 * width + 2, weight.shape[1]))
    for i in range(4):
        for j in range(4):
            found[:, i : i + 2 * h : 2, j : j + 2 * width : 2] += z @ weight[:, :, i, j]
    return found[:, 1:-1, 1:-1]
