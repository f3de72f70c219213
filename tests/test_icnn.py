"""Convex potentials: convexity, symmetry, tilings, non-negative weights, published sizes."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from jinv import nn, train
from jinv.nn import _convolution
from jinv.nn._convolution import convolve, pointwise


pytestmark = pytest.mark.usefixtures("quick_compilation")

MAKE = {
    "linear growth": lambda key: nn.dense_icnn((4, 4), (12, 9), strong_convexity=0.1, key=key),
    "quadratic growth": lambda key: nn.dense_icnn((4, 4), (12, 9), quadratic=True, key=key),
    "bounded": lambda key: nn.dense_icnn((4, 4), (12, 9), quadratic=True, bounded=True, key=key),
    "squareplus": lambda key: nn.dense_icnn((4, 4), (12, 9), activation="squareplus", key=key),
    "softplus weights": lambda key: nn.dense_icnn((4, 4), (12, 9), rule="softplus", key=key),
    "square weights": lambda key: nn.dense_icnn((4, 4), (12, 9), rule="square", key=key),
    "convolutional": lambda key: nn.convolutional_icnn((9, 7), 4, hidden=5, key=key),
    "colours": lambda key: nn.convolutional_icnn((8, 6, 3), 4, hidden=5, key=key),
    "tiled": lambda key: nn.Tiled(nn.dense_icnn((4, 4), (12,), quadratic=True, key=key), 2),
    "pyramid": lambda key: _pyramid(key),
    "rescaled": lambda key: nn.Rescaled(nn.dense_icnn((4, 4), (12, 9), key=key), 3.0),
}


def _pyramid(key, **options):
    keys = jax.random.split(key, 2)
    options = {"quadratic": True, "mean": False, "strong_convexity": 0.1, **options}
    return nn.Pyramid([nn.dense_icnn((4, 4), (12,), **options, key=k) for k in keys], 2)


def _potential(name, key, size=1.0):
    """With weights that no training would give."""
    potential = MAKE[name](key)
    keys = iter(jax.random.split(key, 100))
    move = lambda x: x + size * jax.random.normal(next(keys), x.shape)
    return jax.tree.map(lambda x: move(x) if eqx.is_inexact_array(x) else x, potential)


def _points(name, potential, key, num):
    shape = (9, 7) if name in ("tiled", "pyramid") else potential.shape
    return jax.random.normal(key, (num, *shape))


@pytest.mark.parametrize("name", MAKE)
def test_jacobian_is_symmetric_and_semidefinite(name, getkey):
    potential = _potential(name, getkey())
    y = _points(name, potential, getkey(), 1)[0]
    n = y.size
    jacobian = np.asarray(jax.jit(jax.jacobian(potential.gradient))(y)).reshape(n, n)
    size = np.linalg.norm(jacobian)
    assert size > 0
    assert np.linalg.norm(jacobian - jacobian.T) <= 1e-12 * size
    assert np.linalg.eigvalsh(jacobian)[0] >= potential.strong_convexity - 1e-12 * size


@pytest.mark.parametrize("name", ["linear growth", "quadratic growth"])
def test_gradient_is_monotone_in_many_pairs(name, getkey):
    potential = _potential(name, getkey())
    pairs = _points(name, potential, getkey(), 200_000).reshape(2, 100_000, *potential.shape)

    @jax.jit
    def products(pairs):
        f = jax.vmap(jax.vmap(potential.gradient))(pairs)
        along = lambda u, v: jnp.sum((u * v).reshape(len(u), -1), 1)
        move = pairs[0] - pairs[1]
        return along(f[0] - f[1], move), along(move, move)

    inner, square = products(pairs)
    assert int(jnp.sum(inner < potential.strong_convexity * square * (1 - 1e-12))) == 0


@pytest.mark.parametrize("name", MAKE)
def test_value_and_gradient_agree_with_differences(name, getkey):
    potential = _potential(name, getkey(), size=0.1)
    y, d = _points(name, potential, getkey(), 2)
    value, gradient = potential.value_and_gradient(y)
    np.testing.assert_allclose(value, potential(y), rtol=1e-14)
    h = 1e-6
    difference = (potential(y + h * d) - potential(y - h * d)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(gradient * d), difference, rtol=1e-6)


def test_published_sizes(getkey):
    # The published 10502 have an additive constant among them.
    assert nn.dense_icnn(1, [50] * 5, key=getkey()).num_weights == 10_501
    assert nn.convolutional_icnn((28, 28), key=getkey()).num_weights == 317_056


def test_quadratic_growth_starts_near_the_identity_and_stays_in_reach_of_it(getkey):
    fresh = nn.dense_icnn((5, 5), (16,), quadratic=True, beta=100.0, key=getkey())
    y = jax.random.normal(getkey(), (5, 5))
    assert jnp.linalg.norm(fresh.gradient(y) - y) < 0.02 * jnp.linalg.norm(y)
    moved = jax.tree.map(lambda x: x + 0.3 if eqx.is_inexact_array(x) else x, fresh)
    moved = eqx.tree_at(lambda m: m.layers[0].lift, moved, fresh.layers[0].lift)
    gaps = [jnp.linalg.norm(moved.gradient(t * y) - t * y) for t in (1e3, 1e6)]
    np.testing.assert_allclose(*gaps, rtol=1e-2)


@pytest.mark.parametrize("bounded", [True, False])
def test_prior_is_bounded_below_by_construction(bounded, getkey):
    options = {"quadratic": True, "bounded": bounded, "strong_convexity": 0.1}
    first = nn.dense_icnn((4, 4), (12, 9), **options, key=getkey())
    frame = lambda potential: potential.layers[0].lift
    moved = jax.tree.map(lambda x: x + jax.random.normal(getkey(), x.shape), first)
    potential = eqx.tree_at(frame, moved, frame(first))
    # The envelope of R, which has its infimum.
    envelope = jax.jit(jax.vmap(lambda y: 0.5 * jnp.sum(y * y) - potential(y)))
    directions = jax.random.normal(getkey(), (5000, 4, 4))
    slopes = (envelope(1e4 * directions) - envelope(1e3 * directions)) / 9e3
    assert (float(jnp.min(slopes)) > 0) == bounded


def test_recession_is_the_slope_at_infinity(getkey):
    potential = _potential("softplus weights", getkey())
    d = jax.random.normal(getkey(), (4, 4))
    slope = (potential(2e6 * d) - potential(1e6 * d)) / 1e6
    np.testing.assert_allclose(potential.recession(d), slope, rtol=1e-6)
    tiled = nn.Tiled(potential, 2)
    slope = (tiled(2e6 * d) - tiled(1e6 * d)) / 1e6
    np.testing.assert_allclose(tiled.recession(d), slope, rtol=1e-6)
    assert jnp.isinf(MAKE["quadratic growth"](getkey()).recession(d))
    assert jnp.isinf(MAKE["linear growth"](getkey()).recession(d))


@pytest.mark.parametrize("shape, patch, stride", [((9, 7), 4, 2), ((5, 11), 6, 3), ((4, 4), 4, 1)])
def test_every_pixel_is_in_equally_many_patches(shape, patch, stride, rng):
    tiling = nn.Tiling((patch, patch), stride)
    image = jnp.asarray(rng.normal(size=shape))
    patches = tiling.patches(image)
    before = patch - stride
    padded = np.pad(image, [(before, before + -n % stride) for n in shape])
    rows, columns = (range(0, n - patch + 1, stride) for n in padded.shape)
    expected = [padded[i : i + patch, j : j + patch] for i in rows for j in columns]
    np.testing.assert_array_equal(patches, np.stack(expected))
    np.testing.assert_allclose(tiling.mean(patches, shape), image, rtol=1e-14)


def test_tiling_of_a_large_image_stays_a_gradient(getkey):
    patch = nn.convolutional_icnn((32, 32), 2, hidden=6, initial="uniform", key=getkey())
    tiled = nn.Tiled(patch, 16)
    y = jax.random.normal(getkey(), (100, 140))
    # Random sections of the Jacobian, in both orders; the whole has 2e8 entries.
    probes = jax.random.normal(getkey(), (6, 100, 140))
    product = jax.jit(lambda d: jax.jvp(tiled.gradient, (y,), (d,))[1])
    products = jnp.stack([product(d) for d in probes])
    section = np.einsum("aij,bij->ab", probes, products)
    assert np.linalg.norm(section - section.T) <= 1e-12 * np.linalg.norm(section)
    chunked = nn.Tiled(patch, 16, chunk=7).gradient(y)
    np.testing.assert_allclose(chunked, tiled.gradient(y), rtol=1e-12, atol=1e-13)


def test_pyramid_loses_nothing_between_its_levels(getkey):
    """Patches less their means, and the means at the next level, are all of the image."""
    y = jax.random.normal(getkey(), (13, 10))
    pyramid = _pyramid(getkey(), strong_convexity=0.0)
    squares = lambda patch: 0.5 * jnp.sum((patch - jnp.mean(patch)) ** 2)

    class Squares(nn.AbstractConvexPotential):
        shape: tuple[int, ...] = (4, 4)
        strong_convexity: float = 0.0

        def __call__(self, y):
            return squares(y)

        def recession(self, direction):
            return jnp.asarray(jnp.inf)

    plain = nn.Pyramid([Squares(), Squares(), Squares()], 2)
    np.testing.assert_allclose(plain(y), 0.5 * jnp.sum(y**2), rtol=1e-12)
    np.testing.assert_allclose(plain.gradient(y), y, rtol=1e-11)
    # Whatever the weights are, the gradient stays in reach of the identity.
    far = 1e8 * y
    assert float(jnp.max(jnp.abs(pyramid.gradient(far) - far))) < 100
    some = nn.Pyramid(pyramid.levels, 2, chunk=5)
    np.testing.assert_allclose(some.gradient(y), pyramid.gradient(y), rtol=1e-12)
    assert float(pyramid.recession(y)) == np.inf and float(pyramid.recession(0 * y)) == 0


@pytest.mark.parametrize("name", ["quadratic growth", "convolutional", "tiled", "pyramid"])
def test_single_precision_stays(name, getkey):
    potential = _potential(name, getkey())
    y = _points(name, potential, getkey(), 1)[0].astype(jnp.float32)
    value, gradient = potential.value_and_gradient(y)
    assert value.dtype == gradient.dtype == jnp.float32


def test_the_mean_without_the_border_is_no_gradient(getkey):
    """What the published code does: the test above would see it."""
    patch = nn.dense_icnn((4, 4), (12,), quadratic=True, beta=3.0, key=getkey())
    tiling = nn.Tiling((4, 4), 2)

    def inside(image):
        parts = [image[i : i + 4, j : j + 4] for i in (0, 2, 4) for j in (0, 2, 4)]
        return jnp.stack(parts)

    def average(image):
        scatter = jax.linear_transpose(inside, image)
        parts = jax.vmap(patch.gradient)(inside(image))
        return scatter(parts)[0] / scatter(jnp.ones_like(parts))[0]

    def asymmetry(fn):
        jacobian = jax.jit(jax.jacobian(fn))(y).reshape(64, 64)
        return jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian)

    y = jax.random.normal(getkey(), (8, 8))
    assert asymmetry(average) > 1e-3
    assert asymmetry(nn.Tiled(patch, 2).gradient) < 1e-14
    assert tiling.cover == 4


@pytest.mark.parametrize("rule", ["clip", "softplus", "square"])
def test_weights_stay_nonnegative_and_the_network_convex_in_training(rule, getkey):
    model = nn.dense_icnn(3, (8, 8), rule=rule, key=getkey())
    loss = lambda m, batch, key: jnp.mean((jax.vmap(m.gradient)(batch) + batch) ** 2)
    chain = optax.chain(optax.adam(0.3), nn.keep_nonnegative())
    step = train.TrainStep(loss, chain)  # towards minus the identity: against convexity
    state, advance = step.init(model), eqx.filter_jit(step)
    reached_zero = False
    for key in jax.random.split(getkey(), 20):
        state, _ = advance(state, jax.random.normal(key, (16, 3)), key=key)
        nodes = jax.tree.leaves(state.model, is_leaf=lambda n: isinstance(n, nn.NonNegative))
        nodes = [node for node in nodes if isinstance(node, nn.NonNegative)]
        assert len(nodes) == 2
        for node in nodes:
            assert bool(jnp.all(node.value >= 0))
            reached_zero |= bool(jnp.any(node.stored == 0))
            assert rule != "clip" or bool(jnp.all(node.stored >= 0))
        jacobian = jax.jacobian(state.model.gradient)(jnp.ones(3))
        assert jnp.linalg.eigvalsh(jacobian)[0] >= -1e-14
    assert reached_zero or rule != "clip"


def test_nonnegative_keeps_values_and_lets_zeros_return(getkey):
    value = jnp.array([0.0, 0.3, 50.0])
    for rule in ("clip", "softplus", "square"):
        np.testing.assert_allclose(nn.NonNegative(value, rule).value, value, atol=2e-8)
    slope = jax.grad(lambda w: jnp.sum(w.value))(nn.NonNegative(value))
    np.testing.assert_array_equal(slope.stored, jnp.ones(3))
    damaged = eqx.tree_at(lambda w: w.stored, nn.NonNegative(value), -value)
    np.testing.assert_array_equal(damaged.value, jnp.zeros(3))


def test_softplus_is_stable_and_twice_differentiable():
    from jinv.nn._activation import activation

    with jax.enable_x64(False):
        x = jnp.array([-1e3, -5.0, 0.0, 5.0, 1e3], jnp.float32)
        for name in ("softplus", "squareplus"):
            fn = functools.partial(activation, name, 100.0)
            for value in (fn(x), jax.vmap(jax.grad(fn))(x), jax.vmap(jax.grad(jax.grad(fn)))(x)):
                assert value.dtype == jnp.float32 and bool(jnp.all(jnp.isfinite(value)))
    x = jnp.linspace(-0.2, 0.2, 9)
    fn = lambda t: activation("softplus", 30.0, t)
    np.testing.assert_allclose(fn(x), jax.nn.softplus(30 * x) / 30, rtol=1e-14)
    slope = jax.nn.sigmoid(30 * x)
    np.testing.assert_allclose(jax.vmap(jax.grad(fn))(x), slope, rtol=1e-13)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(jax.grad(fn)))(x), 30 * slope * (1 - slope), rtol=1e-12
    )


def test_lipschitz_denoiser_is_firmly_nonexpansive(getkey):
    denoiser = nn.LipschitzDenoiser((3, 3), (14, 10), stride=1, key=getkey())
    keys = iter(jax.random.split(getkey(), 100))
    move = lambda x: x + jax.random.normal(next(keys), x.shape)
    denoiser = jax.tree.map(lambda x: move(x) if eqx.is_inexact_array(x) else x, denoiser)
    y = 3 * jax.random.normal(getkey(), (6, 5))
    jacobian = np.asarray(jax.jit(jax.jacobian(denoiser))(y)).reshape(30, 30)
    assert np.linalg.norm(2 * jacobian - np.eye(30), 2) <= 1 + 1e-10
    assert np.linalg.norm(jacobian - jacobian.T) > 1e-3  # no functional behind it


def test_conv_denoiser_starts_as_nearly_the_identity_and_takes_any_size(getkey):
    denoiser = nn.ConvDenoiser(6, 2, key=getkey())
    for shape in ((9, 7), (16, 16)):
        y = jax.random.normal(getkey(), shape)
        assert denoiser(y).shape == shape
        assert jnp.linalg.norm(denoiser(y) - y) < 0.3 * jnp.linalg.norm(y)


def _any(**arguments: Any) -> dict[str, Any]:
    """Hides from the type checker what it would rightly refuse."""
    return arguments


WRONG: dict[str, Any] = {
    "widths": (lambda k: nn.dense_icnn(3, (8, 0), key=k), "`widths` must be at least 1"),
    "shape": (lambda k: nn.dense_icnn((), (8,), key=k), "`shape` must be at least 1"),
    "beta": (lambda k: nn.dense_icnn(3, (8,), beta=0.0, key=k), "`beta` must be positive"),
    "bounded": (
        lambda k: nn.dense_icnn(3, (8,), bounded=True, key=k),
        "`bounded` must be False without `quadratic`",
    ),
    "alpha": (
        lambda k: nn.dense_icnn(3, (8,), strong_convexity=-1.0, key=k),
        r"`strong_convexity` must be in \[0, 1\)",
    ),
    "activation": (
        lambda k: nn.dense_icnn(3, (8,), key=k, **_any(activation="gelu")),
        "`activation`",
    ),
    "rule": (lambda k: nn.dense_icnn(3, (8, 8), key=k, **_any(rule="abs")), "`rule` must be"),
    "image": (lambda k: nn.convolutional_icnn((28,), key=k), r"`shape` must be \(H, W\)"),
    "kernel": (lambda k: nn.convolutional_icnn((8, 8), kernel_size=2, key=k), "must be odd"),
    "initial": (lambda k: nn.convolutional_icnn((8, 8), key=k, **_any(initial="he")), "`initial`"),
    "stride": (lambda k: nn.Tiling((4, 4), 3), "`stride` must divide the patch"),
    "chunk": (
        lambda k: nn.Tiled(nn.dense_icnn((4, 4), (8,), key=k), 2, chunk=0),
        "`chunk` must be at least 1",
    ),
    "input": (
        lambda k: nn.dense_icnn(3, (8,), key=k)(jnp.zeros(4)),
        r"`y` must have the network's shape \(3,\), got \(4,\)",
    ),
    "colours": (
        lambda k: nn.Tiled(nn.dense_icnn((4, 4), (8,), key=k), 2)(jnp.zeros((8, 8, 3))),
        "`y` must be an image with the axes of the patches",
    ),
    "channels": (lambda k: nn.ConvDenoiser(0, key=k), "must be positive"),
    "no widths": (lambda k: nn.LipschitzDenoiser((3, 3), (), key=k), "must be positive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name, getkey):
    make, message = WRONG[name]
    key = getkey()
    with pytest.raises((ValueError, TypeError), match=message if name not in _TYPED else None):
        make(key)


# Where the annotations say it already, the checker of the tests is first.
_TYPED = {"activation", "rule", "initial"}


CONVOLUTIONS = [
    # Kernel, stride, channels, zeros before, places out of 9 x 6 pixels.
    (3, 1, 8, 1, (9, 6)),
    (3, 1, 8, 0, (7, 4)),
    (3, 2, 8, 1, (5, 3)),
    (3, 2, 8, 0, (4, 2)),
    (3, 2, 1, 1, (5, 3)),
    (4, 2, 8, 1, (5, 3)),
    (4, 2, 2, 1, (5, 3)),
    (5, 3, 2, 2, (3, 2)),
]


@pytest.mark.parametrize("kernel, stride, channels, before, out", CONVOLUTIONS)
def test_convolutions_and_their_transposes_are_those_of_xla(
    kernel, stride, channels, before, out, rng, monkeypatch
):
    shape = (9, 6)
    x, w, z = (
        jnp.asarray(rng.normal(size=size))
        for size in ((7, *shape, channels), (kernel, kernel, channels, 9), (7, *out, 9))
    )
    params = {"stride": stride, "shape": shape, "kernel": kernel, "before": before, "out": out}
    for name, arguments in {"forward": (x, w), "input": (z, w), "kernel": (x, z)}.items():
        found = _convolution._on_cpu(name, *arguments, **params)
        expected = _convolution._PLAIN[name](*arguments, **params)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    # As if the images were many and large, three of them at once.
    for name, value in {"_SOME": 0, "_LARGE": 0, "_UNCOPIED": 3 * 54 * max(channels, 9)}.items():
        monkeypatch.setattr(_convolution, name, value)
    found, expected = (
        fn(x, z, **params)
        for fn in (functools.partial(_convolution._on_cpu, "kernel"), _convolution._plain_kernel)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    one = _convolution.convolve_transposed(z[0], w, stride, shape, before=before)
    np.testing.assert_allclose(one, _convolution._plain_input(z[:1], w, **params)[0], atol=1e-12)


def test_derivatives_of_a_convolution_and_batches_of_kernels(getkey):
    x, dx = jax.random.normal(getkey(), (2, 4, 6, 5, 8))
    w, dw = jax.random.normal(getkey(), (2, 4, 3, 3, 8, 8))
    on_arrays = lambda x, w: convolve(jnp.asarray(x), jnp.asarray(w), 2)
    jax.test_util.check_grads(on_arrays, (x[0], w[0]), 2)

    def second(fn):
        slope = lambda x, w: jax.grad(lambda x, w: jnp.sum(jnp.sin(fn(x, w))), (0, 1))(x, w)
        return jax.vmap(lambda *a: jax.jvp(slope, a[:2], a[2:]))(x, w, dx, dw)

    plain = lambda x, w: _convolution._plain_forward(
        x[None], w, stride=2, shape=x.shape[:2], kernel=3, before=1, out=(3, 3)
    )[0]
    found, expected = second(lambda x, w: convolve(x, w, 2)), second(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, expected)


@pytest.mark.parametrize("axes", [(), (4,), (4, 3), (2, 3, 4)])
def test_products_at_each_point_and_their_derivatives(axes, rng):
    x, w = jnp.asarray(rng.normal(size=(5, *axes, 3))), jnp.asarray(rng.normal(size=(5, 3, 2)))

    def outcomes(product):
        loss = lambda x, w: jnp.sum(jnp.sin(jax.vmap(product, (0, None))(x, w)))
        value = jax.value_and_grad(loss, (0, 1))(x, w[0])
        second = jax.hessian(loss, 1)(x, w[0])
        return value, second, jax.vmap(product)(x, w)

    got, expected = outcomes(pointwise), outcomes(lambda x, w: x @ w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-12), got, expected)
