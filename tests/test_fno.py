"""Networks on grids: transforms against dense references, symmetries, other grids, gradients."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special

from jinv import nn
from jinv.nn import _channels, _fno, _galerkin, _unet
from jinv.nn._fno import FactorisedConvolution, SpectralConvolution
from jinv.nn._galerkin import GalerkinAttention


pytestmark = pytest.mark.usefixtures("quick_compilation")

MAKE: dict[str, Any] = {
    "fno": lambda key: nn.FNO(2, 1, (2, 3), 4, 2, projection=(6,), key=key),
    "gated fno": lambda key: nn.FNO(2, 1, (3, 2), 4, 2, channel_mlp=3, key=key),
    "factorised": lambda key: nn.FNO(
        2, 1, (3, 2), 4, 2, factorised=True, lifting=(3,), padding=0.3, projection=(), key=key
    ),
    "unet": lambda key: nn.UNet(2, 1, 2, 1, groups=1, key=key),
    "unet 1-D": lambda key: nn.UNet(2, 1, 4, 1, ndim=1, groups=2, key=key),
    "galerkin": lambda key: nn.GalerkinTransformer(2, 1, 8, 1, heads=2, projection=(5,), key=key),
}


def _filled(make, rng, size=0.3):
    """With random weights, so that no norm or bias is trivial; drawing those of the start would
    be most of the time, for compilation."""
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(size * rng.normal(size=x.shape)), shapes)


def test_published_sizes(rng):
    def count(*arguments, **options):
        return _filled(lambda key: nn.FNO(*arguments, **options, key=key), rng).num_weights

    assert count(1, 1, 12, 32, 4, projection=(128,)) == 2_368_001
    # By the formula: the published 1-D network for Burgers' equation, 16 modes and 64 channels.
    layers = 4 * (2 * 16 * 64**2 + 64**2 + 64)
    assert count(1, 1, 16, 64, ndim=1) == 3 * 64 + layers + 64 * 128 + 128 + 128 + 1
    fewer = 4 * 2 * 32**2 * (2 * 12**2 - 2 * 12)
    assert count(1, 1, 12, 32, factorised=True) == 2_368_001 - fewer


def test_sizes_of_the_others(rng):
    unet = _filled(lambda key: nn.UNet(3, 2, 8, 1, key=key), rng)
    convolutions = 9 * (3 * 8 + 8 * 8 + 8 * 16 + 16 * 16 + 16 * 8 + 8 * 8)
    norms = 2 * (4 * 8 + 2 * 16)
    assert unet.num_weights == convolutions + norms + 17 * 4 * 8 + 9 * 2
    options = {"heads": 2, "hidden": 5, "projection": ()}
    model = _filled(lambda key: nn.GalerkinTransformer(3, 2, 8, 1, **options, key=key), rng)
    attention = 3 * 9 * 8 + 4 * 8 + (2 * (4 + 2) + 1) * 8
    assert model.num_weights == 6 * 8 + attention + 9 * 5 + 6 * 8 + 9 * 2


def test_start(getkey):
    """What is drawn: spectral weights as published, in [0, 1 / channels^2)."""

    @jax.jit
    def draw(key):
        spectral = SpectralConvolution(4, 4, (3, 3), key=key)
        return spectral.real, spectral.imag, GalerkinAttention(8, 2, 1, key=key).weight

    real, imag, weight = map(np.asarray, draw(getkey()))
    for weights in (real, imag):
        assert weights.shape == (6, 3, 4, 4)
        assert 0 <= weights.min() < 0.01 and 0.05 < weights.max() < 1 / 16
    assert not np.allclose(real, imag)
    weight = weight.reshape(3, 8, 8) - 0.01 * np.eye(8)
    assert 0.005 < np.abs(weight).max() < 0.01 * (3 / 8) ** 0.5


def _modes(grid, modes):
    """Pairs of a frequency on the grid and the place of its matrix among the weights."""
    axes = []
    for i, (n, m) in enumerate(zip(grid, modes, strict=True)):
        if i == len(grid) - 1:
            axes.append([(k, k) for k in range(m) if 2 * k <= n])
        else:
            axes.append([(k, k % (2 * m)) for k in range(-m, m) if -n <= 2 * k < n])
    for pairs in itertools.product(*axes):
        yield tuple(zip(*pairs, strict=True))


SPECTRAL = [
    # Grid and modes; fewer, as many, and more than the grid has frequencies.
    ((8,), (3,)),
    ((9,), (5,)),
    ((8,), (5,)),
    ((7,), (20,)),
    ((1,), (2,)),
    ((6, 9), (2, 3)),
    ((5, 8), (4, 20)),
    ((4, 1), (7, 2)),
    ((8, 6), (4, 3)),
    ((4, 5, 6), (1, 2, 3)),
    ((5, 3, 7), (2, 4, 9)),
]


@pytest.mark.parametrize(
    "grid, modes, limit",
    [*((*case, 64) for case in SPECTRAL), *((*case, 0) for case in SPECTRAL[7:])],
)
def test_spectral_convolution_is_that_of_dense_matrices(grid, modes, limit, rng, monkeypatch):
    monkeypatch.setattr(_fno, "_MATRIX_UP_TO", limit)
    layer = _filled(lambda key: SpectralConvolution(2, 3, modes, key=key), rng)
    u = rng.normal(size=(*grid, 2))
    points = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1) / np.array(grid)
    weights = np.asarray(layer.real) + 1j * np.asarray(layer.imag)
    dense = np.zeros((*grid, 3))
    half = np.zeros((*grid[:-1], grid[-1] // 2 + 1, 3), complex)
    for k, place in _modes(grid, modes):
        wave = np.exp(2j * np.pi * (points @ np.array(k)))
        product = np.tensordot(wave.conj(), u, len(grid)) @ weights[place]
        twice = 1 if k[-1] == 0 or 2 * k[-1] == grid[-1] else 2
        dense += twice / math.prod(grid) * (wave[..., None] * product).real
        half[k] = product
    found = eqx.filter_jit(layer)(jnp.asarray(u))
    np.testing.assert_allclose(found, dense, rtol=0, atol=1e-10)
    axes = tuple(range(len(grid)))
    np.testing.assert_allclose(found, np.fft.irfftn(half, grid, axes), rtol=0, atol=1e-10)


def test_many_frequencies_by_the_fast_transform(rng):
    layer = _filled(lambda key: SpectralConvolution(2, 2, (40, 70), key=key), rng)
    u = jnp.asarray(rng.normal(size=(90, 151, 2)))
    spectrum = np.fft.rfftn(u, axes=(0, 1))
    weights = np.asarray(layer.real) + 1j * np.asarray(layer.imag)
    kept = np.zeros_like(spectrum)
    for rows, places in ((slice(40), slice(40)), (slice(-40, None), slice(40, None))):
        kept[rows, :70] = np.einsum("xyi,xyio->xyo", spectrum[rows, :70], weights[places])
    expected = np.fft.irfftn(kept, (90, 151), (0, 1))
    np.testing.assert_allclose(eqx.filter_jit(layer)(u), expected, rtol=0, atol=1e-10)


def test_factorised_convolution_is_the_sum_over_the_axes(rng):
    layer = _filled(lambda key: FactorisedConvolution(2, 3, (2, 9, 3), key=key), rng)
    u = jnp.asarray(rng.normal(size=(5, 4, 6, 2)))
    expected = np.zeros((5, 4, 6, 3))
    for axis, (one, n) in enumerate(zip(layer.along, (5, 4, 6), strict=True)):
        for rest in np.ndindex(*(m for i, m in enumerate((5, 4, 6)) if i != axis)):
            line = (*rest[:axis], slice(None), *rest[axis:])
            spectrum = np.fft.rfft(u[line], axis=0)
            m = min(len(spectrum), len(one.real))
            weights = (np.asarray(one.real) + 1j * np.asarray(one.imag))[:m]
            spectrum = np.einsum("ki,kio->ko", spectrum[:m], weights)
            expected[line] += np.fft.irfft(spectrum, n, 0)
    np.testing.assert_allclose(eqx.filter_jit(layer)(u), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid, modes", [((8,), (3,)), ((6, 7), (9, 9)), ((4, 5, 6), (2, 1, 5))])
@pytest.mark.parametrize("kind", [SpectralConvolution, FactorisedConvolution])
def test_spectral_convolution_is_one_operator_on_all_grids(kind, grid, modes, rng):
    """Of functions with frequencies that the coarser grid has, also if it lacks some modes."""
    layer = eqx.filter_jit(_filled(lambda key: kind(2, 2, modes, key=key), rng))
    waves = [rng.integers(-((n - 1) // 2), (n - 1) // 2 + 1, 20) for n in grid]
    phases, sizes = rng.uniform(0, 6, (20, 2)), rng.normal(size=(20, 2))

    def sampled(grid):
        axes = [np.arange(n) / n for n in grid]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        angles = 2 * np.pi * points @ np.stack(waves)
        return jnp.asarray(np.sum(sizes * np.cos(angles[..., None] + phases), -2))

    coarse = layer(sampled(grid))
    fine = layer(sampled([2 * n for n in grid]))
    np.testing.assert_allclose(fine[(slice(None, None, 2),) * len(grid)], coarse, atol=1e-12)


@pytest.mark.parametrize("factorised", [False, True])
def test_fno_is_one_operator_on_fine_grids(factorised, rng):
    """Without training anew: of smooth periodic functions the results differ by what the coarser
    grid does not resolve, which vanishes faster than any power of the spacing."""
    options = {"coordinates": False, "factorised": factorised, "projection": (6,)}
    model = _filled(lambda key: nn.FNO(1, 1, 3, 3, 2, **options, key=key), rng, 1.0)
    call, found = eqx.filter_jit(model), {}
    for n in (8, 16, 32, 64):
        x, y = np.meshgrid(*[np.arange(size) / size for size in (n, n + n // 2)], indexing="ij")
        u = np.cos(2 * np.pi * (x + y)) + np.sin(2 * np.pi * x)
        found[n] = np.asarray(call(jnp.asarray(u)))[:: n // 8, :: n // 8]
    errors = [float(np.max(np.abs(found[n] - found[64]))) for n in (8, 16, 32)]
    assert errors[2] < 1e-4 * np.ptp(found[64])
    first, second = np.divide(errors[:-1], errors[1:])
    assert first > 10 and second > 5 * first


@pytest.mark.parametrize("factorised", [False, True])
@pytest.mark.parametrize("grid, shift", [((10,), (3,)), ((9, 8), (4, 5)), ((4, 5, 3), (1, 2, 2))])
def test_fno_commutes_with_translations(factorised, grid, shift, rng):
    ndim = len(grid)
    options = {"ndim": ndim, "coordinates": False, "factorised": factorised, "projection": (6,)}
    model = _filled(lambda key: nn.FNO(2, 2, 3, 5, 3, **options, key=key), rng)
    u = jnp.asarray(rng.normal(size=(*grid, 2)))
    move = lambda x: jnp.roll(x, shift, tuple(range(ndim)))
    call = eqx.filter_jit(model)
    found, expected = call(move(u)), move(call(u))
    size = np.max(np.abs(expected))
    assert np.max(np.abs(expected - call(u))) > 0.1 * size
    assert np.max(np.abs(found - expected)) < 1e-12 * size


@pytest.mark.parametrize("channel_mlp", [None, 3])
def test_fno_is_its_definition(rng, channel_mlp):
    """By NumPy and SciPy, with coordinates, zeros beyond the grid and hidden layers."""
    options = {"padding": 0.25, "lifting": (3,), "projection": (6, 5), "channel_mlp": channel_mlp}
    model = _filled(lambda key: nn.FNO(1, 2, (2, 3), 4, 2, **options, key=key), rng)
    u = rng.normal(size=(8, 6))
    gelu = lambda x: x * scipy.special.ndtr(x)

    def mlp(net, x):
        for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            x = (gelu(x) if i else x) @ np.asarray(w) + np.asarray(b)
        return x

    points = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 6), indexing="ij")
    v = np.pad(mlp(model.lifting, np.stack([u, *points], -1)), [(0, 2), (0, 2), (0, 0)])
    for i in range(2):
        layer: Any = model.spectral[i]
        weights = np.asarray(layer.real) + 1j * np.asarray(layer.imag)
        spectrum = np.fft.rfft2(v, axes=(0, 1))
        kept = np.zeros_like(spectrum)
        for k in range(-2, 2):
            kept[k, :3] = np.einsum("yi,yio->yo", spectrum[k, :3], weights[k])
        before, v = v, np.fft.irfft2(kept, v.shape[:2], (0, 1)) + mlp(model.skips[i], v)
        v = gelu(v) if i == 0 else v
        if channel_mlp is not None:
            v = mlp(model.mixers[i], v) + np.asarray(model.gates[i]) * before
            v = gelu(v) if i == 0 else v
    expected = mlp(model.projection, v[:8, :6])
    np.testing.assert_allclose(eqx.filter_jit(model)(jnp.asarray(u)), expected, rtol=1e-11)


def test_galerkin_attention_is_that_of_loops(rng):
    attention = _filled(lambda key: GalerkinAttention(6, 2, 2, key=key), rng)
    x, points = rng.normal(size=(7, 6)), rng.uniform(size=(7, 2))
    weight, bias, scale, shift = map(
        np.asarray, (attention.weight, attention.bias, attention.scale, attention.shift)
    )
    rows = np.zeros((7, 2, 5))
    for h in range(2):

        def project(part, i, h=h):
            y = x[i] @ weight[part, :, h] + bias[part, h]
            if part:
                y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
                y = y * scale[part - 1, h] + shift[part - 1, h]
            return np.concatenate([points[i], y])

        for i in range(7):
            for j in range(7):
                rows[i, h] += (project(0, i) @ project(1, j)) * project(2, j) / 7
    last = attention.last
    expected = rows.reshape(7, 10) @ np.asarray(last.weights[0]) + np.asarray(last.biases[0])
    found = eqx.filter_jit(attention)(jnp.asarray(x), jnp.asarray(points))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_galerkin_transformer_sees_points_only_by_their_coordinates(rng, monkeypatch):
    """It commutes with the transposition of a grid, if the coordinates are transposed too."""
    model = _filled(MAKE["galerkin"], rng)
    u = jnp.asarray(rng.normal(size=(5, 7, 2)))
    expected = eqx.filter_jit(model)(u).T
    assert float(jnp.max(jnp.abs(eqx.filter_jit(model)(u.swapaxes(0, 1)) - expected))) > 1e-3
    swapped = lambda grid, dtype: jnp.swapaxes(_channels.coordinates(grid[::-1], dtype), 0, 1)
    monkeypatch.setattr(_galerkin, "coordinates", swapped)
    found = jax.jit(lambda u: model(u))(u.swapaxes(0, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride, n", [(1, 7), (2, 1), (2, 6), (2, 7)])
def test_convolutions_of_all_dimensions_agree(stride, n, rng):
    """Those of 1-D are 2-D ones on a single row, those of 2-D are 3-D ones on a single plane."""
    image = jnp.asarray(rng.normal(size=(5, n, 3)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)))
    plane = jnp.zeros((3, 3, 3, 3, 4)).at[1].set(kernel)
    expected = _unet._convolve(image, kernel, stride)
    assert expected.shape == (-(-5 // stride), -(-n // stride), 4)
    found = _unet._convolve(image[None], plane, stride)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    row = jnp.zeros((3, 3, 3, 4)).at[1].set(kernel[0])
    found = _unet._convolve(image[0], kernel[0], stride)
    np.testing.assert_allclose(found, _unet._convolve(image[:1], row, stride)[0], atol=1e-12)


def test_parts_of_the_unet(rng):
    layer = _filled(lambda key: _unet._Layer(3, 6, 2, 2, key=key), rng)
    x = jnp.asarray(rng.normal(size=(5, 4, 3)))
    norm: Any = eqx.nn.GroupNorm(2, 6)
    norm = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (layer.scale, layer.shift))
    expected = eqx.filter_jit(norm)(jnp.moveaxis(_unet._convolve(x, layer.kernel, 1), -1, 0))
    expected = np.moveaxis(np.asarray(expected), 0, -1)
    expected = expected * scipy.special.ndtr(expected)
    np.testing.assert_allclose(eqx.filter_jit(layer)(x), expected, rtol=0, atol=1e-12)
    finer = _filled(lambda key: nn.MLP([3, 4 * 2], key=key), rng)
    weight = np.asarray(finer.weights[0]).reshape(3, 2, 2, 2)
    bias = np.asarray(finer.biases[0]).reshape(2, 2, 2)
    found = np.asarray(_unet._refine(x, finer, (9, 8)))
    assert found.shape == (9, 8, 2)
    for i, j in np.ndindex(9, 8):
        expected = np.asarray(x[i // 2, j // 2]) @ weight[:, i % 2, j % 2] + bias[i % 2, j % 2]
        np.testing.assert_allclose(found[i, j], expected, rtol=0, atol=1e-12)


GRIDS: dict[str, Any] = {
    "fno": [(13,), (1,), (7, 10), (3, 1), (5, 3, 2)],
    "factorised": [(1,), (5, 3, 2)],
    "unet": [(13,), (1,), (7, 10), (5, 3, 2)],
    "galerkin": [(1,), (5, 3, 2)],
}


@pytest.mark.parametrize("kind, grid", [(kind, grid) for kind in GRIDS for grid in GRIDS[kind]])
def test_any_grid_and_any_dimension_in_single_precision(kind, grid, rng):
    options: dict[str, Any] = {"ndim": len(grid)}
    make = {
        "fno": lambda key: nn.FNO(1, 2, 3, 2, 1, projection=(3,), **options, key=key),
        "factorised": lambda key: nn.FNO(1, 2, 3, 2, 1, factorised=True, **options, key=key),
        "unet": lambda key: nn.UNet(1, 2, 2, 2, groups=1, **options, key=key),
        "galerkin": lambda key: nn.GalerkinTransformer(1, 2, 4, 1, heads=2, **options, key=key),
    }[kind]
    model, u = _filled(make, rng), jnp.asarray(rng.normal(size=grid), jnp.float32)
    found = np.asarray(eqx.filter_jit(model)(u))
    assert found.shape == (*grid, 2) and np.all(np.isfinite(found))
    assert found.dtype == np.float32
    if kind == "fno":
        np.testing.assert_array_equal(eqx.filter_jit(model)(u[..., None]), found)


def _case(name, rng):
    model = _filled(MAKE[name], rng)
    return model, rng.normal(size=(3, *(5, 6)[: model.ndim], 2))


def _of_a_vector(model, u):
    """A number from one vector of all weights and values, that vector, and its parts."""
    leaves, tree = jax.tree.flatten((model, u))
    ends = np.cumsum([np.size(x) for x in leaves])[:-1]

    @jax.jit
    def value(vector):
        parts = jnp.split(vector, ends)
        parts = [part.reshape(np.shape(x)) for part, x in zip(parts, leaves, strict=True)]
        model, u = jax.tree.unflatten(tree, parts)
        return jnp.sum(jnp.sin(model(u)))

    return value, np.concatenate([np.ravel(x) for x in leaves]), lambda x: np.split(x, ends)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "unet"])
def test_derivatives(name, rng):
    """Those of convolutions in 2-D are in another file."""
    model, (u, _, _) = _case(name, rng)
    value, vector, parts = _of_a_vector(model, u)
    slope = np.asarray(jax.vjp(value, vector)[1](np.ones(()))[0])
    assert all(np.any(part) for part in parts(slope)), "not all weights have a part in the output"
    modes = ["fwd", "rev"] if name == "fno" else ["rev"]
    jax.test_util.check_grads(value, (vector,), 1, modes=modes)


@pytest.mark.parametrize("limit, order", [(64, 2), (0, 1)])
def test_derivatives_of_the_spectral_convolution(limit, order, rng, monkeypatch):
    monkeypatch.setattr(_fno, "_MATRIX_UP_TO", limit)
    layer = _filled(lambda key: SpectralConvolution(1, 2, (3, 2), key=key), rng)
    value, vector, _ = _of_a_vector(layer, rng.normal(size=(4, 5, 1)))
    modes = ["fwd", "rev"] if order == 1 else ["rev"]
    jax.test_util.check_grads(value, (vector,), order, modes=modes)


@pytest.mark.parametrize("name, limit", [*((name, 64) for name in MAKE), ("fno", 0)])
def test_batches_are_the_calls_one_by_one(name, limit, rng, monkeypatch):
    monkeypatch.setattr(_fno, "_MATRIX_UP_TO", limit)
    model, u = _case(name, rng)
    found = jax.jit(lambda u: jax.vmap(model)(u))(u)
    call = jax.jit(lambda u: model(u))
    expected = np.stack([call(one) for one in u])
    assert expected.shape == u.shape[:-1] and expected.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if name == "fno":
        single = call(u[0].astype(np.float32))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_weights_are_real(name):
    """As optimisers and checkpoints want them."""
    leaves = jax.tree.leaves(eqx.filter_eval_shape(MAKE[name], jax.random.key(0)))
    assert leaves and all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves)


WRONG: dict[str, Any] = {
    "in_channels": (lambda k: nn.FNO(0, 1, 4, key=k), "`in_channels` must be at least 1, got 0"),
    "out_channels": (lambda k: nn.UNet(1, 0, key=k), "`out_channels` must be at least 1"),
    "modes": (lambda k: nn.FNO(1, 1, (4, 0), key=k), "`modes` must be at least 1"),
    "axes": (lambda k: nn.FNO(1, 1, (4, 4, 4), key=k), "`modes` must be one number or 2"),
    "ndim": (lambda k: nn.FNO(1, 1, 4, ndim=4, key=k), "`ndim` must be 1, 2 or 3, got 4"),
    "padding": (lambda k: nn.FNO(1, 1, 4, padding=-0.1, key=k), "`padding` must not be negative"),
    "widths": (lambda k: nn.FNO(1, 1, 4, projection=(0,), key=k), "`projection` must be at"),
    "layers": (
        lambda k: nn.GalerkinTransformer(1, 1, num_layers=0, key=k),
        "`num_layers` must be at least 1",
    ),
    "levels": (lambda k: nn.UNet(1, 1, num_levels=0, key=k), "`num_levels` must be at least 1"),
    "groups": (lambda k: nn.UNet(1, 1, 12, key=k), "`groups` must divide `channels` = 12, got 8"),
    "heads": (lambda k: nn.GalerkinTransformer(1, 1, 6, key=k), "`heads` must divide `channels`"),
    "points": (
        lambda k: nn.UNet(1, 1, 8, 1, key=k)(jnp.zeros(4)),
        r"`u` must have 2 axes of points and 1 channels last or without their axis, got the "
        r"shape \(4,\)",
    ),
    "channels": (
        lambda k: nn.GalerkinTransformer(2, 1, 8, 1, key=k)(jnp.zeros((4, 4))),
        "`u` must have 2 axes of points and 2 channels last, got",
    ),
    "empty": (lambda k: nn.FNO(1, 1, 2, 4, key=k)(jnp.zeros((4, 0))), "`u` must have"),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(make, jax.random.key(0))


def test_integers_are_no_function_values():
    with pytest.raises(ValueError, match="`u` must have a real floating dtype, got int"):
        _channels.with_channels(jnp.ones((4, 4), int), 1, 2)
