"""Grid operators: the matrices they stand for, their null spaces, and what they refuse."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jinv.linear import (
    Diffusion,
    heterogeneous_diffusion,
    null_space,
    poisson,
    pressure_poisson,
    random_coefficient,
)


def _matrix(operator):
    n = operator.sink.size
    return np.asarray(operator.as_matrix()).reshape(n, n)


def _assembled(faces, sink):
    """The matrix entry by entry, from the definition."""
    shape = sink.shape
    ids = np.arange(sink.size).reshape(shape)
    matrix = np.diag(np.asarray(sink, float).ravel())
    for cell in np.ndindex(*shape):
        for axis in range(len(shape)):
            for side in (0, 1):
                face = tuple(c + side * (a == axis) for a, c in enumerate(cell))
                other = tuple(c + (2 * side - 1) * (a == axis) for a, c in enumerate(cell))
                weight = faces[axis][face]
                matrix[ids[cell], ids[cell]] += weight
                if all(0 <= c < n for c, n in zip(other, shape, strict=True)):
                    matrix[ids[cell], ids[other]] -= weight
    return matrix


@pytest.mark.parametrize("shape", [(1,), (5,), (4, 3), (1, 4), (3, 2, 4)])
def test_product_is_the_definition(shape, rng):
    faces = [rng.random([n + (a == b) for b, n in enumerate(shape)]) for a in range(len(shape))]
    sink = rng.random(shape)
    operator = Diffusion([jnp.asarray(w) for w in faces], jnp.asarray(sink))
    expected = _assembled(faces, sink)
    np.testing.assert_allclose(_matrix(operator), expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(operator.diagonal().ravel(), np.diag(expected), rtol=1e-14)
    np.testing.assert_allclose(lx.diagonal(operator), np.diag(expected), rtol=1e-14)
    assert lx.is_symmetric(operator) and lx.is_positive_semidefinite(operator)
    assert operator.T is operator


def test_poisson_is_the_textbook_stencil():
    line = 2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)
    expected = np.kron(line, np.eye(4)) / 0.25 + np.kron(np.eye(4), line)
    np.testing.assert_allclose(_matrix(poisson((4, 4), spacing=(0.5, 1.0))), expected)
    singular = _matrix(poisson((4, 4), boundary="neumann"))
    np.testing.assert_allclose(singular.sum(axis=1), 0, atol=1e-15)


def test_heterogeneous_diffusion_keeps_the_flux_over_a_jump():
    # Between zero walls with a unit source at one end, in 1-D: solved by hand, layer by layer.
    k = jnp.array([1.0, 1.0, 1000.0, 1000.0])
    matrix = _matrix(heterogeneous_diffusion(k, spacing=0.25))
    x = np.linalg.solve(matrix, np.array([0.0, 1.0, 0.0, 0.0]))
    flux = -2 / (1 / k[1:] + 1 / k[:-1]) * np.diff(x) / 0.25
    np.testing.assert_allclose(flux[1], flux[2], rtol=1e-9)
    np.testing.assert_allclose(x[0] * 2 / 0.25, -flux[0], rtol=1e-9)


def test_second_order_convergence_to_a_manufactured_solution():
    errors = []
    for n in (16, 32):
        x = (np.arange(n) + 0.5) / n
        grid = np.meshgrid(x, x, indexing="ij")
        k = 1 + 0.5 * np.sin(np.pi * grid[0])
        exact = np.sin(np.pi * grid[0]) * np.sin(2 * np.pi * grid[1])
        slope = 0.5 * np.pi * np.cos(np.pi * grid[0])
        gradient = np.pi * np.cos(np.pi * grid[0]) * np.sin(2 * np.pi * grid[1])
        source = 5 * np.pi**2 * k * exact - slope * gradient + 3 * exact
        operator = heterogeneous_diffusion(jnp.asarray(k), spacing=1 / n, shift=3.0)
        value = np.linalg.solve(_matrix(operator), source.ravel()).reshape(n, n)
        errors.append(np.abs(value - exact).max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_anisotropic_tensor():
    one, ten = jnp.ones((3, 3)), 10 * jnp.ones((3, 3))
    operator = heterogeneous_diffusion([one, ten], boundary=["neumann", "dirichlet"])
    assert operator.faces[0].max() == 1 and operator.faces[0][0].max() == 0
    assert operator.faces[1][:, 1].min() == 10 and operator.faces[1][:, 0].min() == 20


def test_pressure_poisson_is_the_definition():
    cells = np.zeros((5, 6), int)
    cells[1, 2:4] = 1
    cells[4, :] = 2
    cells[4, 0] = 1
    matrix = _matrix(pressure_poisson(jnp.asarray(cells), open_sides=[(1, 1)]))
    ids = np.arange(30).reshape(5, 6)
    expected = np.zeros((30, 30))
    for i, j in np.ndindex(5, 6):
        if cells[i, j]:
            expected[ids[i, j], ids[i, j]] = 1
            continue
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            a, b = i + di, j + dj
            if b == 6:  # the open side
                expected[ids[i, j], ids[i, j]] += 1
            elif 0 <= a < 5 and 0 <= b < 6 and cells[a, b] != 1:
                expected[ids[i, j], ids[i, j]] += 1
                if cells[a, b] == 0:
                    expected[ids[i, j], ids[a, b]] = -1
    np.testing.assert_array_equal(matrix, expected)


def test_null_space_has_one_indicator_per_closed_region():
    cells = np.zeros((6, 9), int)
    cells[:, 3] = 1
    cells[:, 6] = 1
    operator = pressure_poisson(jnp.asarray(cells), open_sides=[(1, 1)])
    basis = null_space(operator)
    assert basis.shape == (2, 6, 9)
    for v in basis:
        np.testing.assert_array_equal(operator.mv(v), 0)
    rank = np.linalg.matrix_rank(_matrix(operator))
    assert rank == 54 - 2
    assert null_space(poisson((3, 3))).shape == (0, 3, 3)


def test_batches_of_geometries(rng):
    cells = jnp.asarray(rng.integers(0, 2, (3, 4, 5)))
    x = jnp.asarray(rng.random((3, 4, 5)))
    products = jax.jit(jax.vmap(lambda c, x: pressure_poisson(c).mv(x)))(cells, x)
    for lane in range(3):
        alone = pressure_poisson(cells[lane]).mv(x[lane])
        np.testing.assert_allclose(products[lane], alone)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_kept(dtype):
    for operator in (
        poisson((3, 4), dtype=dtype),
        pressure_poisson(jnp.zeros((3, 4), int), dtype=dtype),
        heterogeneous_diffusion(jnp.ones((3, 4), dtype)),
    ):
        assert operator.mv(jnp.ones((3, 4), dtype)).dtype == dtype


ones = jnp.ones


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Diffusion([]), "faces"),
        (lambda: Diffusion([ones((4, 3)), ones((3, 3))]), r"faces\[a\]"),
        (lambda: Diffusion([-ones(4)]), "non-negative"),
        (lambda: Diffusion([ones(4).at[0].set(jnp.nan)]), "finite"),
        (lambda: Diffusion([ones(4, int)]), "real"),
        (lambda: Diffusion([ones(4)], ones(4)), "sink"),
        (lambda: Diffusion([ones(4)], ones(3, jnp.float32)), "sink"),
        (lambda: Diffusion([ones(4)], -ones(3)), "sink"),
        (lambda: Diffusion([ones(4)]).mv(ones(4)), "shape"),
        (lambda: poisson((0, 3)), "shape"),
        (lambda: poisson(3, spacing=0.0), "spacing"),
        (lambda: poisson(3, boundary="periodic"), "boundary"),
        (lambda: poisson(3, dtype=int), "dtype"),
        (lambda: heterogeneous_diffusion(-ones((3, 3))), "coefficient"),
        (lambda: heterogeneous_diffusion([ones((3, 3))]), "coefficient"),
        (lambda: heterogeneous_diffusion(ones((3, 3)), boundary="open"), "boundary"),
        (lambda: heterogeneous_diffusion(ones((3, 3)), shift=-1.0), "sink"),
        (lambda: pressure_poisson(jnp.full((3, 3), 7)), "cells"),
        (lambda: pressure_poisson(ones((3, 3))), "integers"),
        (lambda: pressure_poisson(jnp.zeros((3, 3), int), open_sides=[(2, 0)]), "open_sides"),
        (
            lambda: random_coefficient((3,), key=jax.random.key(0), contrast=0.0),
            "contr",
        ),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
