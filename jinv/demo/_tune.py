"""Learning a regularisation weight: the loss of the reconstructions, differentiated in it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import tqdm
from jaxtyping import Array, Float

from .. import data
from .._adjoint import UnrollAdjoint
from .._solve import solve
from ._task import Task, measure


class Tuning(NamedTuple):
    """The weights tried, their losses, and the check of the first derivative."""

    weights: list[float]
    losses: list[float]
    derivative: float
    difference: float

    @property
    def best(self) -> int:
        return min(range(len(self.losses)), key=self.losses.__getitem__)

    @property
    def error(self) -> float:
        """Of the derivative, relative to the central difference."""
        return abs(self.derivative - self.difference) / abs(self.difference)


_RTOL, _LEARNING_RATE = 1e-4, 0.5
_CHECK_RTOL, _CHECK_DISTANCE = 3e-6, 2e-3


def tune(task: Task, *, crop: int, num_steps: int, max_steps: int) -> Tuning:
    """Adam on the logarithm of the weight, in float64, on crops of the training photographs."""
    crops = training_crops(task, crop)
    value_and_derivative = make_loss(task, crops, max_steps)
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, num_steps)
    optimiser = optax.adam(schedule, b1=0.5)
    log_weight = jnp.asarray(math.log(task.noise), crops.dtype)
    state = optimiser.init(log_weight)
    weights, losses = [], []
    with tqdm.trange(num_steps, desc=f"{task.name}: weight") as bar:
        for _ in bar:
            loss, slope = value_and_derivative(log_weight, _RTOL)
            weights.append(math.exp(float(log_weight)))
            losses.append(float(loss))
            bar.set_postfix(weight=f"{weights[-1]:.4f}", loss=f"{losses[-1]:.6f}")
            # The logarithm of the loss has no scale, so one learning rate serves all tasks.
            update, state = optimiser.update(slope / loss, state)
            log_weight = jnp.asarray(optax.apply_updates(log_weight, update))
    derivative, difference = check(value_and_derivative, math.log(task.noise))
    return Tuning(weights, losses, derivative, difference)


def training_crops(task: Task, crop: int) -> Float[Array, "num {crop} {crop}"]:
    """One crop of each training photograph, at the resolution of the pictures of the test."""
    pictures = [data.photograph(name, shape=task.size, dtype=jnp.float64) for name in task.training]
    keys = jax.random.split(jax.random.key(1), len(pictures))
    crops = [data.patches(p, crop, key=k, num=1) for p, k in zip(pictures, keys, strict=True)]
    return jnp.concatenate(crops)


def make_loss(task: Task, crops: Float[Array, "num n n"], max_steps: int) -> Callable:
    """The mean squared error of the reconstructions, and its derivative, as functions of the
    logarithm of the weight and of the solver's tolerance.

    A single number is differentiated, so forward mode is the cheapest exact way: one more
    iteration beside each, no memory, and no linear system at the solution.
    """
    operator = task.operator(crops.shape[1:], crops.dtype)
    keys = jax.random.split(jax.random.key(2), crops.shape[0])
    adjoint = UnrollAdjoint(mode="forward")

    def error(log_weight, rtol, truth, key):
        measured = measure(operator, truth, task.noise, key)
        problem = task.problem(operator, measured, jnp.exp(log_weight))
        start = task.baseline(operator, measured)
        settings = {"max_steps": max_steps, "adjoint": adjoint, "throw": False}
        sol = solve(problem, task.solver(rtol), start, **settings)
        return jnp.mean((sol.value - truth) ** 2)

    @jax.jit
    def value_and_derivative(log_weight, rtol):
        def loss(log_weight):
            errors = jax.vmap(error, in_axes=(None, None, 0, 0))(log_weight, rtol, crops, keys)
            return jnp.mean(errors)

        return jax.jvp(loss, (log_weight,), (jnp.ones_like(log_weight),))

    return value_and_derivative


def check(value_and_derivative: Callable, log_weight: float) -> tuple[float, float]:
    """The derivative and a central difference, at a tolerance that makes both comparable."""
    at = lambda t: value_and_derivative(jnp.asarray(t, jnp.float64), _CHECK_RTOL)
    derivative = at(log_weight)[1]
    above, below = at(log_weight + _CHECK_DISTANCE)[0], at(log_weight - _CHECK_DISTANCE)[0]
    return float(derivative), float((above - below) / (2 * _CHECK_DISTANCE))
