"""The shipped priors of images and samples."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import ArrayLike, Real

from ..nn import (
    AbstractConvexPotential,
    ConvDenoiser,
    LipschitzDenoiser,
    Pyramid,
    Rescaled,
    Tiled,
    dense_icnn,
)
from ..prox import LearnedProximalNetwork, PlugIn
from ._store import load, read_record


_PRIORS = ("photographs", "digits", "laplacian", "l1_16")
_DENOISERS = ("convolutional", "lipschitz")


def lpn(
    name: str = "photographs",
    *,
    noise: Real[ArrayLike, ""] | None = None,
    step_size: Real[ArrayLike, ""] = 0.98,
    chunk: int | None = 2048,
    **options: Any,
) -> LearnedProximalNetwork:
    r"""A trained [`jinv.prox.LearnedProximalNetwork`][], $-s^2 \log p$ for noise of standard
    deviation $s$, over the step size.

    - `"photographs"`: grey photographs of any size with values in [0, 1]. Trained by
      `scripts/train_lpn.py` on white noise of all levels up to 0.05 and more contrast.
    - `"digits"`: handwritten digits, 8 x 8, in [0, 1]; `"laplacian"`: one number of the Laplace
      distribution; `"l1_16"`: sixteen of them. Trained by `scripts/train_lpn_priors.py`.

    With least squares of an operator of norm one and data of noise $s$, `noise=s` is the prior
    in its own proportion; the default step size is then that of the solvers, for which the
    prox is one evaluation of the network, and `stats["certified"]` is true.

    **Arguments:**

    - `name`: as above.
    - `noise`: $s$, in units of the data; by default that of the training. More of it is more
        smoothing: $R$ becomes $R(c\,\cdot)/c^2$, see [`jinv.nn.Rescaled`][].
    - `chunk`: how many patches of an image to evaluate at a time, `None` for all. On a CPU 2048
        takes a third of the time for large images; on an accelerator `None` is faster.
    - `step_size`, `options`: arguments of [`jinv.prox.LearnedProximalNetwork`][].

    Raises `ValueError` for another name, or for `noise` that is not positive.

    !!! example
        ```python
        >>> import jinv
        >>> truth = jinv.data.photograph("camera", shape=(64, 64))
        >>> blur = jinv.operators.Convolution(jinv.operators.gaussian_kernel(1.0, 5), (64, 64))
        >>> fit = jinv.data_terms.least_squares(blur, blur.mv(truth))
        >>> prior = jinv.pretrained.lpn(noise=0.02, objective=False)
        >>> solver = jinv.splitting.ProximalGradient(rtol=1e-3)
        >>> sol = jinv.solve(jinv.Composite(fit, prior), solver, truth)
        >>> bool(sol.stats["certified"])
        True

        ```
    """
    if name not in _PRIORS:
        raise ValueError(f"`name` must be one of {_PRIORS}, got {name!r}")
    record = read_record(f"lpn_{name}")
    potential = load(f"lpn_{name}", _potential(record["network"], chunk))
    return LearnedProximalNetwork(_at(potential, record, noise), step_size, **options)


def denoiser(name: str = "convolutional", *, noise: Real[ArrayLike, ""] | None = None) -> PlugIn:
    """A trained denoiser of photographs that is no proximal map, to compare with `lpn`.

    - `"convolutional"`: without constraints, about as many weights as `lpn()`; by squared error,
      by `scripts/train_lpn.py`.
    - `"lipschitz"`: with Lipschitz constant 1, [`jinv.nn.LipschitzDenoiser`][], by the same script.

    **Arguments:** as for `lpn`.

    **Returns:** a [`jinv.prox.PlugIn`][] whose `denoiser` ignores the step size.

    Raises `ValueError` for another name, or for `noise` that is not positive.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.pretrained.denoiser(noise=0.1).prox(jnp.ones((9, 7)), 1.0).shape
        (9, 7)

        ```
    """
    if name not in _DENOISERS:
        raise ValueError(f"`name` must be one of {_DENOISERS}, got {name!r}")
    record = read_record(f"denoiser_{name}")
    kind = ConvDenoiser if name == "convolutional" else LipschitzDenoiser
    lists = record["network"].items()
    network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in lists}
    model = load(f"denoiser_{name}", kind(**network, key=jax.random.key(0)))
    return PlugIn(_AtNoise(model, _scale(record, noise)))


class _AtNoise(eqx.Module):
    model: Any
    scale: Any

    def __call__(self, v, step_size):
        return self.model(v * self.scale) / self.scale


def _potential(network: dict[str, Any], chunk: int | None) -> AbstractConvexPotential:
    outer = ("shape", "widths", "stride", "levels")
    settings = {k: v for k, v in network.items() if k not in outer}
    shape, widths = tuple(network["shape"]), network["widths"]
    make = lambda: dense_icnn(shape, widths, **settings, key=jax.random.key(0))
    if "levels" in network:
        levels = [make() for _ in range(network["levels"])]
        return Pyramid(levels, network["stride"], chunk=chunk)
    return Tiled(make(), network["stride"], chunk) if "stride" in network else make()


def _scale(record: dict[str, Any], noise):
    if noise is None:
        return 1.0
    if isinstance(noise, int | float) and not noise > 0:
        raise ValueError(f"`noise` must be positive, got {noise}")
    return record["noise"] / noise


def _at(potential, record, noise):
    scale = _scale(record, noise)
    return potential if noise is None else Rescaled(potential, scale)
