"""One reconstruction of a picture that took no part in the tuning, before and after it."""

import time
from typing import NamedTuple

import equinox as eqx
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
    message: str


_RTOL = 1e-4


def evaluate(
    task: Task,
    image: str,
    truth: Float[Array, "H W"],
    weights: dict[str, float],
    *,
    max_steps: int,
) -> Evaluation:
    """Solves with each of the weights; the last one is timed."""
    operator = task.operator(truth.shape, truth.dtype)
    measured = measure(operator, truth, task.noise, jax.random.key(3))
    start = task.baseline(operator, measured)
    pictures = {"truth": truth, task.before: start}

    def reconstruct(operator, measured, start, weight):
        problem = task.problem(operator, measured, weight)
        rtol = jnp.asarray(_RTOL, truth.dtype)
        return solve(problem, task.solver(rtol), start, max_steps=max_steps, throw=False)

    arguments = lambda weight: (operator, measured, start, jnp.asarray(weight, truth.dtype))
    begin = time.perf_counter()
    compiled = eqx.filter_jit(reconstruct).lower(*arguments(task.noise)).compile()
    compile_seconds = time.perf_counter() - begin
    for name, weight in weights.items():
        begin = time.perf_counter()
        solution = compiled(*arguments(weight))
        pictures[name] = solution.value.block_until_ready()
        solve_seconds = time.perf_counter() - begin
    qualities = {
        name: Quality(float(metrics.psnr(x, truth)), float(metrics.ssim(x, truth)))
        for name, x in pictures.items()
        if name != "truth"
    }
    failed = bool(solution.result != RESULTS.successful)
    message = RESULTS[solution.result] if failed else ""
    num_steps = int(solution.stats["num_steps"])
    return Evaluation(
        image, pictures, qualities, num_steps, solve_seconds, compile_seconds, message
    )
