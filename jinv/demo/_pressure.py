"""The pressure of a fluid among obstacles: one linear system, by two methods."""

import time
from typing import NamedTuple

import jax
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from ..linear import PCG, Multigrid, pressure_poisson, random_obstacles, random_source


class LinearSolve(NamedTuple):
    """What one method did; `residuals` are relative, one per step and the first."""

    num_steps: int
    solve_seconds: float
    compile_seconds: float
    residual: float
    converged: bool
    residuals: Float[np.ndarray, "steps"]


class Pressure(NamedTuple):
    """The solves of one system, by name."""

    shape: tuple[int, ...]
    solves: dict[str, LinearSolve]


_RTOL, _MAX_STEPS = 1e-5, 4000


def solve_pressure(size: int) -> Pressure:
    """Conjugate gradients without and with multigrid, to the same relative residual."""
    cells = random_obstacles((size, size), key=jax.random.key(1))
    operator = pressure_poisson(cells, open_sides=[(0, 1)])
    source = random_source(operator, key=jax.random.key(2))
    methods = {"conjugate gradients": None, "with multigrid": Multigrid()}
    solves = {}
    for name, preconditioner in methods.items():
        solver = PCG(_RTOL, 0.0, preconditioner, max_steps=_MAX_STEPS, history=True)
        solves[name] = _solve(operator, source, solver)
    return Pressure(cells.shape, solves)


def _solve(operator, source: Float[Array, "H W"], solver: PCG) -> LinearSolve:
    def solve(operator, source):
        solution = lx.linear_solve(operator, source, solver, throw=False)
        return solution.stats, solution.result == lx.RESULTS.successful

    begin = time.perf_counter()
    compiled = jax.jit(solve).lower(operator, source).compile()
    compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    stats, converged = jax.block_until_ready(compiled(operator, source))
    solve_seconds = time.perf_counter() - begin
    num_steps = int(stats["num_steps"])
    return LinearSolve(
        num_steps,
        solve_seconds,
        compile_seconds,
        float(stats["residual"]),
        bool(converged),
        np.asarray(stats["residuals"])[: num_steps + 1],
    )
