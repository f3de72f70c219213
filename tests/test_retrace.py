"""New numbers do not compile again; compile time does not depend on `max_steps`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv
from jinv import prox, splitting
from jinv.data_terms import least_squares

from .helpers import CASES, SMOOTH_CASES, array, matrix


class Counter:
    """A smooth function that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, x, args):
        self.traces += 1
        return 0.5 * jnp.sum((x - args) ** 2)

    def quiet(self, *calls):
        calls[0]()
        before = self.traces
        assert before > 0
        for call in calls[1:]:
            call()
        return self.traces == before


def test_new_numbers_do_not_retrace():
    fn = Counter()

    def run(rtol=1e-4, weight=0.1, data=1.0, start=0.0, args=None):
        problem = jinv.Composite(fn, prox.L1(weight))
        solver = splitting.FISTA(rtol=rtol, atol=rtol / 10, step_size=0.5)
        args = jnp.full(3, data) if args is None else args
        return jinv.solve(problem, solver, jnp.full(3, start), args)

    calls = [{}, {"rtol": 1e-5}, {"weight": 0.7}, {"data": 2.0}, {"start": 0.3}]
    assert fn.quiet(*(lambda c=c: run(**c) for c in calls))
    # Python floats as arguments, too.
    assert fn.quiet(lambda: run(args=1.0), lambda: run(args=2.5))


def test_new_function_objects_do_retrace():
    first, second = Counter(), Counter()
    for fn in (first, second):
        jinv.solve(jinv.Composite(fn), splitting.FISTA(), jnp.zeros(2), jnp.ones(2))
    assert first.traces > 0 and second.traces > 0


def test_static_settings_do_retrace():
    fn = Counter()
    run = lambda n: jinv.solve(
        jinv.Composite(fn), splitting.FISTA(), jnp.zeros(2), jnp.ones(2), max_steps=n
    )
    assert not fn.quiet(lambda: run(100), lambda: run(200))


@pytest.mark.parametrize(
    "solver",
    [splitting.ProximalGradient, splitting.FISTA, splitting.ADMM, splitting.HQS, splitting.PDHG]
    + [splitting.DouglasRachford],
)
def test_splitting_solvers_do_not_retrace(solver):
    A = jnp.asarray(array(0, 4, 3))
    traces = []

    class Traced(jinv.AbstractFunctional):
        weight: jax.Array

        def __call__(self, x):
            traces.append(1)
            return self.weight * jnp.sum(jnp.abs(x))

        def prox(self, v, step_size):
            return prox.L1(self.weight).prox(v, step_size)

    def run(rtol, weight, scale):
        f, g = least_squares(matrix(scale * A), A[:, 0] * scale), Traced(jnp.asarray(weight))
        if solver in (splitting.PDHG, splitting.DouglasRachford):
            problem = jinv.Composite(proximable=f, penalty=g)
        else:
            problem = jinv.Composite(f, g)
        jinv.solve(problem, solver(rtol=rtol), jnp.zeros(3), throw=False)

    run(1e-3, 0.1, 1.0)
    before = len(traces)
    run(1e-5, 0.3, 2.0)
    assert before > 0 and len(traces) == before


def test_gradients_inside_jit_trace_once():
    fn = Counter()

    @jax.jit
    def loss(data):
        problem = jinv.Composite(fn, prox.L1(0.1))
        return jnp.sum(jinv.solve(problem, splitting.FISTA(), jnp.zeros(3), data).value)

    grad = jax.jit(jax.grad(loss))
    assert fn.quiet(lambda: grad(jnp.ones(3)), lambda: grad(jnp.zeros(3)))


@pytest.mark.parametrize("name", ["lasso-FISTA", "tv1-ADMM", "tv2-PDHG", "FixedPoint-Picard"])
@pytest.mark.parametrize("adjoint", [jinv.ImplicitAdjoint(), jinv.UnrollAdjoint()])
def test_program_size_does_not_depend_on_max_steps(name, adjoint):
    case = {**CASES, **SMOOTH_CASES}[name]

    def size(max_steps):
        loss = lambda t: jnp.sum(case.solve(t, adjoint, max_steps=max_steps).value)
        text = str(jax.make_jaxpr(jax.grad(loss))(case.theta))
        return len(text.splitlines())

    sizes = [size(n) for n in (40, 10_000)]
    np.testing.assert_allclose(*sizes, rtol=0.02)
