"""One reconstruction of a picture that took no part in the tuning, before and after it."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import metrics
from .._result import RESULTS
from .._solve import solve
from ._task import Task, measure


class Quality(NamedTuple):
    psnr: float
    ssim: float


class Evaluation(NamedTuple):
    """Pictures, their quality, and the cost of the solve with the tuned weight."""

    image: str
    pictures: dict[str, Float[Array, "H W"]]
    qualities: dict[str, Quality]
    num_steps: int
    solve_seconds: float
    compile_seconds: float
    converged: bool
    zoom: tuple[int, int, int]


_RTOL = 1e-4


def evaluate(
    task: Task,
    image: str,
    truth: Float[Array, "H W"],
    weights: dict[str, float],
    *,
    look_at: tuple[float, float],
    max_steps: int,
) -> Evaluation:
    """Solves with each of the weights; what it costs is that of the last one."""
    operator = task.operator(truth.shape, truth.dtype)
    measured = measure(operator, truth, task.noise, jax.random.key(3))
    start = task.baseline(operator, measured)
    pictures = {"truth": truth, task.before: start}

    def reconstruct(operator, measured, start, weight):
        problem = task.problem(operator, measured, weight)
        solver = task.solver(jnp.asarray(_RTOL, truth.dtype))
        sol = solve(problem, solver, start, max_steps=max_steps, throw=False)
        return sol.value, sol.stats["num_steps"], sol.result == RESULTS.successful

    arguments = lambda weight: (operator, measured, start, jnp.asarray(weight, truth.dtype))
    begin = time.perf_counter()
    compiled = jax.jit(reconstruct).lower(*arguments(task.noise)).compile()
    compile_seconds = time.perf_counter() - begin
    solve_seconds, num_steps, converged = 0.0, 0, False
    for name, weight in weights.items():
        begin = time.perf_counter()
        outcome = compiled(*arguments(weight))
        pictures[name], num_steps, converged = jax.block_until_ready(outcome)
        solve_seconds = time.perf_counter() - begin
    qualities = {
        name: Quality(float(metrics.psnr(x, truth)), float(metrics.ssim(x, truth)))
        for name, x in pictures.items()
        if name != "truth"
    }
    height, width = truth.shape
    zoom = (int(look_at[0] * height), int(look_at[1] * width), min(height, width) // 5)
    return Evaluation(
        image,
        pictures,
        qualities,
        int(num_steps),
        solve_seconds,
        compile_seconds,
        bool(converged),
        zoom,
    )
