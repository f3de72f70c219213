"""Multigrid and the other preconditioners: symmetric, positive, and a few steps at every size."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import jinv
from jinv.linear import (
    PCG,
    Chebyshev,
    Diffusion,
    FastPoisson,
    Jacobi,
    Multigrid,
    MultigridWeights,
    convergence_loss,
    heterogeneous_diffusion,
    poisson,
    pressure_poisson,
    random_coefficient,
    random_obstacles,
    random_source,
)
from jinv.linear._coarsen import Coarsening
from jinv.linear._red_black import RedBlack


pytestmark = pytest.mark.usefixtures("quick_compilation")


def _matrix(operator):
    matrix = np.asarray(operator.as_matrix())
    n = int(matrix.size**0.5)
    return matrix.reshape(n, n)


def _random_weights(rng, size=1.0):
    """Trainable weights with arbitrary values: what no training would give."""
    weights = MultigridWeights(2, trainable=True)
    values, structure = jax.tree.flatten(eqx.filter(weights, eqx.is_array))
    values = [x + jnp.asarray(size * rng.normal(size=x.shape), x.dtype) for x in values]
    return eqx.combine(jax.tree.unflatten(structure, values), weights)


def _operators(rng):
    jumps = lambda shape: jnp.asarray(np.where(rng.random(shape) > 0.5, 1e3, 1.0))
    cells = jnp.asarray(rng.integers(0, 2, (46, 41)))  # three levels: F is no V
    yield "line", heterogeneous_diffusion(jumps(600))
    yield "jumps", heterogeneous_diffusion(jumps((24, 25)), shift=0.1)
    yield "obstacles", pressure_poisson(cells, open_sides=[(1, 0)])
    yield "cube", heterogeneous_diffusion(jumps((9, 8, 10)))


@pytest.mark.parametrize("shape", [(5,), (6,), (4, 6), (5, 7), (1, 9), (4, 4, 6), (3, 5, 7)])
def test_red_black_layout(shape, rng):
    layout = RedBlack(shape)
    x = jnp.asarray(rng.normal(size=shape))
    red, black = layout.pack(x)
    np.testing.assert_array_equal(layout.unpack(red, black), x)
    # The neighbour along an axis is one stride away in the flat grid of both colours.
    flat = np.zeros(2 * layout.size + layout.strides[0])
    flat[0 : 2 * layout.size : 2], flat[1 : 2 * layout.size : 2] = red, black
    for axis, stride in enumerate(layout.strides):
        assert stride % 2 == 1
        for cell in itertools.islice(np.ndindex(*shape), 40):
            other = tuple(c + (a == axis) for a, c in enumerate(cell))
            index = sum(c * s for c, s in zip(cell, layout.strides, strict=True))
            assert flat[index] == x[cell]
            assert flat[index + stride] == (x[other] if other[axis] < shape[axis] else 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_coarse_operators(axis):
    """On uniform grids: half the weights along the axis, twice across, interpolation 1/4."""
    coarse, alpha = Coarsening()(poisson((16, 16)), axis)
    alpha, along, across = (
        jnp.moveaxis(x, axis, 0) for x in (alpha, coarse.faces[axis], coarse.faces[1 - axis])
    )
    np.testing.assert_allclose(alpha[1:-1], 0.25, rtol=1e-12)
    np.testing.assert_allclose(along[2:-2], 0.5, rtol=1e-12)
    np.testing.assert_allclose(across[1:-1], 2, rtol=1e-12)


def test_coarsening_keeps_walls_and_constants(rng):
    faces = jnp.ones((17, 16)).at[:, :].set(1.0)
    wall = faces.at[9].set(0.0).at[0].set(0.0).at[16].set(0.0)  # inside a pair of rows
    operator = Diffusion([wall, jnp.zeros((16, 17))])
    coarse, alpha = Coarsening()(operator, 0)
    # From one side of the wall to the other there is a thousandth of a link at most.
    assert coarse.faces[0][4].max() < 2e-3 and coarse.faces[0][5].max() < 2e-3
    assert alpha.min() >= 0 and alpha.max() <= 1
    # A coarse operator has no row sums where the fine one has none.
    shape = (12, 12)
    closed = heterogeneous_diffusion(jnp.asarray(rng.random(shape) + 0.1), boundary="neumann")
    coarse, _ = Coarsening()(closed, 0)
    np.testing.assert_allclose(coarse.mv(jnp.ones((6, 12))), 0, atol=1e-14)


def test_coarse_energy_is_about_the_galerkin_energy(rng):
    """`P^T A P <= 2 A_c` for one axis, whatever the coefficient; and not far below it."""
    k = jnp.asarray(np.exp(2 * rng.normal(size=(12, 10))))
    operator = heterogeneous_diffusion(k)
    coarse, alpha = Coarsening()(operator, 0)

    def interpolate(x):
        fine = jnp.repeat(x, 2, axis=0)
        before = jnp.repeat(jnp.pad(x, ((1, 0), (0, 0)))[:-1], 2, axis=0)
        after = jnp.repeat(jnp.pad(x, ((0, 1), (0, 0)))[1:], 2, axis=0)
        even = (jnp.arange(12) % 2 == 0)[:, None]
        return (1 - alpha) * fine + alpha * jnp.where(even, before, after)

    basis = jnp.eye(60).reshape(60, 6, 10)
    p = np.asarray(jax.vmap(interpolate)(basis)).reshape(60, 120).T
    galerkin = p.T @ _matrix(operator) @ p
    values = np.linalg.eigvals(np.linalg.solve(_matrix(coarse), galerkin)).real
    assert 0.01 < values.min() and values.max() <= 2


RULES = {
    "V": Multigrid(cycle="V"),
    "two sweeps": Multigrid(sweeps=2),
    "W": Multigrid(cycle="W"),
    "F": Multigrid(),
    "random": "random",
    "Jacobi": Jacobi(),
    "Chebyshev": Chebyshev(4),
    "FastPoisson": FastPoisson(),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("which", range(4))
def test_symmetric_and_positive_definite(name, which, rng):
    rule = RULES[name] if name != "random" else Multigrid(_random_weights(rng))
    _, operator = list(_operators(rng))[which]
    inverse = jax.jit(lambda A: rule.init(A).as_matrix())(operator)
    inverse = np.asarray(inverse).reshape(operator.sink.size, operator.sink.size)
    np.testing.assert_allclose(inverse, inverse.T, rtol=0, atol=1e-9 * abs(inverse).max())
    # Scaled to a unit diagonal: cells differ by orders of magnitude. Empty rows stay empty.
    inverse = inverse[np.ix_(*[np.asarray(operator.diagonal()).ravel() > 0] * 2)]
    scale = np.sqrt(np.diag(inverse))
    assert scale.min() > 0
    assert np.linalg.eigvalsh(inverse / scale / scale[:, None])[0] > -1e-13


@pytest.mark.parametrize("which", range(4))
def test_reduced_system_is_the_schur_complement(which, rng):
    _, operator = list(_operators(rng))[which]
    rule = Multigrid(_random_weights(rng, 0.3))
    layout = RedBlack(operator.shape)
    x = jnp.where(operator.diagonal() > 0, jnp.asarray(rng.normal(size=operator.shape)), 0)
    b = operator.mv(x)
    reduction, cycle = eqx.filter_jit(lambda A: (rule.reduce(A), rule.init(A)))(operator)
    assert reduction is not None
    rhs, _ = reduction.restrict(b, None)
    red, _ = layout.pack(x)
    np.testing.assert_allclose(reduction.operator.mv(red), rhs, atol=1e-12 * abs(rhs).max())
    np.testing.assert_allclose(reduction.extend(red, b), x, atol=1e-10)
    # The cycle on the reduced system is the red part of the cycle on the whole one.
    whole = cycle.mv(layout.unpack(red, jnp.zeros_like(red)))
    expected, _ = layout.pack(whole)
    value = reduction.preconditioner.mv(red)
    np.testing.assert_allclose(value, expected, atol=1e-12 * float(abs(expected).max()))


def _steps(operator, rng, preconditioner, rtol=1e-6):
    b = random_source(operator, key=jax.random.key(int(rng.integers(1000))))
    solver = PCG(rtol, 0.0, preconditioner)
    solution = eqx.filter_jit(lx.linear_solve)(operator, b, solver, throw=False)
    assert solution.result == lx.RESULTS.successful
    true = jnp.linalg.norm(b - operator.mv(solution.value)) / jnp.linalg.norm(b)
    assert true <= 1.01 * rtol
    return int(solution.stats["num_steps"])


@pytest.mark.parametrize("seed", range(2))
def test_few_steps_among_obstacles(seed, rng):
    cells = random_obstacles((97, 130), key=jax.random.key(seed))
    assert 0.02 < jnp.mean(cells) < 0.7
    assert _steps(pressure_poisson(cells, open_sides=[(0, 1)]), rng, Multigrid()) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256,) * 2, (512,) * 2, (1024,) * 2, (64,) * 3, (128,) * 3])
def test_few_steps_at_every_size(shape, rng):
    for seed in range(3):
        cells = random_obstacles(shape, key=jax.random.key(seed))
        assert _steps(pressure_poisson(cells, open_sides=[(0, 1)]), rng, Multigrid()) <= 9


def test_narrow_channel_behind_a_thin_wall(rng):
    """Two cells wide and closed at one end, as is half of the pairs of the third grid: a coarse
    grid that leaks through the wall cannot correct it."""
    cells = np.zeros((128, 128), int)
    cells[40:, 124:126] = 1
    operator = pressure_poisson(jnp.asarray(cells), open_sides=[(0, 0)])
    assert _steps(operator, rng, Multigrid()) <= 7


def test_free_surface_channels_and_shift(rng):
    cells = np.zeros((64, 80), int)
    cells[40:] = 2  # air
    cells[10:30, 20:22] = 1
    assert _steps(pressure_poisson(jnp.asarray(cells)), rng, Multigrid()) <= 12
    labyrinth = np.zeros((64, 64), int)  # channels of one cell
    labyrinth[1::2] = 1
    labyrinth[1::4, 0] = 0
    labyrinth[3::4, -1] = 0
    channel = pressure_poisson(jnp.asarray(labyrinth), open_sides=[(0, 0)])
    b = jnp.where(channel.active(), 1.0, 0.0)
    # A line of 2000 cells with the geometry of a plane: slow, but right.
    solution = lx.linear_solve(channel, b, PCG(1e-8, 0.0, Multigrid()), throw=False)
    true = jnp.linalg.norm(b - channel.mv(solution.value)) / jnp.linalg.norm(b)
    assert solution.result == lx.RESULTS.successful and true <= 1e-8
    shifted = heterogeneous_diffusion(jnp.ones((64, 64)), shift=10.0)
    assert _steps(shifted, rng, Multigrid()) <= 6


def test_jumps_and_anisotropy(rng):
    jumps = heterogeneous_diffusion(random_coefficient((48, 48), key=jax.random.key(1)))
    assert _steps(jumps, rng, Multigrid()) <= 25
    tensor = [jnp.ones((48, 32)), 1e-3 * jnp.ones((48, 32))]
    skew = heterogeneous_diffusion(tensor)
    told = _steps(skew, rng, Multigrid(anisotropy=(1.0, 1e-3)))
    assert told <= 12 and told < 0.5 * _steps(skew, rng, Multigrid())


def test_nothing_to_solve(rng):
    solid = pressure_poisson(jnp.ones((40, 40), int))
    b = jnp.asarray(rng.normal(size=(40, 40)))
    solution = lx.linear_solve(solid, b, PCG(1e-6, 0.0, Multigrid()))
    np.testing.assert_allclose(solution.value, b, rtol=1e-12)
    tiny = poisson((3, 2))
    solution = lx.linear_solve(tiny, b[:3, :2], PCG(1e-10, 0.0, Multigrid()))
    np.testing.assert_allclose(tiny.mv(solution.value), b[:3, :2], atol=1e-9)


def test_fast_poisson_is_exact_on_boxes(rng):
    for boundary, faces in {
        (("neumann", "neumann"), ("neumann", "neumann")): (0, 0, 0, 0),
        (("dirichlet", "dirichlet"), ("neumann", "neumann")): (2, 2, 0, 0),
        (("neumann", "dirichlet"), ("dirichlet", "neumann")): (0, 2, 2, 0),
    }.items():
        w0 = jnp.ones((13, 9)).at[0].set(faces[0]).at[-1].set(faces[1])
        w1 = jnp.ones((12, 10)).at[:, 0].set(faces[2]).at[:, -1].set(faces[3])
        operator = Diffusion([w0, w1])
        x = jnp.asarray(rng.normal(size=(12, 9)))
        x = x - jnp.mean(x)
        # The rule averages the weights that are there: all of them one for this test.
        unit = Diffusion([jnp.where(w0 > 0, 1.0, 0.0), jnp.where(w1 > 0, 1.0, 0.0)])
        value = FastPoisson(boundary).init(unit).mv(operator.mv(x))
        np.testing.assert_allclose(value, x, atol=1e-11)


def test_dtype_of_the_cycle(rng):
    operator = poisson((24, 24))
    narrow = Multigrid(dtype=jnp.float32)
    assert _steps(operator, rng, narrow, 1e-9) <= _steps(operator, rng, Multigrid(), 1e-9) + 1
    cycle, value = jax.eval_shape(
        lambda A, x: (narrow.init(A), narrow.init(A).mv(x)), operator, operator.in_structure()
    )
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(cycle))
    assert value.dtype == jnp.float64


def test_untrained_weights_change_nothing_and_training_pays(rng):
    operator = heterogeneous_diffusion(random_coefficient((14, 14), key=jax.random.key(3)))
    b = jnp.asarray(rng.normal(size=(14, 14)))
    weights = MultigridWeights(1, trainable=True)
    loss = jax.jit(lambda w: convergence_loss(Multigrid(w), operator, b, steps=4))
    default = convergence_loss(Multigrid(), operator, b, steps=4)
    np.testing.assert_allclose(loss(weights), default, rtol=1e-6)
    residuals = lx.linear_solve(
        operator, b, PCG(0.0, 0.0, Multigrid(), max_steps=4), throw=False
    ).stats["residual"]
    np.testing.assert_allclose(default, jnp.log(residuals) / 4, rtol=1e-9)
    gradient = jax.jit(jax.grad(loss))(weights)
    where = lambda w: w.levels[0][1].strength.coefficients
    step = jnp.zeros(6, jnp.float32).at[0].set(1e-3)
    f = [loss(eqx.tree_at(where, weights, s * step)) for s in (1, -1, 2, -2)]
    difference = (8 * (f[0] - f[1]) - (f[2] - f[3])) / 12e-3
    np.testing.assert_allclose(where(gradient)[0], difference, rtol=1e-3)


def test_bad_input_is_named():
    operator = poisson((40, 40))
    cases = [
        (lambda: Multigrid(cycle="X"), "cycle"),
        (lambda: Multigrid(sweeps=0), "sweeps"),
        (lambda: Multigrid(anisotropy=(1.0, -1.0)), "anisotropy"),
        (lambda: Multigrid(anisotropy=(1.0,)).init(operator), "anisotropy"),
        (lambda: Multigrid(dtype=int), "dtype"),
        (lambda: Multigrid().init(lx.DiagonalLinearOperator(jnp.ones(3))), "Diffusion"),
        (lambda: MultigridWeights(0), "depth"),
        (lambda: convergence_loss(Multigrid(), operator, jnp.ones((40, 40)), steps=0), "steps"),
        (lambda: jinv.linear.random_obstacles((0, 3), key=jax.random.key(0)), "shape"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError, match=words):
            make()
