"""Norms and losses of neural operators, and models with the scales of their data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jinv import nn, train


pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_relative_l2(rng):
    found, truth = rng.normal(size=(2, 5, 7))
    expected = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    np.testing.assert_allclose(train.relative_l2(jnp.asarray(found), jnp.asarray(truth)), expected)


def test_relative_h1_tends_to_the_norm_of_the_functions():
    # Of sin(pi x) sin(2 pi y): the integrals of its square and of its gradient's are known.
    errors = []
    for n in (33, 65):
        x, y = jnp.meshgrid(jnp.linspace(0, 1, n), jnp.linspace(0, 1, n), indexing="ij")
        truth = jnp.sin(jnp.pi * x) * jnp.sin(2 * jnp.pi * y)
        found = truth + x
        # |x|^2 = 1/3, |grad x|^2 = 1; 1/4 and pi^2 (1 + 4) / 4.
        expected = np.sqrt((1 / 3 + 1) / (1 / 4 + 5 * np.pi**2 / 4))
        errors.append(abs(float(train.relative_h1(found, truth)) - expected))
    assert errors[0] < 2e-3 and 3.5 < errors[0] / errors[1] < 4.5
    # A square of another size, and other units of the grid.
    wide = train.relative_h1(found, truth, 10 / (n - 1))
    lower = np.sqrt((100 / 3 + 1) / (100 / 4 + 5 * np.pi**2 / 4))
    np.testing.assert_allclose(wide, lower, rtol=1e-3)


def test_spectral_h1_is_the_published_one(rng):
    found, truth = rng.normal(size=(2, 48, 48))
    k = np.concatenate([np.arange(24), np.arange(-24, 0)])
    kx, ky = np.abs(k)[:, None] * np.ones(48), np.abs(k) * np.ones((48, 1))
    kx, ky = kx * (kx < 20), ky * (ky < 20)
    weight = np.sqrt(1 + kx**2 + ky**2)
    size = lambda v: np.linalg.norm(weight * np.fft.fftn(v, norm="ortho"))
    expected = size(found - truth) / size(truth)
    arrays = jnp.asarray(found), jnp.asarray(truth)
    np.testing.assert_allclose(train.spectral_h1(*arrays), expected, rtol=1e-12)
    assert abs(float(train.spectral_h1(*arrays, None)) - expected) > 1e-3


@pytest.mark.parametrize("norm", [train.relative_l2, train.relative_h1, train.spectral_h1])
def test_exact_results_have_a_derivative(norm):
    truth = jnp.linspace(0, 1, 8) ** 2
    assert float(norm(truth, truth)) == 0
    assert not jnp.any(jnp.isnan(jax.grad(norm)(truth, truth)))


def test_loss_is_the_mean_over_the_samples(rng):
    u, y = jnp.asarray(rng.normal(size=(4, 6))), jnp.asarray(rng.normal(size=(4, 6)))
    matching = train.OperatorMatching(metrics={"h1": train.relative_h1})
    loss, metrics = matching(jnp.sin, (u, y), None)
    each = [train.relative_l2(jnp.sin(a), b) for a, b in zip(u, y, strict=True)]
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-12)
    assert set(metrics) == {"h1"}
    points = jnp.asarray(rng.normal(size=(9, 2)))
    model = nn.deeponet([6, 5, 5], [2, 5, 5], key=jax.random.key(0))
    at_points = train.OperatorMatching(apply=lambda model, u: model(u, points))
    expected = train.relative_l2(model(u[0], points), jnp.ones(9))
    loss = at_points(model, (u[:1], jnp.ones((1, 9))), None)[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("pointwise", [True, False])
def test_scales_travel_with_the_model_and_are_not_trained(pointwise, rng):
    u = jnp.asarray(3 + 2 * rng.normal(size=(50, 8)))
    y = (5 * u + 1).at[:, 0].set(7.0)
    linear = eqx.nn.Linear(8, 8, key=jax.random.key(0), dtype=float)
    model = train.Normalised(linear, u, y, pointwise=pointwise)
    axis = 0 if pointwise else None
    scales = lambda x: (np.mean(np.asarray(x), axis), np.std(np.asarray(x), axis))
    (mean_in, deviation_in), (mean_out, deviation_out) = scales(u), scales(y)
    inner = jax.vmap(linear)(jnp.asarray((np.asarray(u) - mean_in) / deviation_in))
    expected = mean_out + np.where(deviation_out > 0, deviation_out, 1) * np.asarray(inner)
    np.testing.assert_allclose(jax.vmap(model)(u), expected)
    fitted = train.fit(
        train.OperatorMatching(),
        model,
        train.Minibatches((u, y), 10),
        optimiser=optax.adam(1e-2),
        num_steps=300,
        key=jax.random.key(1),
        progress=False,
    )
    trained = fitted.model
    assert isinstance(trained, train.Normalised)
    for name in ("mean_in", "deviation_in", "mean_out", "deviation_out"):
        np.testing.assert_array_equal(getattr(trained, name), getattr(model, name))
    assert fitted.history[-1]["loss"] < 0.2 * fitted.history[0]["loss"]


def test_epochs_meet_every_sample_once_and_in_new_orders():
    batches = train.Epochs({"index": jnp.arange(11)}, 3, jax.random.key(0))
    assert batches.steps == 3
    draw = jax.jit(lambda step: batches(None, step)["index"])
    orders = [np.concatenate([draw(3 * epoch + i) for i in range(3)]) for epoch in range(8)]
    assert all(len(set(order)) == 9 for order in orders)
    assert len({tuple(order) for order in orders}) == 8
    # Those that are dropped are others each time.
    assert set(np.concatenate(orders)) == set(range(11))
    np.testing.assert_array_equal(draw(5), orders[1][6:])


def test_misuse_is_named():
    with pytest.raises(ValueError, match="`batch_size` must be at most 4"):
        train.Epochs(jnp.ones(4), 5, jax.random.key(0))
    same = jnp.ones((3, 4))
    with pytest.raises(ValueError, match="`outputs` must vary"):
        train.Normalised(jnp.sin, jnp.arange(12.0).reshape(3, 4), same)
    with pytest.raises(ValueError, match="`inputs` must be finite"):
        train.Normalised(jnp.sin, same * jnp.nan, same)
    with pytest.raises(ValueError, match="`spacing` must be one number per axis"):
        train.relative_h1(same, same, (0.1,))
