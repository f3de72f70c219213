"""DeepONet and MultiONet: published sizes, the formula, unequal depths, several outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jinv import nn


pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = [
    ([128, *[100] * 6], [2, *[100] * 6], {}, 114_206),
    ([128, *[100] * 5], [2, *[100] * 5], {}, 94_005),
    ([128, *[128] * 5], [2, *[128] * 5], {}, 148_997),
    ([128, *[128] * 5], [1, *[128] * 5], {}, 148_869),
    (
        [1, *[100] * 6],
        [2, *[100] * 6],
        {"weighting": "none", "in_size": 128, "out_channels": 3},
        101_887,
    ),
]


@pytest.mark.parametrize("branch, trunk, options, count", SIZES)
def test_published_numbers_of_weights(branch, trunk, options, count, getkey):
    assert nn.MultiONet(branch, trunk, **options, key=getkey()).num_weights == count


@pytest.mark.parametrize(
    "widths, count",
    [
        ((841, 512, 256, 128), 595_328),
        ((128, 256, 128, 64, 128), 82_496),
        ((256, 256, 128, 128), 115_200),
    ],
)
def test_published_encoders(widths, count, getkey):
    assert nn.MLP(widths, key=getkey()).num_weights == count


@pytest.mark.parametrize("weighting", ["global", "per_layer", "none"])
@pytest.mark.parametrize("depths", [(4, 4), (3, 5), (5, 3)])
def test_formula(weighting, depths, getkey):
    branch, trunk = [6, *[7] * depths[0]], [2, *[7] * depths[1]]
    model = nn.MultiONet(branch, trunk, weighting=weighting, sum_layers=2, key=getkey())
    if weighting != "none":
        moved = lambda x: x + jax.random.normal(getkey(), x.shape)
        model = jax.tree.map(moved, model)
    u, x = jax.random.normal(getkey(), (6,)), jax.random.normal(getkey(), (2,))

    def layers(mlp, h):
        for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
            h = h @ weight + bias
            h = h - jnp.tanh(jnp.sin(jnp.pi * h))
            yield h

    b, t = list(layers(model.branch, u))[-2:], list(layers(model.trunk, x))[-2:]
    w = jnp.ones(2) if model.weights is None else model.weights
    c = jnp.zeros(2) if model.biases is None else model.biases
    expected = sum(w[k] * jnp.dot(b[k], t[k]) for k in range(2)) / 2 + jnp.mean(c)
    np.testing.assert_allclose(model(u, x), expected, rtol=1e-10)


def test_several_outputs(getkey):
    options: dict[str, Any] = {"weighting": "none", "in_size": 4, "out_channels": 3}
    model = nn.MultiONet([1, 5, 5], [2, 5, 5], **options, key=getkey())
    u, x = jax.random.normal(getkey(), (4,)), jax.random.normal(getkey(), (6, 2))
    found = model(u, x)
    b = model.branch.all_layers(u[:, None])[-1]
    assert model.mix is not None
    expected = (model.trunk(x) @ b.T) @ model.mix.weights[0] + model.mix.biases[0][None]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_deeponet_is_the_last_pair(getkey):
    model = nn.deeponet([6, 8, 7], [1, 9, 8, 7], key=getkey())
    u, x = jax.random.normal(getkey(), (2, 3)), jax.random.normal(getkey(), (5, 1))
    expected = model.trunk(x) @ model.branch(u.reshape(-1))
    np.testing.assert_allclose(model(u, x), expected, rtol=1e-12)


def test_starts_at_zero_and_what_learns_then(getkey):
    model = nn.MultiONet([6, 7, 7], [2, 7, 7], key=getkey())
    u, x = jax.random.normal(getkey(), (6,)), jax.random.normal(getkey(), (4, 2))
    assert not jnp.any(model(u, x))
    slope = jax.grad(lambda m: jnp.sum((m(u, x) - 1) ** 2))(model)
    assert jnp.any(slope.weights != 0) and not jnp.any(slope.trunk.weights[0])
    other = nn.MultiONet([6, 7, 7], [2, 7, 7], initial=0.01, key=getkey())
    slope = jax.grad(lambda m: jnp.sum((m(u, x) - 1) ** 2))(other)
    assert jnp.any(slope.trunk.weights[0] != 0)


def test_compiled_batched_and_differentiated(getkey):
    model = nn.MultiONet([6, 7, 7], [2, 7, 7], weighting="per_layer", key=getkey())
    u, x = jax.random.normal(getkey(), (3, 6)), jax.random.normal(getkey(), (4, 5, 2))
    found = jax.jit(jax.vmap(model, (0, None)))(u, x)
    assert found.shape == (3, 4, 5)
    np.testing.assert_allclose(found[2], model(u[2], x), rtol=1e-12)
    on_arrays = lambda *args: model(*map(jnp.asarray, args))
    jax.test_util.check_grads(on_arrays, (u[0], x), 2, rtol=1e-5)
    assert model(u[0].astype(jnp.float32), x.astype(jnp.float32)).dtype == jnp.float32


_make: Any = nn.MultiONet
WRONG: dict[str, Any] = {
    "widths": (lambda k: nn.MLP((3,), key=k), "`widths` must be two or more"),
    "agree": (lambda k: _make([3, 4, 4], [2, 4, 5], key=k), "widths of `branch` and `trunk`"),
    "layers": (lambda k: _make([3, 4, 4], [2, 4, 4], sum_layers=2, key=k), "`sum_layers` must be"),
    "outputs": (lambda k: _make([3, 4], [2, 4], out_channels=2, key=k), "`out_channels` other"),
    "initial": (
        lambda k: _make([3, 4], [2, 4], weighting="none", initial=0.1, key=k),
        "`initial` must be None",
    ),
    "points": (
        lambda k: _make([3, 4], [2, 4], key=k)(jnp.ones(3), jnp.ones((5, 1))),
        "must have 2 entries along its last axis",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name, getkey):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make(getkey())
