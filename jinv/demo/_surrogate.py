"""Darcy flow in a medium that no network has seen, by a solver and by a trained operator."""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..pde import darcy_two_phase, solve_darcy
from ..pretrained import operator
from ..train import relative_l2


class Surrogate(NamedTuple):
    """The medium, its pressure, what the operator predicts, and what both cost."""

    medium: Float[Array, "n n"]
    solution: Float[Array, "n n"]
    prediction: Float[Array, "n n"]
    error: float
    solver_seconds: float
    operator_seconds: float
    compile_seconds: float


def predict_flow() -> Surrogate:
    """With the shipped multigrid operator, on the grid of its training."""
    made = darcy_two_phase(1, 127, key=jax.random.key(2026), stride=2, progress=False)
    medium, solution = (jnp.asarray(x[0], jnp.float32) for x in (made.inputs, made.outputs))
    begin = time.perf_counter()
    solve_darcy(medium)
    solver_seconds = time.perf_counter() - begin
    model = operator("mgno")
    begin = time.perf_counter()
    program: Any = eqx.filter_jit(lambda model, u: model(u))
    compiled = program.lower(model, medium).compile()
    compile_seconds = time.perf_counter() - begin
    jax.block_until_ready(compiled(model, medium))  # the first call also fetches its memory
    begin = time.perf_counter()
    prediction = jax.block_until_ready(compiled(model, medium))
    operator_seconds = time.perf_counter() - begin
    return Surrogate(
        medium,
        solution,
        prediction,
        float(relative_l2(prediction, solution)),
        solver_seconds,
        operator_seconds,
        compile_seconds,
    )
