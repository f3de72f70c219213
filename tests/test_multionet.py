"""DeepONet and MultiONet: published sizes, the formula, unequal depths, several outputs, branches
of convolutions."""

from typing import Any

import equinox as eqx
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


@pytest.mark.parametrize(
    "channels, widths, kernel, count",
    [((1, 64, 64, 64), (128, 128, 128), 3, 140_416), ((1, 64, 128), (128,), 5, 616_320)],
)
def test_published_convolutional_encoders(channels, widths, kernel, count):
    make = lambda key: nn.ConvEncoder((29, 29), channels, widths, kernel=kernel, key=key)
    encoder = eqx.filter_eval_shape(make, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(encoder)) == count
    assert jax.eval_shape(lambda e, u: e(u), encoder, jnp.ones((29, 29))).shape == (128,)


def test_published_network_for_two_phases():
    def make(key):
        encoder = nn.ConvEncoder((29, 29), (1, 64, 128), (128,), kernel=5, key=key)
        widths, relu = [128] * 4, {"branch_activation": "relu", "trunk_activation": "relu"}
        options: dict[str, Any] = {"encoder": encoder, "weighting": "per_layer", **relu}
        return nn.MultiONet([128, *widths], [2, *widths], **options, key=key)

    model = eqx.filter_eval_shape(make, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(model)) == 732_294
    assert model.sum_layers == 3
    arguments = jnp.ones((29, 29)), jnp.zeros((7, 2))
    assert jax.eval_shape(lambda m, *args: m(*args), model, *arguments).shape == (7,)


GRIDS = {
    "1-D": ((17,), 5, 3),
    "2-D": ((9, 12), 3, 2),
    "even": ((12, 10), 4, 2),
    "3-D": ((7, 8, 9), 3, 2),
}


@pytest.mark.parametrize("name", GRIDS)
def test_encoder_is_its_definition(name, rng):
    grid, kernel, stride = GRIDS[name]
    options: dict[str, Any] = {"kernel": kernel, "stride": stride, "activation": "tanh"}
    make = lambda key: nn.ConvEncoder(grid, (2, 3, 4), (6, 5), **options, key=key)
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    encoder = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape)), shapes)
    u = rng.normal(size=(*grid, 2))
    x, axes = u, tuple(range(len(grid)))
    for convolution in encoder.convolutions:
        windows = np.lib.stride_tricks.sliding_window_view(x, (kernel,) * len(grid), axes)
        windows = windows[(slice(None, None, stride),) * len(grid)]
        weight, count = np.asarray(convolution.weight), len(grid)
        # Windows have their channels before the places within.
        weight = np.moveaxis(weight, -2, 0)
        x = np.tanh(np.tensordot(windows, weight, count + 1) + np.asarray(convolution.bias))
    (first, second), (shift, last) = encoder.dense.weights, encoder.dense.biases
    hidden = np.tanh(x.reshape(-1) @ np.asarray(first) + np.asarray(shift))
    features = eqx.filter_jit(encoder.all_layers)(jnp.asarray(u))
    np.testing.assert_allclose(features[0], hidden, rtol=0, atol=1e-12)
    expected = hidden @ np.asarray(second) + np.asarray(last)
    np.testing.assert_allclose(features[1], expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(eqx.filter_jit(encoder)(jnp.asarray(u)), features[1])


def _with_branch(kind, key):
    keys = jax.random.split(key)
    options: dict[str, Any] = {"weighting": "per_layer", "key": keys[0]}
    if kind == "encoder":
        encoder = nn.ConvEncoder((7, 6), (1, 3), (4,), activation="tanh", key=keys[1])
        return nn.MultiONet([4, 5, 5], [2, 5, 5], encoder=encoder, **options)
    branch = nn.ConvEncoder((7, 6), (1, 3), (4, 5, 6), activation="tanh", last=True, key=keys[1])
    return nn.MultiONet(branch, [2, 9, 5, 6], **options)


@pytest.mark.parametrize("kind", ["encoder", "branch"])
def test_values_on_a_grid_as_input(kind, getkey):
    model, call = _with_branch(kind, getkey()), eqx.filter_jit(lambda m, u, x: m(u, x))
    u, x = jax.random.normal(getkey(), (3, 7, 6)), jax.random.normal(getkey(), (4, 2))

    @eqx.filter_jit
    def sum_of_pairs(model, u, x):
        features = u if model.encoder is None else model.encoder(u)
        branch, trunk = model.branch.all_layers(features), model.trunk.all_layers(x)
        pairs = list(zip(branch[::-1], trunk[::-1], strict=False))[: model.sum_layers]
        return sum(t @ b for b, t in pairs) / len(pairs)

    expected = sum_of_pairs(model, u[0], x)
    assert model.sum_layers == (1 if kind == "encoder" else 2)
    found = eqx.filter_jit(jax.vmap(call, (None, 0, None)))(model, u, x)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    np.testing.assert_allclose(call(model, u[0, ..., None], x), expected, rtol=1e-12)
    single = call(model, u[0].astype(jnp.float32), x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "branch"])
def test_derivatives_with_values_on_a_grid(kind, getkey):
    model = _with_branch(kind, getkey())
    u, x = jax.random.normal(getkey(), (7, 6)), jax.random.normal(getkey(), (4, 2))
    value = jax.jit(lambda model, u, x: jnp.sum(jnp.sin(model(u, x))))
    slopes = jax.jit(jax.grad(value, (0, 1, 2)))(model, u, x)
    assert all(bool(jnp.any(slope != 0)) for slope in jax.tree.leaves(slopes))
    jax.test_util.check_grads(value, (model, u, x), 1, modes=["rev"])


class Moments(nn.AbstractBranch):
    scale: jax.Array

    @property
    def widths(self):
        return 4, 4

    def all_layers(self, u, /):
        powers = jnp.arange(4.0)
        return [self.scale * jnp.mean(u) ** powers, self.scale * jnp.max(u) ** powers]


def test_any_feature_extractor_is_a_branch(getkey):
    branch = Moments(jnp.asarray(2.0))
    model = nn.MultiONet(branch, [2, 3, 4, 4], weighting="none", sum_layers=1, key=getkey())
    u, x = jax.random.normal(getkey(), (5, 3, 2)), jax.random.normal(getkey(), (6, 2))
    expected = model.trunk(x) @ (2 * jnp.max(u) ** jnp.arange(4.0))
    value, slope = jax.jit(jax.value_and_grad(lambda m: jnp.sum(m(u, x))))(model)
    np.testing.assert_allclose(value, jnp.sum(expected), rtol=1e-12)
    np.testing.assert_allclose(slope.branch.scale, value / 2, rtol=1e-12)


def test_encoded_input_of_several_outputs(getkey):
    encoder = nn.ConvEncoder((7, 6), (1, 3), (4,), key=getkey())
    options: dict[str, Any] = {"weighting": "none", "in_size": 4, "out_channels": 3}
    model = nn.MultiONet([1, 5, 5], [2, 5, 5], encoder=encoder, **options, key=getkey())
    plain = eqx.tree_at(lambda m: m.encoder, model, None)
    u, x = jax.random.normal(getkey(), (7, 6)), jax.random.normal(getkey(), (5, 2))
    np.testing.assert_allclose(model(u, x), plain(encoder(u), x), rtol=1e-12)


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
    expected = model.trunk(x) @ model.branch.all_layers(u.reshape(-1))[-1]
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
    "module": (
        lambda k: _make(
            nn.ConvEncoder((5,), (1, 2), (4, 4), key=k),
            [2, 4, 4],
            weighting="none",
            out_channels=2,
            in_size=3,
            key=k,
        ),
        "`branch` whose first width is 1",
    ),
    "module widths": (
        lambda k: _make(nn.ConvEncoder((5,), (1, 2), (4, 3), key=k), [2, 4, 4], key=k),
        r"must agree, got \(4, 3\) and \(4, 4\)",
    ),
    "axes": (
        lambda k: nn.ConvEncoder((5,) * 4, (1, 2), (4,), key=k),
        "`grid` must have 1, 2 or 3 axes",
    ),
    "no layer": (
        lambda k: nn.ConvEncoder((5,), (1,), (4,), key=k),
        r"`channels` must be those of the input .* got \(1,\) and \(4,\)",
    ),
    "small": (
        lambda k: nn.ConvEncoder((9, 6), (1, 2, 2), (4,), key=k),
        r"`grid` must leave points after 2 convolutions .* got \(9, 6\)",
    ),
    "other grid": (
        lambda k: nn.ConvEncoder((9,), (1, 2), (4,), key=k)(jnp.ones(8)),
        r"`u` must be on the grid \(9,\), got the shape \(8,\)",
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
