"""Derivatives of whole reconstructed images: systems far above the dense limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv
from jinv import operators, prox, splitting
from jinv.data_terms import least_squares


def _scene(size):
    truth = jnp.asarray(jinv.data.photograph("camera", shape=size), jnp.float64)
    kernel = operators.gaussian_kernel(1.0, 5, dtype=jnp.float64)
    blurred = operators.Convolution(kernel, truth.shape).mv(truth)
    data = blurred + 0.02 * jax.random.normal(jax.random.key(0), truth.shape, jnp.float64)
    return {"weight": jnp.asarray(0.02), "data": data, "kernel": kernel}, truth


def _restore(theta, solver, adjoint=None, blur=True):
    shape = theta["data"].shape
    forward = operators.Convolution(theta["kernel"], shape) if blur else None
    misfit = least_squares(forward, theta["data"])
    first, second = (None, misfit) if isinstance(solver, splitting.PDHG) else (misfit, None)
    differences = operators.FiniteDifference(shape, dtype=jnp.float64)
    penalty = prox.GroupL2(theta["weight"], axis=0)
    problem = jinv.Composite(first, second, penalty=penalty, operator=differences)
    return jinv.solve(problem, solver, theta["data"], adjoint=adjoint, max_steps=500_000)


def _check(size, solver, blur, rtol):
    theta, truth = _scene(size)
    loss = lambda theta: jnp.mean((_restore(theta, solver, blur=blur).value - truth) ** 2)
    grad = eqx.filter_jit(jax.grad(loss))(theta)
    value = eqx.filter_jit(loss)
    for name in theta if blur else ("weight", "data"):
        direction = jax.random.normal(jax.random.key(1), theta[name].shape, jnp.float64)
        shifted = lambda h, name=name, d=direction: {**theta, name: theta[name] + h * d}
        # The solution is smooth piecewise only: near 0.02 a large image has kinks every 1e-6.
        h = 1e-7 if name == "weight" else 1e-6
        slope = (value(shifted(h)) - value(shifted(-h))) / (2 * h)
        np.testing.assert_allclose(jnp.sum(grad[name] * direction), slope, rtol=rtol)


TIGHT = {
    "PDHG": splitting.PDHG(rtol=1e-11, atol=0.0),
    "ADMM": splitting.ADMM(rtol=1e-11, atol=0.0),
}


@pytest.mark.parametrize("name", TIGHT)
def test_derivatives_of_a_deblurred_image(name):
    _check(16, TIGHT[name], True, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIGHT)
def test_derivatives_of_a_denoised_photograph(name):
    _check(64, TIGHT[name], False, 1e-5)


@pytest.mark.parametrize("name", TIGHT)
def test_a_flat_image_has_finite_derivatives(name):
    theta, _ = _scene(16)
    flat = {**theta, "data": jnp.full_like(theta["data"], 0.5)}
    # Nothing to compare residuals with, where the solution has no differences at all.
    solver = eqx.tree_at(lambda s: (s.rtol, s.atol), TIGHT[name], (1e-6, 1e-8))
    loss = lambda theta: jnp.sum(_restore(theta, solver).value ** 2)
    grad = eqx.filter_jit(jax.grad(loss))(flat)
    # A flat image stays as it is: only the mean of the data passes through.
    np.testing.assert_allclose(grad["data"], np.ones((16, 16)), rtol=1e-3)
    np.testing.assert_allclose(grad["weight"], 0, atol=1e-3)
    assert np.all(np.isfinite(grad["kernel"]))


def test_many_weights_at_once():
    theta, truth = _scene(16)
    solver = splitting.PDHG(rtol=1e-6, atol=0.0)

    def error(weight):
        return jnp.mean((_restore({**theta, "weight": weight}, solver).value - truth) ** 2)

    weights = jnp.geomspace(1e-3, 1e-1, 4)
    one = eqx.filter_jit(jax.value_and_grad(error))
    expected = [one(w) for w in weights]
    values, slopes = eqx.filter_jit(jax.vmap(jax.value_and_grad(error)))(weights)
    np.testing.assert_allclose(values, [v for v, _ in expected], rtol=1e-9)
    np.testing.assert_allclose(slopes, [s for _, s in expected], rtol=1e-5)
