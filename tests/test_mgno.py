"""The multigrid neural operators: published sizes and numbers, symmetries, grids, time steps."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jinv import nn


pytestmark = pytest.mark.usefixtures("quick_compilation")

PUBLISHED = {
    "darcy": (572_661, (64, 96), 1),
    "darcy_smooth": (678_093, (211, 211), 1),
    "pipe": (783_876, (64, 64), 2),
    "navier_stokes": (2_885_194, (64, 64), 1),
    "helmholtz": (5_351_806, (101, 101), 1),
}
REFERENCE = Path(__file__).parent / "reference" / "mgno.npz"
SHALLOW = [(1, 1), (1, 0), (2, 0)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_weights(name):
    count, grid, channels = PUBLISHED[name]
    make: Any = nn.published_mgno
    model = make(name, key=jax.random.key(0))
    assert model.num_weights == count
    shape = grid if channels == 1 else (*grid, channels)
    assert jax.eval_shape(model, jnp.zeros(shape)).shape == grid


@pytest.mark.parametrize("name", PUBLISHED)
def test_output_and_gradients_are_those_of_pytorch(name):
    load: Any = nn.mgno_from_torch
    with np.load(REFERENCE) as stored:
        part = {k.removeprefix(f"{name}/"): stored[k] for k in stored if k.startswith(f"{name}/")}
    part = {k: np.asarray(v, np.float64) for k, v in part.items()}
    size = part["input"].shape[-1] if name == "darcy_smooth" else None
    named = lambda kind: {k.removeprefix(kind): v for k, v in part.items() if k.startswith(kind)}
    model, slopes = (load(name, named(kind), size=size) for kind in ("weight/", "slope/"))
    u = jnp.asarray(np.moveaxis(part["input"][0], 0, -1))
    product = lambda model: jnp.sum(model(u) * part["cotangent"][0, 0])
    out = part["output"][0, 0]
    np.testing.assert_allclose(model(u), out, rtol=0, atol=1e-6 * np.max(np.abs(out)))
    found = eqx.filter_jit(eqx.filter_grad(product))(model)
    for slope, expected in zip(jax.tree.leaves(found), jax.tree.leaves(slopes), strict=True):
        size = float(jnp.max(jnp.abs(expected)))
        np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6 * size)


def _model(key, boundary: Any = "zero", **options):
    options = {"channels": 4, "num_layers": 2, "smoothing": SHALLOW, **options}
    return nn.mgno(boundary=boundary, **options, key=key)


def _reversed(model, axis):
    """With all kernels of the cycles reversed along an axis of the grid."""
    flip = lambda node: eqx.tree_at(lambda m: m.levels, node, jax.tree.map(kernel, node.levels))
    kernel = lambda leaf: jnp.flip(leaf, axis) if leaf.ndim > 1 else leaf
    return eqx.tree_at(lambda m: m.layers, model, tuple(flip(layer) for layer in model.layers))


@pytest.mark.parametrize("shape", [(16, 12), (11, 9), (13, 8)])
@pytest.mark.parametrize("boundary", ["zero", "symmetric", "reflect", "circular"])
def test_reflected_input_gives_reflected_output(boundary, shape, getkey):
    model, u = _model(getkey(), boundary), jax.random.normal(getkey(), shape)
    for axis in (0, 1):
        found = _reversed(model, axis)(jnp.flip(u, axis))
        np.testing.assert_allclose(found, jnp.flip(model(u), axis), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 8), (8, 7)])
def test_exact_boundary_values_keep_the_reflections(shape, getkey):
    network, u = _model(getkey(), smoothing=[(1, 1), (1, 0)]), jax.random.normal(getkey(), shape)
    values = lambda u, points: nn.transfinite(jnp.sin(u))

    @jax.jit
    def both(network, u):
        wrap = lambda network: nn.Dirichlet(network, values=values)
        return wrap(network)(u), [
            wrap(_reversed(network, axis))(jnp.flip(u, axis)) for axis in (0, 1)
        ]

    found, mirrored = both(network, u)
    for axis, image in enumerate(mirrored):
        np.testing.assert_allclose(image, jnp.flip(found, axis), rtol=0, atol=1e-12)


def test_published_models_do_not_reflect(getkey):
    model = nn.published_mgno("darcy", channels=4, num_layers=1, key=getkey())
    u = jax.random.normal(getkey(), (64, 64))
    assert jnp.max(jnp.abs(_reversed(model, 0)(u[::-1]) - model(u)[::-1])) > 1e-3


def test_periodic_models_commute_with_shifts(getkey):
    # By the distance of the coarsest points.
    model, u = _model(getkey(), "circular"), jax.random.normal(getkey(), (16, 20))
    moved = jnp.roll(u, (4, -8), (0, 1))
    np.testing.assert_allclose(model(moved), jnp.roll(model(u), (4, -8), (0, 1)), atol=1e-12)
    assert jnp.max(jnp.abs(_model(getkey())(moved) - jnp.roll(model(u), (4, -8), (0, 1)))) > 1e-3


def test_mirrors_are_a_periodic_problem_of_twice_the_size(getkey):
    key, u = getkey(), jax.random.normal(getkey(), (16, 8))

    def even(model):
        for axis in (0, 1):
            half = jax.tree.map(lambda a, b: (a + b) / 2, model, _reversed(model, axis))
            model = half
        return model

    twice = lambda u: jnp.block([[u, u[:, ::-1]], [u[::-1], u[::-1, ::-1]]])
    mirrored, periodic = (even(_model(key, name)) for name in ("symmetric", "circular"))
    np.testing.assert_allclose(periodic(twice(u)), twice(mirrored(u)), rtol=0, atol=1e-12)


ANY: dict[int, Any] = {1: [(50,), (9,)], 2: [(211, 211), (101, 101), (85, 61)], 3: [(9, 10, 12)]}


@pytest.mark.parametrize("ndim", ANY)
def test_one_network_on_any_grid(ndim, getkey):
    model = _model(getkey(), channels=2, num_layers=1, ndim=ndim)
    for shape in ANY[ndim]:
        found = eqx.filter_jit(model)(jax.random.normal(getkey(), shape))
        assert found.shape == shape and bool(jnp.all(jnp.isfinite(found)))


def test_on_fine_grids_it_tends_to_a_local_operator(getkey):
    """Without training anew on a finer grid: kernels of a fixed width in pixels see less and less
    of the function, and what is left is what they do to constants, at first order."""
    model = _model(getkey(), "circular", channels=2, num_layers=1, ndim=1)
    local = jax.jit(jax.vmap(lambda c: model(jnp.full(8, c))[0]))
    errors = []
    for n in (512, 1024, 2048):
        u = jnp.asarray(np.sin(2 * np.pi * np.arange(n) / n))
        # Where the coarsest points are.
        found, limit = eqx.filter_jit(model)(u)[::4], local(u[::4])
        errors.append(float(jnp.max(jnp.abs(found - limit))))
    assert errors[0] < 0.1 * float(jnp.ptp(limit))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.05)


def test_cycles_roll_out_the_heat_equation(getkey):
    """With the weights of explicit steps, by `lax.scan`: modes decay by their factors, on every
    grid with the same weights."""
    cycle = _model(getkey(), channels=1, num_layers=1, smoothing=[(1, 0)], ndim=1).layers[0]
    stencil = jnp.array([0.3, 0.4, 0.3])[:, None, None]
    cycle = eqx.tree_at(lambda c: c.levels[0].before[0].s.weight, cycle, stencil)

    @jax.jit
    def roll_out(u):
        def step(u, _):
            after = cycle(u)
            return after, after

        return jax.lax.scan(step, u, length=30)[1]

    for n in (20, 31):
        angle = np.pi * 3 / (n + 1)
        mode = np.sin(angle * np.arange(1, n + 1))
        factors = (0.4 + 0.6 * np.cos(angle)) ** np.arange(1, 31)
        found = roll_out(jnp.asarray(mode[:, None]))[..., 0]
        np.testing.assert_allclose(found, factors[:, None] * mode, rtol=0, atol=1e-12)


def test_constants_pass_between_the_levels(getkey):
    # Weights that interpolate constants on grids of even size do so on those of odd size.
    cycle = _model(getkey(), "symmetric", channels=1, num_layers=1, smoothing=[(1, 0)] * 2).layers[
        0
    ]
    taps = np.array([0.25, 0.75, 0.75, 0.25])
    up = jnp.asarray(np.outer(taps, taps)[..., None, None])
    cycle = eqx.tree_at(lambda m: m.levels[0].up.weight, cycle, up)
    for shape in ((8, 12), (7, 9), (8, 9)):
        coarse = tuple(-(-n // 2) for n in shape)
        found = cycle._up(cycle.levels[0].up, jnp.ones((*coarse, 1)), shape)
        np.testing.assert_allclose(found, 1, rtol=1e-12)


def test_compiled_batched_and_differentiated(getkey):
    small: Any = {"num_layers": 1, "smoothing": [(1, 1), (1, 0)]}
    model = _model(getkey(), in_channels=2, out_channels=3, **small)
    u = jax.random.normal(getkey(), (3, 4, 5, 2))
    found = jax.jit(jax.vmap(model))(u)
    assert found.shape == (3, 4, 5, 3)
    np.testing.assert_allclose(found[1], model(u[1]), rtol=1e-12)
    one = jax.jit(lambda u: model(jnp.asarray(u)))
    jax.test_util.check_grads(one, (u[0],), 1, rtol=1e-5)
    single = model(u[0].astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, found[0], atol=1e-5)


WRONG: dict[str, Any] = {
    "channels": (lambda k: nn.mgno(channels=0, key=k), "`channels` must be at least 1"),
    "ndim": (lambda k: nn.mgno(ndim=4, key=k), "`ndim` must be 1, 2 or 3"),
    "no step": (lambda k: nn.mgno(smoothing=[(0, 1), (1, 0)], key=k), "at least one step before"),
    "last": (lambda k: nn.mgno(smoothing=[(1, 0), (1, 1)], key=k), r"end with a pair \(n, 0\)"),
    "small": (lambda k: _model(k)(jnp.ones((3, 9))), "at least 4 points along each axis"),
    "grid": (
        lambda k: _model(k)(jnp.ones((3, 9, 2))),
        "2 axes of points and 1 channels last",
    ),
    "normalised": (
        lambda k: nn.published_mgno("navier_stokes", size=32, key=k)(jnp.ones((64, 64))),
        r"the grid of the published normalisation, \(4, 4\) at this level",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name, getkey):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make(getkey())


def test_weights_of_another_model_are_named():
    with np.load(REFERENCE) as stored:
        prefix = "pipe/weight/"
        weights = {k.removeprefix(prefix): stored[k] for k in stored if k.startswith(prefix)}
    with pytest.raises(ValueError, match=r"linear_list.0.weight of shape \(2, 1, 1, 1\)"):
        nn.mgno_from_torch("darcy", weights)
    few = {k: v for k, v in weights.items() if "RTlayers.2" not in k}
    with pytest.raises(ValueError, match="conv_list.0.RTlayers.2.weight, which is missing"):
        nn.mgno_from_torch("pipe", few)
    with pytest.raises(ValueError, match="has no head.bias"):
        nn.mgno_from_torch("pipe", {**weights, "head.bias": np.zeros(1)})
