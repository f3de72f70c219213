"""The three inverse problems of the demo, all regularised by isotropic total variation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Real

from .. import data_terms, operators, prox, splitting
from .._composite import Composite
from .._solver import AbstractSolver


class Task(NamedTuple):
    """One inverse problem: how data arise, what to compare with, and what is solved.

    The weight from which the tuning starts is the standard deviation of the noise.
    """

    name: str
    before: str  # what `baseline` is called in figures
    noise: float
    size: int  # longest side of the pictures it is tested on
    training: tuple[str, ...]
    testing: dict[str, tuple[float, float]]  # where to look closer: row, column, from 0 to 1
    operator: Callable[..., lx.AbstractLinearOperator]
    baseline: Callable[..., Float[Array, "H W"]]
    problem: Callable[..., Composite]
    solver: Callable[[Real[Array, ""]], AbstractSolver]


def measure(operator, image: Float[Array, "H W"], noise: float, key) -> Float[Array, "..."]:
    """Data with white noise."""
    clean = operator.mv(image)
    scale = jnp.asarray(noise, clean.dtype)
    return clean + scale * jax.random.normal(key, clean.shape, clean.dtype)


def _total_variation(weight) -> prox.GroupL2:
    return prox.GroupL2(weight, axis=0)


def _blur(shape, dtype):
    return operators.Convolution(operators.gaussian_kernel(2.0, 9, dtype=dtype), shape)


def _deblurring(operator, data, weight) -> Composite:
    # Periodic like the blur: one FFT then diagonalises the linear system of ADMM.
    shape, dtype = data.shape, data.dtype
    gradient = operators.FiniteDifference(shape, boundary="circular", dtype=dtype)
    term = data_terms.least_squares(operator, data)
    return Composite(term, penalty=_total_variation(weight), operator=gradient)


def _mask(shape, dtype):
    return operators.Mask(jax.random.bernoulli(jax.random.key(5), 0.5, shape), dtype=dtype)


def _inpainting(operator, data, weight) -> Composite:
    gradient = operators.FiniteDifference(data.shape, dtype=data.dtype)
    term = data_terms.least_squares(operator, data)
    return Composite(proximable=term, penalty=_total_variation(weight), operator=gradient)


_VIEWS = 45


def _projections(shape, dtype):
    angles = jnp.linspace(0, jnp.pi, _VIEWS, endpoint=False, dtype=dtype)
    return operators.ParallelBeam(shape, angles)


def _tomography(operator, data, weight) -> Composite:
    # Both rows of the stack with norms of about the same size, or PDHG needs several times the
    # steps. A constant image gives the norm of the projections to a few per cent.
    shape = operator.in_structure().shape
    scale = jnp.asarray((_VIEWS * max(shape)) ** 0.5 / 8**0.5, data.dtype)
    gradient = operators.FiniteDifference(shape, dtype=data.dtype)
    term = prox.Translated(prox.SquaredL2(scale**2), data / scale)
    return Composite(
        penalty=prox.Separable((term, _total_variation(weight))),
        operator=operators.Stack((operator / scale, gradient)),
    )


TASKS = (
    Task(
        name="deblurring",
        before="blurred",
        noise=0.02,
        size=256,
        training=("chelsea", "coffee", "rocket"),
        testing={"camera": (0.24, 0.42)},
        operator=_blur,
        baseline=lambda operator, data: data,
        problem=_deblurring,
        solver=lambda rtol: splitting.ADMM(rtol=rtol, atol=rtol / 100),
    ),
    Task(
        name="inpainting",
        before="half of the pixels",
        noise=0.02,
        size=256,
        training=("chelsea", "coffee", "rocket"),
        testing={"astronaut": (0.13, 0.31)},
        operator=_mask,
        baseline=lambda operator, data: operator.mv(data),
        problem=_inpainting,
        solver=lambda rtol: splitting.PDHG(rtol=rtol, atol=rtol / 100),
    ),
    Task(
        name="tomography",
        before="filtered back-projection",
        noise=0.5,
        size=128,
        training=("cell", "immunohistochemistry", "moon"),
        testing={"retina": (0.38, 0.08), "phantom": (0.70, 0.42)},
        operator=_projections,
        baseline=lambda operator, data: operators.filtered_back_projection(
            operator, data, window="hann"
        ),
        problem=_tomography,
        solver=lambda rtol: splitting.PDHG(rtol=rtol, atol=rtol / 100),
    ),
)
