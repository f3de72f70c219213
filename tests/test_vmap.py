"""`vmap` equals the loop lane by lane: values, statistics, results, derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv

from .helpers import CASES, FORMS, SMOOTH_CASES


pytestmark = pytest.mark.usefixtures("quick_compilation")

ALL = {**CASES, **SMOOTH_CASES}
WEIGHTS = jnp.logspace(-2, 1.6, 32)
# Loose enough that the last digits, in which batched sums differ, do not decide when to stop.
LOOSE = 1e-7


def _loose(case):
    solver = case.solver
    return eqx.tree_at(lambda s: (s.rtol, s.atol), solver, (LOOSE, LOOSE))


def _summary(sol):
    return sol.value, sol.result._value, sol.stats["num_steps"], sol.stats["residual"]


def _assert_lanes_equal(batched, lanes, rtol=1e-10):
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *lanes)
    for got, expected in zip(jax.tree.leaves(batched), jax.tree.leaves(stacked), strict=True):
        if np.issubdtype(expected.dtype, np.integer):
            np.testing.assert_array_equal(got, expected)
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=rtol)


NAMES = [f"lasso-{form}" for form in FORMS] + ["lasso-HQS", "tv1-ADMM", "tv2-PDHG", "poisson-PDHG"]
NAMES += ["FixedPoint-Picard", "RootFind-Newton", "RootFind-optimistix", "Minimise-optimistix"]


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_the_loop(name):
    case = ALL[name]
    solver = _loose(case)
    key = "weight" if "weight" in case.theta else "data"
    values = WEIGHTS if name == "lasso-FISTA" else WEIGHTS[::6] / 40 + 0.1
    if key == "data":
        values = case.theta["data"][None] * values[:, None]

    @jax.jit
    def run(value):
        return _summary(case.solve({**case.theta, key: value}, solver=solver, max_steps=3000))

    batched = jax.jit(jax.vmap(run))(values)
    _assert_lanes_equal(batched, [run(v) for v in values])
    if name == "lasso-FISTA":
        assert len(set(np.asarray(batched[2]).tolist())) > 1, "lanes must differ in their steps"


@pytest.mark.parametrize("name", [f"lasso-{s}" for s in ("FISTA", "PDHG", "ADMM")])
def test_lanes_that_fail_leave_the_others_alone(name):
    case = CASES[name]
    data = jnp.stack([case.theta["data"]] * 4)
    data = data.at[1].set(jnp.nan).at[2].multiply(jnp.inf).at[3].set(0.0)

    @jax.jit
    def run(b):
        return _summary(case.solve({**case.theta, "data": b}, solver=_loose(case)))

    value, result, steps, _ = jax.jit(jax.vmap(run))(data)
    lanes = [run(b) for b in data]
    np.testing.assert_array_equal(result, [lane[1] for lane in lanes])
    np.testing.assert_array_equal(steps, [lane[2] for lane in lanes])
    infinite = jinv.RESULTS.subproblem_failed if name == "lasso-ADMM" else jinv.RESULTS.diverged
    codes = [jinv.RESULTS.successful, jinv.RESULTS.nan_in_input, infinite]
    np.testing.assert_array_equal(result[:3], [c._value for c in codes])
    assert result[3] == jinv.RESULTS.successful._value and steps[1] == 0
    np.testing.assert_allclose(value[0], lanes[0][0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(value[3], np.zeros(5), atol=1e-12)


def test_lanes_that_run_out_of_steps():
    case = CASES["lasso-ProximalGradient"]

    def run(weight):
        return case.solve({**case.theta, "weight": weight}, solver=_loose(case), max_steps=40)

    sol = eqx.filter_jit(eqx.filter_vmap(run))(jnp.asarray([0.1, 50.0]))
    late = sol.result == jinv.RESULTS.nonlinear_max_steps_reached
    np.testing.assert_array_equal(late, [True, False])
    np.testing.assert_array_equal(sol.stats["num_steps"] < 40, [False, True])


@pytest.mark.parametrize("name", ["lasso-FISTA", "lasso-ADMM", "tv2-PDHG", "RootFind-Newton"])
@pytest.mark.parametrize("adjoint", ["implicit", "unrolled"])
def test_vmap_of_grad(name, adjoint):
    case = ALL[name]
    rule = jinv.ImplicitAdjoint() if adjoint == "implicit" else jinv.UnrollAdjoint()
    solver = _loose(case)

    @jax.jit
    def grad(weight):
        def loss(theta):
            return jnp.sum(case.solve(theta, rule, solver=solver, max_steps=400).value ** 2)

        return jax.grad(loss)({**case.theta, "weight": weight})

    weights = jnp.asarray([0.2, 0.5, 0.9])
    batched = jax.jit(jax.vmap(grad))(weights)
    _assert_lanes_equal(batched, [grad(w) for w in weights], rtol=1e-9)


def test_throw_under_vmap_raises_if_any_lane_fails():
    case = CASES["lasso-FISTA"]
    run = lambda b: case.solve({**case.theta, "data": b}, throw=True).value
    data = jnp.stack([case.theta["data"], jnp.full(8, jnp.nan)])
    assert jax.jit(jax.vmap(run))(data[:1]).shape == (1, 5)
    with pytest.raises(Exception, match="NaN in the initial guess"):
        jax.block_until_ready(jax.jit(jax.vmap(run))(data))


def test_vmap_over_operators_and_guesses():
    case = CASES["lasso-PDHG"]
    matrices = jnp.stack([case.theta["matrix"], 2 * case.theta["matrix"]])
    guesses = jnp.stack([jnp.zeros(5), jnp.ones(5)])
    solver = _loose(case)
    run = jax.jit(
        lambda A, y: _summary(case.solve({**case.theta, "matrix": A}, y0=y, solver=solver))
    )
    pairs = zip(matrices, guesses, strict=True)
    _assert_lanes_equal(jax.jit(jax.vmap(run))(matrices, guesses), [run(*pair) for pair in pairs])


@pytest.mark.parametrize("name", ["lasso-FISTA", "tv1-ADMM"])
def test_large_lanes_run_one_by_one_with_the_same_outcome(name, monkeypatch):
    """The path of large iterates on a CPU, here for every size."""
    case, solver = CASES[name], _loose(CASES[name])
    weights = jnp.asarray([0.05, 0.4, 1.5])

    def runs():
        # Its own function and number of steps: nothing compiled before is taken.
        def run(weight):
            theta = {**case.theta, "weight": weight}
            return _summary(case.solve(theta, solver=solver, max_steps=steps))

        grad = jax.grad(lambda w: jnp.sum(run(w)[0] ** 2))
        return jax.jit(jax.vmap(run))(weights), jax.jit(jax.vmap(grad))(weights)

    steps = 610
    together = runs()
    monkeypatch.setattr("jinv._run._LARGE", 0)
    steps = 620
    apart = runs()
    _assert_lanes_equal(
        apart[0], [jax.tree.map(lambda x, i=i: x[i], together[0]) for i in range(3)]
    )
    np.testing.assert_allclose(apart[1], together[1], rtol=1e-6, atol=1e-9)
