"""Implicit, unrolled and finite-difference derivatives agree, for every solver and adjoint."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv
from jinv import prox
from jinv.data_terms import least_squares

from .helpers import (
    CASES,
    FORMS,
    REGRESSION,
    SMOOTH,
    SMOOTH_CASES,
    SOLVERS,
    Picard,
    array,
    contraction,
    matrix,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")

# Every form of every solver once, and each kind of problem behind an operator.
SPLITTING = [f"lasso-{form}" for form in FORMS]
SPLITTING += [
    "group_lasso-FISTA",
    "nnls-PDHG",
    "tv1-ADMM",
    "tv2-PDHG",
    "l1_tv-PDHG",
    "poisson-PDHG",
]
ALL = {**{name: CASES[name] for name in SPLITTING}, **SMOOTH_CASES, "HQS": CASES["lasso-HQS"]}


def _direction(theta):
    leaves, treedef = jax.tree.flatten(theta)
    return treedef.unflatten([jnp.asarray(array(40 + i, *x.shape)) for i, x in enumerate(leaves)])


def _dot(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)))


def _loss(case, adjoint, theta, **options):
    value = case.solve(theta, adjoint, **options).value
    weights = jnp.asarray(array(50, value.size)).reshape(value.shape)
    return jnp.sum(weights * value)


@ft.cache
def _finite_difference(name):
    case = ALL[name]
    d = _direction(case.theta)
    loss = eqx.filter_jit(lambda theta: _loss(case, None, theta))
    shifted = lambda h: jax.tree.map(lambda t, u: t + h * u, case.theta, d)
    # Two central differences: their extrapolation has no third-order error.
    slope = lambda h: float((loss(shifted(h)) - loss(shifted(-h))) / (2 * h))
    return (4 * slope(5e-5) - slope(1e-4)) / 3


def _reverse(name, adjoint, **options):
    case = ALL[name]
    grad = jax.jit(jax.grad(lambda theta: _loss(case, adjoint, theta, **options)))(case.theta)
    return _dot(grad, _direction(case.theta))


def _forward(name, adjoint, **options):
    case = ALL[name]
    loss = lambda theta: _loss(case, adjoint, theta, **options)
    return jax.jit(lambda t, d: jax.jvp(loss, (t,), (d,))[1])(case.theta, _direction(case.theta))


def _check(actual, name, rtol=1e-6):
    np.testing.assert_allclose(actual, _finite_difference(name), rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in ALL if name != "HQS"])
def test_implicit(name):
    adjoint = jinv.ImplicitAdjoint()
    _check(_reverse(name, adjoint), name)
    _check(_forward(name, adjoint), name)


UNROLLED = [
    *(f"lasso-{form}" for form in ("ProximalGradient", "FISTA", "PDHG", "ADMM")),
    "lasso-DouglasRachford",
    "HQS",
    "tv1-ADMM",
    "tv2-PDHG",
    "FixedPoint-Picard",
    "RootFind-Newton",
    "FixedPoint-optimistix",
    "Minimise-optimistix",
]


@pytest.mark.parametrize("name", UNROLLED)
def test_unrolled_reverse(name):
    # No more steps than it takes: memory and time for checkpoints grow with their square root.
    _check(_reverse(name, jinv.UnrollAdjoint(), max_steps=1000), name)


@pytest.mark.parametrize("name", ["lasso-FISTA", "tv2-PDHG", "tv1-ADMM", "FixedPoint-Picard"])
def test_unrolled_forward_and_both(name):
    _check(_forward(name, jinv.UnrollAdjoint(mode="forward")), name)
    both = jinv.UnrollAdjoint(mode="both")
    _check(_forward(name, both, max_steps=400), name)
    _check(_reverse(name, both, max_steps=400), name)


@pytest.mark.parametrize(
    "name, step_size",
    [("FixedPoint-Picard", 1.0), ("FixedPoint-optimistix", 1.0), ("Minimise-optimistix", 0.4)]
    + [("lasso-FISTA", 0.04)],
)
def test_neumann(name, step_size):
    adjoint = jinv.NeumannAdjoint(terms=1000, step_size=step_size)
    _check(_reverse(name, adjoint), name)
    _check(_forward(name, adjoint), name)


def test_neumann_error_falls_with_the_rate_of_the_series():
    name, exact = "FixedPoint-Picard", _finite_difference("FixedPoint-Picard")
    errors = [abs(_forward(name, jinv.NeumannAdjoint(terms=k)) - exact) for k in (0, 8, 16)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] * errors[0] < 100 * errors[1] ** 2


@pytest.mark.parametrize("name", ["FixedPoint-Newton", "RootFind-Newton", "Minimise-Newton"])
def test_one_step_is_exact_for_newton(name):
    _check(_reverse(name, jinv.OneStepAdjoint()), name)
    _check(_forward(name, jinv.OneStepAdjoint()), name)


def test_one_step_is_the_last_step_of_a_linear_method():
    adjoint = jinv.OneStepAdjoint()
    case = SMOOTH_CASES["FixedPoint-Picard"]
    y = case.solve(case.theta).value
    d, weights = _direction(case.theta), jnp.asarray(array(50, 3))
    partial = jax.jvp(lambda t: contraction(y, t), (case.theta,), (d,))[1]
    got = _forward("FixedPoint-Picard", adjoint)
    np.testing.assert_allclose(got, weights @ partial, rtol=1e-9)
    rate = jnp.linalg.norm(jax.jacobian(contraction)(y, case.theta), 2)
    bound = jnp.linalg.norm(weights) * jnp.linalg.norm(partial) * rate / (1 - rate)
    assert abs(got - _finite_difference("FixedPoint-Picard")) <= bound


@pytest.mark.parametrize("name", [f"lasso-{s}" for s in FORMS])
def test_one_step_refuses_dual_variables(name):
    if CASES[name].solver.one_step:
        assert np.isfinite(_reverse(name, jinv.OneStepAdjoint()))
    else:
        with pytest.raises(ValueError, match="OneStepAdjoint would be wrong"):
            _reverse(name, jinv.OneStepAdjoint())


@pytest.mark.parametrize(
    "name", ["Minimise-Newton", "FixedPoint-Picard", "lasso-FISTA", "tv1-PDHG"]
)
def test_second_order(name):
    case = {**CASES, **SMOOTH_CASES}[name]
    d = _direction(case.theta)
    loss = lambda theta: _loss(case, None, theta) ** 2
    slope = lambda theta: _dot(jax.grad(loss)(theta), d)
    first = jax.jit(slope)
    shifted = lambda h: jax.tree.map(lambda t, u: t + h * u, case.theta, d)
    central = lambda h: float((first(shifted(h)) - first(shifted(-h))) / (2 * h))
    expected = (4 * central(5e-5) - central(1e-4)) / 3
    forward = jax.jit(lambda t: jax.jvp(slope, (t,), (d,))[1])(case.theta)
    reverse = _dot(jax.jit(jax.grad(slope))(case.theta), d)
    np.testing.assert_allclose([forward, reverse], expected, rtol=1e-5)


def test_closed_form_of_the_lasso():
    # On the support, x = (A'A)^-1 (A'b - w sign x).
    case = CASES["lasso-FISTA"]
    x = case.solve(case.theta).value
    on = np.flatnonzero(np.abs(x) > 1e-9)
    A = np.asarray(REGRESSION["matrix"])[:, on]
    expected = np.zeros(5)
    expected[on] = -np.linalg.solve(A.T @ A, np.sign(x)[on])
    solution = lambda w: case.solve({**case.theta, "weight": w}).value
    weight = case.theta["weight"]
    np.testing.assert_allclose(jax.jacrev(solution)(weight), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(solution)(weight), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adjoint", [None, jinv.UnrollAdjoint()], ids=["implicit", "unrolled"])
@pytest.mark.parametrize("form", ["FISTA", "PDHG", "ADMM"])
def test_complex_unknowns(form, adjoint):
    A = jnp.asarray(array(10, 6, 3) + 1j * array(11, 6, 3))
    b = jnp.asarray(array(12, 6) + 1j * array(13, 6))

    def loss(theta):
        f, g = least_squares(matrix(theta[0]), theta[1]), prox.L1(theta[2])
        options = {"adjoint": adjoint, "max_steps": 3000}
        x = jinv.solve(FORMS[form](f, g), SOLVERS[form], jnp.zeros(3, complex), **options).value
        return jnp.sum(jnp.abs(x) ** 2 * jnp.arange(1.0, 4.0)) + jnp.sum(x.imag)

    theta = (A, b, jnp.asarray(1.5))
    d = (jnp.asarray(array(14, 6, 3) + 1j * array(15, 6, 3)), 1j * b[::-1], jnp.asarray(0.3))
    run = jax.jit(loss)
    shifted = lambda h: jax.tree.map(lambda t, u: t + h * u, theta, d)
    slope = (run(shifted(1e-5)) - run(shifted(-1e-5))) / 2e-5
    grad = jax.jit(jax.grad(loss))(theta)
    # JAX's gradient of a real function is the conjugate of the steepest ascent.
    got = sum(jnp.sum(g * u).real for g, u in zip(grad, d, strict=True))
    np.testing.assert_allclose(got, slope, rtol=1e-6)


def test_pytree_unknowns():
    def loss(data):
        fn = lambda x, b: 0.5 * jnp.sum((x["a"] - b) ** 2) + jnp.sum((x["b"] + x["a"][:1]) ** 2)
        y0 = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
        x = jinv.solve(jinv.Composite(fn, prox.L1(0.3)), SOLVERS["FISTA"], y0, data).value
        return jnp.sum(x["a"] ** 3) + jnp.sum(x["b"])

    b = jnp.asarray([2.0, -1.5])
    run = jax.jit(loss)
    slope = [(run(b.at[i].add(1e-5)) - run(b.at[i].add(-1e-5))) / 2e-5 for i in range(2)]
    np.testing.assert_allclose(jax.grad(loss)(b), slope, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(loss)(b), slope, rtol=1e-6)


@pytest.mark.parametrize(
    "name, level",
    [("tv2-PDHG", 0.0), ("tv2-PDHG", 1.0), ("tv2-ADMM", 1.0), ("group_lasso-FISTA", 0.0)],
)
@pytest.mark.parametrize("adjoint", ["implicit", "unrolled"])
def test_flat_data_gives_no_nan(name, level, adjoint):
    case = CASES[name]
    theta = {**case.theta, "data": jnp.full_like(case.theta["data"], level)}
    rule = jinv.UnrollAdjoint() if adjoint == "unrolled" else jinv.ImplicitAdjoint()
    grad = jax.jit(jax.grad(lambda t: _loss(case, rule, t, max_steps=200)))(theta)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grad))
    if (
        adjoint == "implicit" and level and name.startswith("tv2")
    ):  # the mean of the data passes through, no more
        weights = np.asarray(array(50, 12))
        np.testing.assert_allclose(grad["data"], np.full((3, 4), weights.mean()), atol=1e-6)


def _damped(damping, adjoint):
    case = SMOOTH_CASES["FixedPoint-Picard"]
    solver = Picard(rtol=0.0, atol=0.0, damping=damping)
    options = {"solver": solver, "max_steps": 3}
    return jnp.sum(case.solve(case.theta, adjoint, **options).value)


@pytest.mark.parametrize("adjoint", [jinv.ImplicitAdjoint(), jinv.NeumannAdjoint(terms=3)])
@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd])
def test_a_solvers_arrays_have_no_implicit_derivative(adjoint, transform):
    with pytest.raises(Exception, match=f"(?s){type(adjoint).__name__}.*UnrollAdjoint"):
        transform(lambda d: _damped(d, adjoint))(0.7)


def test_a_solvers_arrays_have_an_unrolled_derivative():
    adjoint = jinv.UnrollAdjoint()
    expected = (_damped(0.7 + 1e-5, adjoint) - _damped(0.7 - 1e-5, adjoint)) / 2e-5
    np.testing.assert_allclose(jax.grad(lambda d: _damped(d, adjoint))(0.7), expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["FixedPoint-Picard", "FixedPoint-optimistix", "lasso-FISTA"])
def test_initial_guess(name):
    case = ALL[name]
    start = lambda adjoint: (
        lambda y: jnp.sum(case.solve(case.theta, adjoint, y0=y, max_steps=3).value)
    )
    y0 = jnp.asarray(array(60, case.y0.size))
    for adjoint in (jinv.ImplicitAdjoint(), jinv.NeumannAdjoint(terms=2)):
        assert np.all(jax.grad(start(adjoint))(y0) == 0)
    unrolled = jax.grad(start(jinv.UnrollAdjoint()))(y0)
    assert np.any(unrolled != 0)


def test_closure_and_args_agree():
    case = SMOOTH_CASES["Minimise-Newton"]
    fn = case.build(SMOOTH).fn

    def closed(theta):
        problem = jinv.Minimise(lambda y, _: fn(y, theta))
        return jnp.sum(jinv.solve(problem, case.solver, jnp.zeros(3)).value)

    passed = lambda theta: jnp.sum(case.solve(theta).value)
    for transform in (jax.grad, jax.jacfwd):
        got, expected = transform(closed)(SMOOTH), transform(passed)(SMOOTH)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, expected)


def test_statistics_carry_derivatives_only_where_iterates_do():
    case = CASES["lasso-FISTA"]

    def objective(theta, adjoint):
        return case.solve(theta, adjoint).stats["objective"]

    none = jax.grad(objective)(case.theta, None)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(none))
    value = lambda t: case.build(t).objective(case.solve(t).value, None)
    unrolled = jax.grad(objective)(case.theta, jinv.UnrollAdjoint(checkpoints=10))
    expected = jax.grad(value)(case.theta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-9), unrolled, expected)
