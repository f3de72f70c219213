"""The learned factorisation: IC(0) without corrections, definite whatever the weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jinv.linear import (
    PCG,
    FactorNetwork,
    NeuralFactor,
    convergence_loss,
    factor_loss,
    heterogeneous_diffusion,
    poisson,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")


def _system(rng, shape=(9, 8)):
    return heterogeneous_diffusion(jnp.asarray(np.exp(rng.normal(size=shape))))


def _dense(operator):
    n = operator.in_structure().size
    return np.asarray(operator.as_matrix()).reshape(n, n)


def _random_network(size=1.0):
    """What no training would give: corrections of the order of one everywhere."""
    network = FactorNetwork(6, 2, key=jax.random.key(0))
    values, structure = jax.tree.flatten(eqx.filter(network, eqx.is_array))
    keys = jax.random.split(jax.random.key(1), len(values))
    noise = [size * jax.random.normal(k, x.shape) for k, x in zip(keys, values, strict=True)]
    values = [(x + e).astype(x.dtype) for x, e in zip(values, noise, strict=True)]
    return eqx.combine(jax.tree.unflatten(structure, values), network)


def test_without_corrections_it_is_incomplete_cholesky(rng):
    operator = _system(rng)
    matrix = _dense(operator)
    n = len(matrix)
    # IC(0), column by column.
    factor = np.tril(matrix)
    for k in range(n):
        factor[k, k] = np.sqrt(factor[k, k])
        factor[k + 1 :, k] /= factor[k, k]
        for j in range(k + 1, n):
            keep = matrix[j:, j] != 0
            factor[j:, j] -= np.where(keep, factor[j:, k] * factor[j, k], 0)
    ours = NeuralFactor(operator).factor(operator)
    basis = jnp.eye(n).reshape(n, *operator.shape)
    product = np.asarray(jax.vmap(ours.product)(basis)).reshape(n, n)
    np.testing.assert_allclose(product, factor @ factor.T, rtol=0, atol=1e-6 * matrix.max())


@pytest.mark.parametrize("sweeps", [0, 3])
def test_definite_whatever_the_weights(sweeps, rng):
    operator = _system(rng)
    rule = NeuralFactor(operator, _random_network(), sweeps=sweeps)
    inverse = _dense(rule.init(operator))
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-12 * abs(inverse).max())
    assert np.linalg.eigvalsh(inverse)[0] > 0


def test_enough_sweeps_are_the_inverse(rng):
    operator = _system(rng, (5, 4))
    rule = NeuralFactor(operator, _random_network(0.3), sweeps=8)
    factor = rule.factor(operator)
    x = jnp.asarray(rng.normal(size=(5, 4)))
    np.testing.assert_allclose(factor.mv(factor.product(x)), x, rtol=1e-10)


def test_fewer_steps_with_new_values(rng):
    operator, other = _system(rng), _system(rng)
    b = jnp.asarray(rng.normal(size=operator.shape))
    rule = NeuralFactor(operator)
    steps = lambda p: int(lx.linear_solve(other, b, PCG(1e-8, 0.0, p)).stats["num_steps"])
    assert steps(rule) < 0.5 * steps(None)
    exact = np.linalg.solve(_dense(other), np.asarray(b).ravel())
    value = lx.linear_solve(other, b, PCG(1e-12, 0.0, rule)).value
    np.testing.assert_allclose(value.ravel(), exact, rtol=1e-8)


def test_losses_have_their_derivatives_and_fall(rng):
    operator = _system(rng, (6, 5))
    x = jnp.asarray(rng.normal(size=(6, 5)))
    skeleton = NeuralFactor(operator)
    network = _random_network(0.1)
    put = lambda net: eqx.tree_at(
        lambda f: f.network, skeleton, net, is_leaf=lambda leaf: leaf is None
    )
    losses = (
        lambda net: factor_loss(put(net), operator, x),
        lambda net: convergence_loss(put(net), operator, x, steps=3),
    )
    for loss in losses:
        value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))(network)
        arrays = eqx.filter(gradient, eqx.is_array)
        size = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(arrays))
        moved = lambda t, g=gradient: eqx.apply_updates(network, jax.tree.map(lambda x: t * x, g))
        h = 1e-3 / size**0.5
        difference = (loss(moved(h)) - loss(moved(-h))) / (2 * h)
        np.testing.assert_allclose(difference, size, rtol=2e-2)
        assert loss(moved(-10 * h)) < value


def test_bad_input_is_named(rng):
    operator = poisson((4, 5))
    lopsided = np.triu(np.ones((4, 4)))
    cases = [
        (lambda: NeuralFactor(operator, sweeps=-1), "sweeps"),
        (lambda: NeuralFactor(lopsided), "symmetric pattern"),
        (lambda: NeuralFactor(operator).init(poisson((4, 4))), "20 unknowns"),
        (lambda: FactorNetwork(0, key=jax.random.key(0)), "width"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError, match=words):
            make()
