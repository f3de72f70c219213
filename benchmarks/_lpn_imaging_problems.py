"""Held-out photographs, their measurements, and those to tune on. For jinv only: imports it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jinv

from ._problems import Problem


KEY = 2
"""Of the crops."""
TEXTS = ("page", "text")
"""No photographs, and not used to tune."""


def make_imaging(name: str, size: int, params: Mapping[str, Any], dtype, seed: int) -> Problem:
    """What to reconstruct, `truth`, and what each method may be tuned on, `tuning`.

    - `imaging`: `size` x `size` crops at native resolution, `crops` of each held-out photograph
        and `tuning` of each one of the training. `task` and `noise`, see `operator`.
    - `imaging_large`: the photograph `image`, and crops of a quarter of its sides to tune on, with
        the same angles and noise: then one weight is right for both, as the Gram operators agree
        up to the border.
    - `imaging_prior`: crops, and no measurements.

    With each image come `noise_X` of the data's shape and `mask_X`, ones unless pixels are missing.
    """
    train, held_out = jinv.data.train_test_photographs()
    train = [other for other in train if other not in TEXTS]
    rng, data = np.random.default_rng(seed), {}
    if name == "imaging_large":
        picture = jinv.data.photograph(params["image"], shape=size)
        few = (params["tuning"], params["photographs"])
        parts = {"truth": picture[None], "tuning": _crops(train, size // 4, *few)}
    else:
        parts = {
            "truth": _crops(held_out, size, params["crops"], params.get("photographs")),
            "tuning": _crops(train, size, params.get("tuning", 0), params.get("photographs")),
        }
    for part, crops in parts.items():
        data[part] = np.asarray(crops, dtype)
        if "task" in params and len(crops):
            shape = operator(params, crops.shape[1], dtype).out_structure().shape
            draw = rng.standard_normal((len(crops), *shape)) * params["noise"]
            data[f"noise_{part}"] = draw.astype(dtype)
            kept = rng.random(draw.shape) < params.get("kept", 1.0)
            data[f"mask_{part}"] = kept.astype(dtype)
    return Problem(name, size, params, data, _unused)


def operator(params: Mapping[str, Any], size: int, dtype):
    """The forward model of a task, without the mask and not scaled.

    `deblurring` (Gaussian of 1 pixel, 5 x 5, zero boundary, all that it spreads to is measured),
    `inpainting`, `denoising`, `sensing` (a random unitary circulant: entries of which a share
    `kept` is measured), `tomography` (parallel beams, `angles` of them).
    """
    task = params["task"]
    if task == "deblurring":
        kernel = jinv.operators.gaussian_kernel(1.0, 5).astype(dtype)
        return jinv.operators.Convolution(kernel, (size, size), boundary="zero", mode="full")
    if task == "tomography":
        angles = jnp.linspace(0, jnp.pi, params["angles"], endpoint=False, dtype=dtype)
        return jinv.operators.ParallelBeam((size, size), angles)
    if task == "sensing":
        noise = jax.random.normal(jax.random.key(KEY), (size, size), dtype)
        spectrum = jnp.fft.rfft2(noise)
        phases = spectrum / jnp.abs(spectrum).astype(spectrum.dtype)
        kernel = jnp.fft.irfft2(phases, s=noise.shape)
        return jinv.operators.Convolution(kernel, noise.shape, method="fft")
    if task not in ("denoising", "inpainting"):
        raise ValueError(f"task: expected one of those above, got {task!r}.")
    return jinv.operators.Mask(jnp.ones((size, size), dtype))


def _crops(names, size: int, num: int, most: int | None = None):
    """Of the first `most` photographs that are large enough."""
    pictures = [jinv.data.photograph(name) for name in names]
    pictures = [picture for picture in pictures if min(picture.shape) >= size][:most]
    keys = jax.random.split(jax.random.key(KEY), len(pictures))
    pairs = zip(pictures, keys, strict=True)
    return jnp.concatenate([jinv.data.patches(p, size, key=key, num=num) for p, key in pairs])


def _unused(x) -> float:
    raise NotImplementedError("images are judged one by one, by the contender.")
