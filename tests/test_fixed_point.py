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


def _slopes(matching, model, batch):
    loss = lambda model: matching(model, batch, None)[0]
    return jax.tree.leaves(eqx.filter_grad(loss)(model))


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("terms", [1, 3])
def test_derivative_is_the_series(terms, chunk, getkey):
    model, clean, data = _setting(getkey())
    matching = train.FixedPointMatching(_step, terms=terms, momentum=0.0, floor=0.01, chunk=chunk)
    batch = (clean, jnp.zeros((4, 3)), data, jnp.asarray(7))

    points, loss = [], 0.0
    for target, problem in zip(clean, data, strict=True):
        x = jnp.zeros(3)
        for _ in range(7):
            x = _step(model, x, problem)
        points.append(x)
        loss = loss + 0.5 * jnp.log(jnp.mean((x - target) ** 2) + 0.01) / 4

    def by_hand(moving):
        total = 0.0
        for x, target, problem in zip(points, clean, data, strict=True):
            jacobian = jax.jacobian(_step, 1)(model, x, problem)
            series = sum(np.linalg.matrix_power(jacobian.T, k) for k in range(terms))
            slope = (x - target) / 3 / (jnp.mean((x - target) ** 2) + 0.01)
            total = total + jnp.sum((series @ slope) * _step(moving, x, problem)) / 4
        return total

    np.testing.assert_allclose(matching(model, batch, None)[0], loss, rtol=1e-10)
    expected = jax.tree.leaves(eqx.filter_grad(by_hand)(model))
    for found, other in zip(_slopes(matching, model, batch), expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-8, atol=1e-12)


def test_many_terms_give_the_derivative_of_the_fixed_point(getkey):
    model, clean, data = _setting(getkey())
    batch = (clean, jnp.zeros((4, 3)), data, 400)
    matching = train.FixedPointMatching(_step, terms=100, chunk=None)
    slopes, size = _slopes(matching, model, batch), 1e-6
    leaves, structure = jax.tree.flatten(model)
    directions = [jax.random.normal(getkey(), leaf.shape) for leaf in leaves]
    # The frame is not trained.
    directions[0] = jnp.zeros_like(directions[0])

    def loss(size):
        moved = [leaf + size * d for leaf, d in zip(leaves, directions, strict=True)]
        return matching(jax.tree.unflatten(structure, moved), batch, None)[0]

    expected = (loss(size) - loss(-size)) / (2 * size)
    found = sum(jnp.sum(s * d) for s, d in zip(slopes, directions, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


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
    [({"terms": 0}, "terms"), ({"momentum": 1.0}, "momentum"), ({"floor": -1.0}, "floor")]
    + [({"chunk": 0}, "chunk")],
)
def test_misuse_is_named(options, name):
    with pytest.raises(ValueError, match=name):
        train.FixedPointMatching(_step, **options)
