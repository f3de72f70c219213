"""Solves inside larger JAX programs: jit, AOT, leak checks, shard_map, scan, nesting."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from jax.sharding import PartitionSpec as P

import jinv

from .helpers import CASES, SMOOTH_CASES


pytestmark = pytest.mark.usefixtures("quick_compilation")

ALL = {**CASES, **SMOOTH_CASES}
NAMES = ["lasso-FISTA", "tv1-ADMM", "tv2-PDHG", "lasso-DouglasRachford", "RootFind-Newton"]
NAMES += ["Minimise-optimistix"]


def _loss(case, **options):
    return lambda theta: jnp.sum(case.solve(theta, **options).value ** 2)


@pytest.mark.parametrize("name", NAMES)
def test_ahead_of_time_compilation(name):
    case = ALL[name]
    function = jax.jit(jax.value_and_grad(_loss(case)))
    compiled = function.lower(case.theta).compile()
    got, expected = compiled(case.theta), function(case.theta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-12), got, expected)
    eager = jax.value_and_grad(_loss(case))(case.theta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-10), eager, expected)


# The check traces everything several times; for this one that takes half a minute.
SLOW = pytest.param("lasso-DouglasRachford", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [SLOW if n == "lasso-DouglasRachford" else n for n in NAMES])
def test_no_tracer_leaks(name):
    case = ALL[name]
    # The check finds fault with the first trace of any `lineax.linear_solve`.
    jax.jit(jax.grad(_loss(case))).lower(case.theta)
    with jax.checking_leaks():
        jax.jit(jax.grad(_loss(case)))(case.theta)


@pytest.mark.parametrize("name", ["lasso-FISTA", "tv1-ADMM"])
def test_a_whole_solution_leaves_jit(name):
    case = ALL[name]
    sol = jax.jit(case.solve)(case.theta)
    assert sol.result == jinv.RESULTS.successful and sol.stats["max_steps"] == case.max_steps
    np.testing.assert_array_equal(sol.value, case.solve(case.theta).value)


def _mesh():
    return jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize("throw", [False, True])
@pytest.mark.parametrize("name", ["lasso-FISTA", "tv1-ADMM", "tv2-PDHG", "lasso-ProximalGradient"])
def test_shard_map_over_data(name, throw):
    case = ALL[name]
    data = jnp.stack([case.theta["data"] * s for s in (0.7, 1.0, 1.3, 2.0)])

    def one(b):
        # With respect to what every device has, a gradient in `shard_map` sums over the devices.
        loss = lambda b: _loss(case, throw=throw)({**case.theta, "data": b})
        return jax.value_and_grad(loss)(b)

    def many(data):
        return jax.vmap(one)(data)

    sharded = jax.jit(jax.shard_map(many, mesh=_mesh(), in_specs=P("batch"), out_specs=P("batch")))(
        data
    )
    expected = jax.jit(many)(data)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), sharded, expected
    )


@pytest.mark.parametrize("name", ["RootFind-Newton", "FixedPoint-Picard"])
def test_shard_map_without_vmap(name):
    case = ALL[name]
    data = jnp.stack([case.theta["data"], -case.theta["data"]])
    run = lambda b: jax.grad(lambda b: _loss(case)({**case.theta, "data": b[0]}))(b)
    sharded = jax.shard_map(run, mesh=_mesh(), in_specs=P("batch"), out_specs=P("batch"))
    expected = np.concatenate([run(b[None]) for b in data])
    np.testing.assert_allclose(jax.jit(sharded)(data), expected, rtol=1e-9)


def test_shard_map_raises():
    case = CASES["lasso-FISTA"]
    data = jnp.stack([case.theta["data"], jnp.full(8, jnp.nan)])
    run = lambda b: case.solve({**case.theta, "data": b[0]}, throw=True).value[None]
    sharded = jax.shard_map(run, mesh=_mesh(), in_specs=P("batch"), out_specs=P("batch"))
    with pytest.raises(Exception, match="NaN in the initial guess"):
        jax.block_until_ready(jax.jit(sharded)(data))


def test_scan_around_a_solve_with_warm_starts():
    case = CASES["lasso-PDHG"]
    weights = jnp.linspace(2.0, 0.5, 4)

    def step(start, weight):
        sol = case.solve({**case.theta, "weight": weight}, y0=start)
        new = jinv.PrimalDual(sol.value, sol.dual)
        return new, (sol.value, sol.stats["num_steps"])

    zeros = jinv.PrimalDual(jnp.zeros(5), jnp.zeros(5))
    path = jax.jit(lambda w: jax.lax.scan(step, zeros, w)[1])
    values, _ = path(weights)
    for weight, value in zip(weights, values, strict=True):
        cold = case.solve({**case.theta, "weight": weight}).value
        np.testing.assert_allclose(value, cold, rtol=0, atol=1e-9)
    slope = jax.jit(jax.grad(lambda w: jnp.sum(path(w)[0] ** 2)))(weights)
    one = lambda w: jnp.sum(case.solve({**case.theta, "weight": w}).value ** 2)
    np.testing.assert_allclose(slope, [jax.grad(one)(w) for w in weights], rtol=1e-6)


def test_bilevel_with_an_optimistix_outer_solver():
    """The penalty of a ridge regression whose solution has a given norm."""
    A, b = CASES["lasso-FISTA"].theta["matrix"], CASES["lasso-FISTA"].theta["data"]

    def ridge(log_weight):
        loss = lambda x, w: 0.5 * jnp.sum((A @ x - b) ** 2) + 0.5 * w * jnp.sum(x**2)
        inner = jinv.Composite(loss)
        solver = jinv.splitting.FISTA(rtol=1e-12, atol=1e-12, step_size=0.02)
        weight = jnp.exp(log_weight)
        return jinv.solve(inner, solver, jnp.zeros(5), weight, max_steps=5000).value

    outer = jinv.RootFind(lambda log_weight, norm: jnp.sum(ridge(log_weight) ** 2) - norm)
    solve = lambda norm: jinv.solve(outer, optx.Newton(1e-10, 1e-10), jnp.asarray(0.0), norm).value
    exact = lambda w: jnp.linalg.solve(A.T @ A + jnp.exp(w) * jnp.eye(5), A.T @ b)
    target = jnp.sum(exact(jnp.asarray(0.7)) ** 2)
    np.testing.assert_allclose(jax.jit(solve)(target), 0.7, rtol=1e-8)
    slope = jax.grad(lambda w: jnp.sum(exact(w) ** 2))(0.7)
    np.testing.assert_allclose(jax.jit(jax.grad(solve))(target), 1 / slope, rtol=1e-6)


def test_a_solve_inside_a_step_of_another():
    """A fixed point of `x -> prox of TV at x / 2 + 1`, whose prox is a solve itself."""
    inner = CASES["tv1-PDHG"]
    data = jnp.asarray([0.0, 0.1, 2.0, 2.1, 2.0, -1.0, 0.5])

    def denoise(x, weight):
        return inner.solve({"data": x, "weight": weight}).value

    problem = jinv.FixedPoint(lambda x, weight: denoise(0.5 * x + data, weight))
    solver = optx.FixedPointIteration(rtol=1e-11, atol=1e-11)
    solve = lambda w: jinv.solve(problem, solver, jnp.zeros(7), w).value
    x = jax.jit(solve)(0.2)
    np.testing.assert_allclose(x, denoise(0.5 * x + data, 0.2), atol=1e-9)
    slope = (jax.jit(solve)(0.2 + 1e-5) - jax.jit(solve)(0.2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.jacfwd(solve))(0.2), slope, rtol=1e-5, atol=1e-8)
