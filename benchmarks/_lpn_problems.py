"""The convolutional learned proximal network of the digits, and its prox in NumPy and float64."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._problems import Problem


STRIDES = (1, 2, 1, 2)
BETA = 10.0
STRONG_CONVEXITY = 0.02
GAMMA = 0.64
"""Of the proximal matching loss, in units of the root of the number of pixels: the first stage."""
LEARNING_RATE = 1e-4


def make_lpn(name: str, size: int, params: Mapping[str, Any], dtype, seed: int) -> Problem:
    """`lpn_prox` and `lpn_step`: `size` images at once; `side`, `channels` and `hidden` units.

    The weights are not trained, but of a size that activates all layers. A prox is judged by the
    largest error over the largest value, a training step by the relative error of its loss.
    """
    rng = np.random.default_rng(seed)
    side, channels, hidden = params["side"], params["channels"], params["hidden"]
    data = {"clean": rng.uniform(size=(size, side, side))}
    data["noisy"] = data["clean"] + 0.1 * rng.standard_normal(data["clean"].shape)
    cells = side
    for k, stride in enumerate(STRIDES):
        data[f"lift{k}"] = rng.uniform(-1, 1, (3, 3, 1, channels)) / 3
        if k:
            data[f"bias{k}"] = rng.uniform(-1, 1, channels) / 3
            data[f"mix{k}"] = rng.uniform(0, 2, (3, 3, channels, channels)) / (9 * channels)
        cells = -(-cells // stride)
    data["lift4"] = rng.uniform(-1, 1, (cells**2, hidden)) / cells
    data["bias4"] = rng.uniform(-1, 1, hidden) / cells
    data["mix4"] = rng.uniform(0, 2, (cells**2 * channels, hidden)) / (cells**2 * channels)
    data["head"] = rng.uniform(0, 2, hidden)
    data = {key: np.asarray(value, dtype) for key, value in data.items()}
    exact = {key: np.asarray(value, np.float64) for key, value in data.items()}
    # A prox of the size of images, so that the loss is not flat.
    scale = 0.5 / np.mean(np.abs(prox(exact, exact["noisy"][:2])))
    data["head"] = np.asarray(scale * exact["head"], dtype)
    exact["head"] = data["head"].astype(np.float64)

    def error_of_prox(found):
        few = min(size, 4)
        expected = prox(exact, exact["noisy"][:few])
        return float(np.max(np.abs(found[:few] - expected)) / np.max(np.abs(expected)))

    def error_of_loss(found):
        squares = np.sum((prox(exact, exact["noisy"]) - exact["clean"]) ** 2, (1, 2))
        expected = np.mean(-np.expm1(-squares / (GAMMA * side) ** 2))
        return abs(float(found) / expected - 1)

    judge = {"lpn_prox": error_of_prox, "lpn_step": error_of_loss}[name]
    return Problem(name, size, params, data, judge)


def prox(w: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The gradient of the potential at a batch of images, layer by layer and back."""
    side, z, past = y.shape[1], None, []
    for k, stride in enumerate(STRIDES):
        resize = _resize(side, side if z is None else z.shape[1])
        small = (resize @ y @ resize.T)[..., None]
        a = _patches(small, stride) @ w[f"lift{k}"].reshape(9, -1)
        if z is not None:
            a = a + w[f"bias{k}"] + _patches(z, stride) @ w[f"mix{k}"].reshape(9 * z.shape[3], -1)
        past.append((resize, small.shape, None if z is None else z.shape, a))
        z = np.logaddexp(0, BETA * a) / BETA
    assert z is not None
    resize = _resize(side, z.shape[1])
    small = (resize @ y @ resize.T).reshape(len(y), -1)
    a = small @ w["lift4"] + w["bias4"] + z.reshape(len(y), -1) @ w["mix4"]
    slope = w["head"] / (1 + np.exp(-BETA * a))
    cells = z.shape[1]
    found = STRONG_CONVEXITY * y
    found = found + resize.T @ (slope @ w["lift4"].T).reshape(-1, cells, cells) @ resize
    of_z = (slope @ w["mix4"].T).reshape(z.shape)
    for k, (resize, small, before, a) in reversed(list(enumerate(past))):
        slope = of_z / (1 + np.exp(-BETA * a))
        back = _unpatch(slope @ w[f"lift{k}"].reshape(9, -1).T, small, STRIDES[k])[..., 0]
        found = found + resize.T @ back @ resize
        if before is not None:
            kernel = w[f"mix{k}"].reshape(9 * before[3], -1)
            of_z = _unpatch(slope @ kernel.T, before, STRIDES[k])
    return found


def _resize(old, new):
    """Bilinear interpolation as a matrix, half-pixel centres."""
    at = (np.arange(new)[:, None] + 0.5) * old / new - 0.5
    return np.maximum(1 - np.abs(np.clip(at, 0, old - 1) - np.arange(old)), 0)


def _windows(shape, stride):
    out = [-(-n // stride) for n in shape[1:3]]
    for i in range(3):
        for j in range(3):
            rows, columns = (
                slice(t, t + stride * (n - 1) + 1, stride) for t, n in zip((i, j), out, strict=True)
            )
            yield rows, columns


def _patches(x, stride):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.concatenate([padded[:, r, c] for r, c in _windows(x.shape, stride)], -1)


def _unpatch(parts, shape, stride):
    """The transpose of `_patches`."""
    n, h, w, channels = shape
    found = np.zeros((n, h + 2, w + 2, channels))
    for (r, c), part in zip(_windows(shape, stride), np.split(parts, 9, -1), strict=True):
        found[:, r, c] += part
    return found[:, 1:-1, 1:-1]
