"""Proximal matching with pooled samples: the conditional expectation of the plain loss."""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jinv import nn, train


pytestmark = pytest.mark.usefixtures("quick_compilation")

CASES = list(itertools.product(("l1", "l2"), (jnp.inf, 0.7)))
SIGMA = 0.8


def _identity(model, y):
    return y


def _shrink(model, y):
    return 0.7 * y


def _of_one(pretrain, gamma, noise=None):
    return train.ProximalMatching(pretrain, _shrink, noise=noise), jnp.asarray(gamma)


def _pair(pretrain, gamma, f, x):
    """The loss of one pair, from its definition."""
    gap = np.ravel(f - x)
    if np.isfinite(gamma):
        return 1 - np.exp(-np.sum(gap**2) / gamma**2)
    return np.mean(np.abs(gap)) if pretrain == "l1" else np.mean(gap**2)


@pytest.mark.parametrize(("pretrain", "gamma"), CASES)
@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_pooled_loss_is_the_weighted_sum_over_all_pairs(pretrain, gamma, shape, getkey):
    clean = jax.random.laplace(getkey(), (7, *shape))
    noisy = clean[:4] + SIGMA * jax.random.normal(getkey(), (4, *shape))
    loss, width = _of_one(pretrain, gamma, SIGMA)
    found, metrics = jax.jit(loss)(None, (clean, noisy, width), None)
    expected, square, samples = 0.0, 0.0, np.asarray(clean)
    for y in np.asarray(noisy):
        weight = np.array([np.exp(-np.sum((y - x) ** 2) / (2 * SIGMA**2)) for x in samples])
        for w, x in zip(weight / weight.sum() / len(noisy), samples, strict=True):
            expected += w * _pair(pretrain, gamma, 0.7 * y, x)
            square += w * np.mean((0.7 * y - x) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(metrics["error"], np.sqrt(square), rtol=1e-10)
    assert 0 <= float(metrics["saturated"]) <= 1


@pytest.mark.parametrize(("pretrain", "gamma"), CASES)
def test_expectation_is_that_of_the_plain_loss(pretrain, gamma):
    """All noises of a fine grid for every clean sample, with their probabilities."""
    clean = jnp.array([-1.3, 0.1, 0.4, 2.0])[:, None]
    noise = jnp.linspace(-9, 9, 1801) * SIGMA
    density = jnp.exp(-(noise**2) / (2 * SIGMA**2))
    density = density / jnp.sum(density)

    def mean(noise_or_none):
        loss, width = _of_one(pretrain, gamma, noise_or_none)

        def at(n, x):
            own = clean if noise_or_none else x[None]
            return loss(None, (own, (x + n)[None], width), None)[0]

        values = jax.vmap(lambda x: jax.vmap(functools.partial(at, x=x))(noise))(clean)
        return jnp.sum(values * density[None]) / len(clean)

    # The kink of the modulus is where a grid errs.
    rtol = 1e-5 if pretrain == "l1" and not np.isfinite(gamma) else 1e-10
    np.testing.assert_allclose(mean(SIGMA), mean(None), rtol=rtol)


@pytest.mark.parametrize("shape", [(1,), (16,)])
def test_variance_is_smaller_where_samples_overlap(shape, getkey):
    """A thousand batches: the same mean within its error; in one dimension far less variance."""

    def values(noise):
        loss, width = _of_one("l1", 0.3 * shape[0] ** 0.5, noise)

        def one(key):
            of_clean, of_noise = jax.random.split(key)
            clean = jax.random.laplace(of_clean, (32, *shape))
            noisy = clean + SIGMA * jax.random.normal(of_noise, clean.shape)
            return loss(None, (clean, noisy, width), None)[0]

        return jax.jit(jax.vmap(one))(jax.random.split(getkey(), 1000))

    pooled, plain = values(SIGMA), values(None)
    error = jnp.sqrt((jnp.var(pooled) + jnp.var(plain)) / 1000)
    assert abs(float(jnp.mean(pooled) - jnp.mean(plain))) < 4 * float(error)
    share = float(jnp.var(pooled) / jnp.var(plain))
    assert share < 0.5 if shape == (1,) else share < 1.1


@pytest.mark.parametrize(("pretrain", "gamma"), CASES)
def test_one_sample_and_far_samples_give_the_plain_loss(pretrain, gamma, getkey):
    loss, width = _of_one(pretrain, gamma, SIGMA)
    plain, _ = _of_one(pretrain, gamma)
    near = jax.random.normal(getkey(), (1, 3))
    far = 1e3 * jnp.arange(5.0)[:, None] + near
    for clean in (near, far):
        batch = clean, clean + 0.3, width
        (found, metrics), (expected, own) = loss(None, batch, None), plain(None, batch, None)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        for name in own:
            np.testing.assert_allclose(metrics[name], own[name], rtol=1e-8)


@pytest.mark.parametrize(("pretrain", "gamma"), CASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("chunk", [None, 1])
def test_derivative_is_finite_and_that_of_the_sum(pretrain, gamma, dtype, chunk, getkey):
    make = lambda key: nn.dense_icnn(2, (6,), key=key)
    cast = lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a
    model = jax.tree.map(cast, make(getkey()))
    clean = jax.random.laplace(getkey(), (9, 2), dtype)
    # One that is far from all others, whose weights underflow.
    noisy = jnp.concatenate([clean[:3] + 0.5, jnp.full((1, 2), 60.0, dtype)])
    batch = clean, noisy, jnp.asarray(gamma, dtype)
    loss = train.ProximalMatching(pretrain, chunk=chunk, noise=SIGMA)
    value, slope = eqx.filter_value_and_grad(lambda m: loss(m, batch, None)[0])(model)
    assert value.dtype == dtype

    def direct(model):
        f = jax.vmap(model.gradient)(noisy)
        weight = -jnp.sum((noisy[:, None] - clean[None]) ** 2, 2) / (2 * SIGMA**2)
        gap = f[:, None] - clean[None]
        if jnp.isfinite(gamma):
            pairs = 1 - jnp.exp(-jnp.sum(gap**2, 2) / gamma**2)
        else:
            pairs = jnp.mean(jnp.abs(gap) if pretrain == "l1" else gap**2, 2)
        return jnp.mean(jnp.sum(jax.nn.softmax(weight, 1) * pairs, 1))

    expected = eqx.filter_grad(direct)(model)
    rtol, atol = (1e-3, 1e-5) if dtype == jnp.float32 else (1e-9, 1e-12)
    for found, other in zip(jax.tree.leaves(slope), jax.tree.leaves(expected), strict=True):
        assert bool(jnp.all(jnp.isfinite(found)))
        np.testing.assert_allclose(found, other, rtol=rtol, atol=atol)


def test_noisy_samples_are_fewer_or_antithetic(getkey):
    samples = lambda key, step: jax.random.normal(key, (6, 2))
    clean, noisy, _ = train.NoisyBatches(samples, 0.1, num_noisy=2)(getkey(), 0)
    assert clean.shape == (6, 2) and noisy.shape == (2, 2)
    assert float(jnp.max(jnp.abs(noisy - clean[:2]))) < 0.8
    clean, noisy, _ = train.NoisyBatches(samples, 0.1, antithetic=True)(getkey(), 0)
    assert clean.shape == noisy.shape == (12, 2)
    np.testing.assert_allclose(noisy[:6] + noisy[6:], 2 * clean[:6], atol=1e-12)
    np.testing.assert_allclose(clean[6:], clean[:6])
    both = train.NoisyBatches(samples, 0.1, num_noisy=2, antithetic=True)(getkey(), 0)
    assert both[1].shape == (4, 2) and bool(jnp.isfinite(_pooled_value(both)))


def _pooled_value(batch):
    return train.ProximalMatching(apply=_identity, noise=0.1)(None, batch, None)[0]


def _any(**arguments: Any) -> dict[str, Any]:
    """Hides from the type checker what it would rightly refuse."""
    return arguments


def test_misuse_is_named():
    with pytest.raises(ValueError, match="`noise` must be positive, got 0"):
        train.ProximalMatching(noise=0.0)
    with pytest.raises(ValueError, match="`num_noisy` must be at least 1, got 0"):
        train.NoisyBatches(**_any(samples=lambda key, step: key, noise=0.1, num_noisy=0))
    batch = jnp.zeros((3, 1)), jnp.zeros((1, 1)), jnp.asarray(1.0)
    with pytest.raises(ValueError, match="`noise` must be given for 3 clean samples and 1 noisy"):
        train.ProximalMatching(apply=_identity)(None, batch, None)
