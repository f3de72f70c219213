"""Boundary values: met bit by bit by every network, with free slopes, on sides, in time steps."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jinv import nn


pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYER: dict[str, Any] = {"num_layers": 1, "smoothing": [(1, 0), (1, 0)]}
MAKE: dict[str, Any] = {
    "mgno": lambda ndim, key: nn.mgno(channels=2, ndim=ndim, **LAYER, key=key),
    "fno": lambda ndim, key: nn.FNO(1, 1, 2, 2, 1, ndim=ndim, projection=(3,), key=key),
    "unet": lambda ndim, key: nn.UNet(1, 1, 2, 1, groups=1, ndim=ndim, key=key),
    "galerkin": lambda ndim, key: nn.GalerkinTransformer(1, 1, 4, 1, heads=2, ndim=ndim, key=key),
}
GRIDS = {1: (9,), 2: (6, 9), 3: (4, 5, 6)}
CASES = [
    ("float32", "mgno", ("both",), None),
    ("float64", "mgno", ("both", "both"), None),
    ("float32", "mgno", ("lower", "none", "both"), [(-1.0, 2.0), (0.0, 1.0), (0.1, 0.3)]),
    ("float32", "fno", ("upper", "both"), [(0.1, 0.3), (-1.0, 1 / 3)]),
    ("float64", "fno", ("both", "both", "both"), [(0.1, 0.3), (-1.0, 1 / 3), (0.7, 1.1)]),
    ("float64", "unet", ("none", "upper"), None),
    ("float32", "unet", ("lower",), [(-0.7, 0.1)]),
    ("float64", "galerkin", ("both", "lower"), None),
]


def _filled(make, rng):
    """With random weights, so that no norm or bias is trivial."""
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape)), shapes)


def _on_sides(grid, sides):
    found = np.zeros(grid, bool)
    for axis, side in enumerate(sides):
        rows = np.moveaxis(found, axis, 0)
        if side in ("lower", "both"):
            rows[0] = True
        if side in ("upper", "both"):
            rows[-1] = True
    return found


def _smooth(u, points):
    return jnp.exp(points[..., 0]) + 3 * jnp.sin(5 * points[..., -1])


def _factor(grid, sides):
    found = np.ones(grid)
    for axis, side in enumerate(sides):
        t = np.linspace(0, 1, grid[axis])
        named = {"lower": t, "upper": 1 - t, "both": 4 * t * (1 - t)}
        along = named.get(side, np.ones_like(t))
        found = found * along.reshape([-1 if a == axis else 1 for a in range(len(grid))])
    return found


@pytest.mark.parametrize("dtype, name, sides, box", CASES)
def test_boundary_values_are_met_bit_by_bit(dtype, name, sides, box, rng):
    ndim = len(sides)
    grid, on_sides = GRIDS[ndim], _on_sides(GRIDS[ndim], sides)
    network = _filled(lambda key: MAKE[name](ndim, key), rng)
    u = jnp.asarray(rng.normal(size=grid), dtype)
    ends = [(0.0, 1.0)] * ndim if box is None else box
    axes = [jnp.linspace(*pair, n, dtype=dtype) for pair, n in zip(ends, grid, strict=True)]
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
    extended = lambda u, points: nn.transfinite(u, ndim, sides=sides)
    expected = [jnp.zeros_like(u), jnp.full_like(u, -0.7), _smooth(u, points), u]

    @jax.jit
    def evaluate(u):
        wrap = lambda values: nn.Dirichlet(network, ndim, sides=sides, values=values, box=box)
        return network(u), [wrap(values)(u) for values in (0.0, -0.7, _smooth, extended)]

    plain, found = evaluate(u)
    assert all(f.dtype == dtype and f.shape == grid for f in found)
    for one, values in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[on_sides], values[on_sides])
    inside = _factor(grid, sides) * np.asarray(plain)
    assert np.max(np.abs(inside)) > 0.1
    atol = 1e-12 if dtype == "float64" else 1e-4
    for one, values in zip(found[:3], expected, strict=False):
        np.testing.assert_allclose(one, np.asarray(values) + inside, rtol=0, atol=atol)


def _at_points(rng, **options):
    network = _filled(
        lambda key: nn.MultiONet([3, 5, 5], [2, 5, 5], weighting="per_layer", key=key), rng
    )
    return network, nn.Dirichlet(network, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_boundary_values_at_points(dtype, rng):
    box = [(-0.3, 0.1), (0.1, 2.7)]
    _, model = _at_points(rng, sides=("both", "upper"), values=_smooth, box=box)
    u, x = jnp.asarray(rng.normal(size=3), dtype), rng.uniform(*np.transpose(box), (4, 2))
    call = jax.jit(lambda u, points: model(u, points))
    smooth = jax.jit(_smooth)
    for axis, place in ((0, -0.3), (0, 0.1), (1, 2.7)):
        points = jnp.asarray(x, dtype).at[:, axis].set(place)
        np.testing.assert_array_equal(call(u, points), smooth(u, points))
    points = jnp.asarray(x, dtype).at[:, 1].set(0.1)
    assert bool(jnp.all(call(u, points) != smooth(u, points)))


def test_slopes_at_the_boundary_are_those_of_the_product(rng):
    """As residuals and fluxes of a physics-informed loss need them."""
    network, model = _at_points(rng, values=_smooth, box=[(-1.0, 1.0), (0.0, 3.0)])
    u, y = jnp.asarray(rng.normal(size=3)), 1.2
    slope = jax.jit(jax.grad(lambda x: model(u, x)))
    across = 4 * y * (3 - y) / 9
    for x, d in ((-1.0, 2.0), (1.0, -2.0)):
        point = jnp.array([x, y])
        expected = np.exp(x) + d * across * float(network(u, point)), 15 * np.cos(5 * y)
        np.testing.assert_allclose(slope(point), expected, rtol=1e-12)


def test_derivatives(rng):
    network = _filled(lambda key: MAKE["fno"](2, key), rng)
    u = jnp.asarray(rng.normal(size=(5, 6)))
    values = lambda u, points: nn.transfinite(jnp.sin(u))
    wrapped = lambda network, u: nn.Dirichlet(network, values=values)(u)
    value = jax.jit(lambda *args: jnp.sum(jnp.cos(wrapped(*args))))
    slopes = jax.jit(jax.grad(value, (0, 1)))(network, u)
    assert all(bool(jnp.any(slope != 0)) for slope in jax.tree.leaves(slopes))
    jax.test_util.check_grads(value, (network, u), 1, modes=["rev"])
    # At the boundary the weights have no part in the output.
    on_sides = _on_sides((5, 6), ("both", "both"))
    pushed = jax.jit(lambda n: jax.jvp(lambda n: wrapped(n, u), (n,), (n,))[1])(network)
    np.testing.assert_array_equal(pushed[on_sides], 0)
    assert bool(jnp.all(pushed[~on_sides] != 0))


def test_channels(rng):
    make = lambda key: nn.FNO(2, 3, 2, 2, 1, projection=(), key=key)
    network, u = _filled(make, rng), jnp.asarray(rng.normal(size=(4, 6, 5, 2)))
    on_sides = _on_sides((6, 5), ("both", "both"))
    one, all_of_them = (lambda u, points: u[..., 0]), (lambda u, points: u[..., [0, 1, 0]])
    for values, expected in ((one, u[..., [0, 0, 0]]), (all_of_them, u[..., [0, 1, 0]])):
        model = nn.Dirichlet(network, values=values)
        found = jax.jit(lambda u, model=model: jax.vmap(model)(u))(u)
        assert found.shape == (4, 6, 5, 3)
        np.testing.assert_array_equal(found[:, on_sides], expected[:, on_sides])
    with pytest.raises(ValueError, match=r"`values` must return .* \(6, 5\) or \(6, 5, 3\), got"):
        nn.Dirichlet(network, values=lambda u, points: u)(u[0])
    assert nn.Dirichlet(network).num_weights == network.num_weights


def test_steps_in_time_keep_the_boundary_on_every_grid(rng):
    """One network object in `lax.scan`: as the loop, and with the derivatives of finite
    differences."""
    network = _filled(lambda key: MAKE["mgno"](1, key), rng)
    model = nn.Dirichlet(network, 1, values=lambda u, points: u)

    @jax.jit
    def roll_out(u):
        def step(u, _):
            after = model(u)
            return after, after

        return jax.lax.scan(step, u, length=4)[1]

    one = jax.jit(lambda u: model(u))
    for size in (9, 14):
        u = jnp.asarray(rng.normal(size=size))
        found = roll_out(u)
        np.testing.assert_array_equal(found[:, [0, -1]], np.tile(u[np.array([0, -1])], (4, 1)))
        for state in found:
            u = one(u)
            np.testing.assert_allclose(state, u, rtol=0, atol=1e-12)
    last = jax.jit(lambda u: jnp.sum(jnp.sin(roll_out(u)[-1])))
    jax.test_util.check_grads(last, (jnp.asarray(rng.normal(size=9)),), 1, modes=["rev"])


def _linear_along_one(points, sides):
    """A sum of functions, each linear along one axis with both sides or constant along another."""
    found = np.zeros(points.shape[:-1])
    for axis, side in enumerate(sides):
        others = [points[..., a] for a in range(len(sides)) if a != axis]
        bent = np.cos(3 * np.sum([(i + 1) * x for i, x in enumerate(others)], 0) + axis)
        if side == "both":
            found = found + (axis + 2 - 3 * points[..., axis]) * bent
        elif side != "none":
            found = found + bent
    return found


SIDES = ["both", "lower", "upper", "none"]
TRANSFINITE = [("both",), ("upper",), *itertools.product(SIDES, SIDES)][:-1]
TRANSFINITE += [("both", "both", "both"), ("lower", "both", "none"), ("none", "upper", "both")]


@pytest.mark.parametrize("sides", TRANSFINITE)
def test_transfinite_interpolation(sides, rng):
    ndim = len(sides)
    grid, on_sides = GRIDS[ndim], _on_sides(GRIDS[ndim], sides)
    axes = [np.linspace(0, 1, n) for n in grid]
    values = _linear_along_one(np.stack(np.meshgrid(*axes, indexing="ij"), -1), sides)
    # Nothing inside is used, and channels are for themselves.
    values = np.stack([values, rng.normal(size=grid)], -1)
    given = np.where(on_sides[..., None], values, np.nan)
    found = np.asarray(nn.transfinite(jnp.asarray(given), ndim, sides=sides))
    np.testing.assert_array_equal(found[on_sides], values[on_sides])
    np.testing.assert_allclose(found[..., 0], values[..., 0], rtol=0, atol=1e-12)
    assert np.all(np.isfinite(found))


_make: Any = nn.Dirichlet
_network = lambda u, *points: u
WRONG: dict[str, Any] = {
    "ndim": (lambda: _make(_network, 4), "`ndim` must be 1, 2 or 3"),
    "sides": (lambda: _make(_network, 1, sides=("both",) * 2), "`sides` must be 1 of"),
    "no side": (lambda: _make(_network, sides=("none",) * 2), "not all 'none'"),
    "box": (lambda: _make(_network, box=[(0.0, 1.0), (1.0, 1.0)]), "`box` must be 2 pairs of"),
    "node": (lambda: _make(_network)(jnp.ones((1, 4))), "`u` must have 2 or more nodes"),
    "points": (
        lambda: _make(_network)(jnp.ones(3), jnp.ones((4, 3))),
        r"`points` must have 2 entries along their last axis, got \(4, 3\)",
    ),
    "values": (lambda: nn.transfinite(jnp.ones(3)), "`values` must have 2 axes first"),
    "values at a node": (lambda: nn.transfinite(jnp.ones(1), 1), "`values` must have 2 or more"),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()
