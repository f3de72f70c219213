"""A photograph deblurred with a learned proximal network, beside total variation."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._composite import Composite
from .._result import RESULTS
from .._solve import solve
from ..data import photograph
from ..data_terms import least_squares
from ..metrics import psnr, ssim
from ..operators import Convolution, FiniteDifference, gaussian_kernel
from ..pretrained import lpn
from ..prox import GroupL2
from ..splitting import PDHG, ProximalGradient


class Restored(NamedTuple):
    """What one method made of the data; `certified` is `None` where that is no question."""

    picture: Float[Array, "H W"]
    psnr: float
    ssim: float
    num_steps: int
    converged: bool
    certified: bool | None
    seconds: float


class Learned(NamedTuple):
    """The truth, the data, and the restored pictures by name of the method."""

    truth: Float[Array, "H W"]
    data: Float[Array, "H W"]
    methods: dict[str, Restored]


_NOISE = 0.02
_WEIGHT = 0.0035  # the best for total variation on this very picture
_LEVEL = 0.875 * _NOISE  # the prior's noise level: the benchmark's choice on other photographs
_TOP, _LEFT = 60, 180


def deblur_learned(size: int, max_steps: int = 500) -> Learned:
    """Head and camera of the held-out camera man, at the resolution that the prior has learnt,
    blurred by a Gaussian of one pixel.
    """
    photo = photograph("camera", dtype=jnp.float32)
    truth = photo[_TOP : _TOP + size, _LEFT : _LEFT + size]
    kernel = gaussian_kernel(1.0, 5).astype(jnp.float32)
    blur = Convolution(kernel, truth.shape)
    noise = jax.random.normal(jax.random.key(3), truth.shape, jnp.float32)
    data = blur.mv(truth) + _NOISE * noise
    fit = least_squares(blur, data)
    gradient = FiniteDifference(truth.shape, boundary="circular", dtype=jnp.float32)
    prior = lpn("photographs", noise=_LEVEL, objective=False)
    cases = {
        "total variation": (
            Composite(fit, penalty=GroupL2(_WEIGHT, axis=0), operator=gradient),
            PDHG(rtol=1e-4),
        ),
        "learned prior": (Composite(fit, prior), ProximalGradient(rtol=1e-4)),
    }
    methods = {}
    for name, (problem, solver) in cases.items():
        begin = time.perf_counter()
        sol = jax.block_until_ready(solve(problem, solver, data, max_steps=max_steps, throw=False))
        certified = sol.stats.get("certified")
        methods[name] = Restored(
            sol.value,
            float(psnr(sol.value, truth)),
            float(ssim(sol.value, truth)),
            int(sol.stats["num_steps"]),
            bool(sol.result == RESULTS.successful),
            None if certified is None else bool(certified),
            time.perf_counter() - begin,
        )
    return Learned(truth, data, methods)
