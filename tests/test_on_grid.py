"""Operators of sensors and points as operators on grids."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jinv import nn


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("sensors, grid", [((5,), (17,)), ((3, 5), (9, 5)), ((2, 3, 2), (3, 5, 4))])
def test_sensors_are_interpolated_and_points_are_the_nodes(sensors, grid):
    met = []

    def operator(values, points):
        met.extend((values, points))
        return points[..., 0]

    at_nodes = lambda shape: np.stack(
        np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij"), -1
    )
    nodes = at_nodes(grid)
    multilinear = lambda x: np.prod(x + np.arange(1.0, x.shape[-1] + 1), -1)
    found = nn.OnGrid(operator, sensors)(jnp.asarray(multilinear(nodes)))
    values, points = met
    assert found.shape == grid
    np.testing.assert_allclose(points, nodes, rtol=1e-15)
    np.testing.assert_allclose(values, multilinear(at_nodes(sensors)), rtol=1e-14)


def test_the_same_weights_on_any_grid(getkey):
    network = nn.MultiONet([15, 8, 8], [2, 8, 8], key=getkey())
    model = nn.OnGrid(network, (3, 5))
    smooth = lambda n, m: jnp.asarray(np.sin(np.linspace(0, 1, n)[:, None] + np.linspace(0, 2, m)))
    fine = eqx.filter_jit(model)(smooth(9, 9))
    finer = jax.vmap(model)(smooth(17, 17)[None])[0]
    np.testing.assert_allclose(finer[::2, ::2], fine, rtol=0, atol=1e-3)
    assert model.num_weights == network.num_weights


def test_misuse_is_named(getkey):
    with pytest.raises(ValueError, match=r"`sensors` must be at least 2 .* got \(3, 1\)"):
        nn.OnGrid(lambda u, points: u, (3, 1))
    with pytest.raises(ValueError, match=r"`u` must have 2 axes, got shape \(4,\)"):
        nn.OnGrid(lambda u, points: u, (3, 3))(jnp.ones(4))
