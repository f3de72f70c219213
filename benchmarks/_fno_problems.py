"""Fourier neural operators in NumPy: neuraloperator's defaults, and without the MLP of layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._mgno_problems import _gelu
from ._problems import Problem


MODES = 16
"""Frequencies from -8 to 7 along the first axis and, of real functions, 0 to 8 along the last."""
LAYERS = 4
LEARNING_RATE = 1e-3
KINDS = ("gated", "plain")
"""neuraloperator's defaults ("gated") have an MLP and a gated skip in each layer; 0.7 % of the
weights are in them."""


def shapes(kind: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Of the weights, inputs first."""
    found: dict[str, tuple[int, ...]] = {}

    def dense(name, *sizes):
        for i, (n, m) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            found[f"{name}.weight{i}"], found[f"{name}.bias{i}"] = (n, m), (m,)

    dense("lifting", 3, 2 * channels, channels)
    for layer in range(LAYERS):
        for part in ("real", "imag"):
            found[f"{layer}.{part}"] = (MODES, MODES // 2 + 1, channels, channels)
        dense(f"{layer}.skip", channels, channels)
        if kind == "gated":
            dense(f"{layer}.mlp", channels, round(channels / 2), channels)
            found[f"{layer}.gate"] = (channels,)
    dense("projection", channels, 2 * channels, 1)
    return found


def weights_of(problem: Problem, kind: str) -> dict[str, np.ndarray]:
    start = f"{kind}."
    return {k[len(start) :]: v for k, v in problem.data.items() if k.startswith(start)}


def make_fno(name: str, size: int, params: Mapping[str, Any], dtype, seed: int) -> Problem:
    """`fno_infer` and `fno_step`: a batch of `size` functions on `side` points along both axes,
    `channels`. Targets are smoothed inputs.

    Each architecture is judged by its own reference: `error_of_output`, `error_of_loss`.
    """
    rng = np.random.default_rng(seed)
    side, data = params["side"], {}
    for kind in KINDS:
        for place, shape in shapes(kind, params["channels"]).items():
            scale = (2 * shape[-2]) ** -0.5 if len(shape) > 1 else 1
            data[f"{kind}.{place}"] = scale * rng.standard_normal(shape)
    data["input"] = rng.standard_normal((size, side, side))
    k = np.fft.fftfreq(side, 1 / side)
    smooth = 1 / (1 + k[:, None] ** 2 + k[: side // 2 + 1] ** 2)
    data["target"] = np.fft.irfft2(smooth * np.fft.rfft2(data["input"]), data["input"].shape[1:])
    data = {key: np.asarray(value, dtype) for key, value in data.items()}

    def objective(x):
        raise NotImplementedError("each architecture has its own: use `error_of_output`.")

    return Problem(name, size, params, data, objective)


def error_of_output(problem: Problem, kind: str, found: np.ndarray) -> float:
    """The largest error over the largest value of the first two outputs."""
    weights = _exact(weights_of(problem, kind))
    few = network(weights, problem.data["input"][:2].astype(np.float64))
    return float(np.max(np.abs(found[:2] - few)) / np.max(np.abs(few)))


def error_of_loss(problem: Problem, kind: str, found: float) -> float:
    """The relative error of the mean relative error in the norm of L2."""
    weights = _exact(weights_of(problem, kind))
    data = _exact({name: problem.data[name] for name in ("input", "target")})
    size = lambda v: np.linalg.norm(v.reshape(len(v), -1), axis=1)
    gap = network(weights, data["input"]) - data["target"]
    return float(abs(found / np.mean(size(gap) / size(data["target"])) - 1))


def _exact(arrays):
    return {key: np.asarray(value, np.float64) for key, value in arrays.items()}


def network(w: Mapping[str, np.ndarray], u: np.ndarray) -> np.ndarray:
    """On a batch `(N, H, W)`; coordinates from 0 to 1 are further inputs."""
    axes = [np.linspace(0, 1, n) for n in u.shape[1:]]
    x, y, _ = np.broadcast_arrays(axes[0][:, None], axes[1], u)
    v = np.stack([u, x, y], -1)
    v = _dense(w, "lifting", v)
    for layer in range(LAYERS):
        act = _gelu if layer < LAYERS - 1 else lambda x: x
        new = _convolution(w[f"{layer}.real"] + 1j * w[f"{layer}.imag"], v)
        new = act(new + _dense(w, f"{layer}.skip", v))
        if f"{layer}.gate" in w:
            new = act(_dense(w, f"{layer}.mlp", new) + w[f"{layer}.gate"] * v)
        v = new
    return _dense(w, "projection", v)[..., 0]


def _dense(w, name, v):
    i = 0
    while f"{name}.weight{i}" in w:
        v = v @ w[f"{name}.weight{i}"] + w[f"{name}.bias{i}"]
        i += 1
        v = _gelu(v) if f"{name}.weight{i}" in w else v
    return v


def _convolution(weight, v):
    rows, columns = weight.shape[:2]
    half, grid = rows // 2, v.shape[1:3]
    transformed = np.fft.rfft2(v, axes=(1, 2))
    kept = np.zeros((*transformed.shape[:3], weight.shape[-1]), complex)
    low = np.r_[:half, -half:0]
    part = transformed[:, low, :columns]
    kept[:, low, :columns] = np.einsum("nxyi,xyio->nxyo", part, weight)
    return np.fft.irfft2(kept, grid, axes=(1, 2))
