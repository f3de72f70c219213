"""Training at the fixed points of a solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jinv import nn, train


pytestmark = pytest.mark.usefixtures("quick_compilation")


def _step(model, x, problem):
    return model.gradient(x - 0.7 * (x - problem))


def _setting(key):
    keys = jax.random.split(key, 3)
    model = nn.dense_icnn(3, (6,), quadratic=True, key=keys[0])
    clean, data = jax.random.normal(keys[1], (4, 3)), jax.random.normal(keys[2], (4, 3))
    return model, clean, data


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("num_steps", [0, 7])
def test_derivative_is_that_of_the_last_steps(chunk, num_steps, getkey):
    model, clean, data = _setting(getkey())
    matching = train.FixedPointMatching(_step, last=2, momentum=0.5, floor=0.01, chunk=chunk)

    def loss(model):
        return matching(model, (clean, jnp.zeros((4, 3)), data, jnp.asarray(num_steps)), None)

    def by_hand(moving):
        total = 0.0
        for target, problem in zip(clean, data, strict=True):
            x = before = jnp.zeros(3)
            for _ in range(num_steps):
                new = _step(model, x, problem)
                x, before = new + 0.5 * (new - before), new
            x = before
            for _ in range(2):
                x = _step(moving, x, problem)
            total = total + 0.5 * jnp.log(jnp.mean((x - target) ** 2) + 0.01) / 4
        return total

    (value, metrics), slope = eqx.filter_value_and_grad(loss, has_aux=True)(model)
    expected, gradient = eqx.filter_value_and_grad(by_hand)(model)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    for found, other in zip(jax.tree.leaves(slope), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-8, atol=1e-12)
    assert set(metrics) == {"error", "move"}


def test_at_a_fixed_point_nothing_moves_whatever_the_momentum(getkey):
    model, clean, data = _setting(getkey())
    found = []
    for momentum in (0.0, 0.8):
        matching = train.FixedPointMatching(_step, momentum=momentum)
        loss, metrics = matching(model, (clean, clean, data, 400), None)
        assert float(metrics["move"]) < 1e-10
        found.append(loss)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"last": 0}, "last"), ({"momentum": 1.0}, "momentum"), ({"floor": -1.0}, "floor")]
    + [({"chunk": 0}, "chunk")],
)
def test_misuse_is_named(options, name):
    with pytest.raises(ValueError, match=name):
        train.FixedPointMatching(_step, **options)
