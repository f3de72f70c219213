"""Recycled conjugate gradients: exactness, what the space is, savings, transforms, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jinv.linear import (
    PCG,
    Jacobi,
    RecycledPCG,
    heterogeneous_diffusion,
    poisson,
    solve_sequence,
    sort_systems,
)


PSD = lx.positive_semidefinite_tag
SOLVE = eqx.filter_jit(lx.linear_solve)
SEQUENCE = eqx.filter_jit(solve_sequence)


pytestmark = pytest.mark.usefixtures("quick_compilation")


def coefficients(count, shape=(20, 19), spread=1.0):
    """Fields that go slowly from one to another."""
    y, x = np.meshgrid(*[np.linspace(0, 1, n) for n in shape], indexing="ij")
    t = np.linspace(0, spread, count)[:, None, None]
    waves = np.sin(7 * x + 3 * t) * np.cos(5 * y - t) + (x > 0.5 + 0.1 * t) * 2
    return jnp.asarray(np.exp(2 * waves))


def tagged(matrix):
    return lx.MatrixLinearOperator(jnp.asarray(matrix), PSD)


def gram(operator, space):
    rows = space.reshape(len(space), -1)
    return np.asarray(rows @ jax.vmap(operator.mv)(space).reshape(len(space), -1).T)


@pytest.mark.parametrize("preconditioner", [None, Jacobi()])
def test_solutions_and_spaces(preconditioner, rng):
    k, b = coefficients(5), jnp.asarray(rng.normal(size=(5, 20, 19)))
    solver = RecycledPCG(1e-10, 0.0, preconditioner, dimension=8)
    solution = SEQUENCE(heterogeneous_diffusion, k, b, solver)
    for i in range(5):
        dense = np.asarray(heterogeneous_diffusion(k[i]).as_matrix())
        expected = np.linalg.solve(dense, np.asarray(b[i]).ravel())
        np.testing.assert_allclose(solution.value[i].ravel(), expected, rtol=1e-6)
        residual = np.linalg.norm(dense @ np.asarray(solution.value[i]).ravel() - b[i].ravel())
        np.testing.assert_allclose(
            residual / np.linalg.norm(b[i]), solution.stats["residual"][i], rtol=1e-3
        )
    assert np.all(solution.stats["residual"] <= 1e-10)
    space = solution.stats["deflation"]
    np.testing.assert_allclose(gram(heterogeneous_diffusion(k[-1]), space), np.eye(8), atol=1e-12)


def test_without_a_space_the_steps_are_those_of_pcg(rng):
    A, b = heterogeneous_diffusion(coefficients(1)[0]), jnp.asarray(rng.normal(size=(20, 19)))
    ours = SOLVE(A, b, RecycledPCG(1e-8, 0.0, Jacobi())).stats["num_steps"]
    theirs = SOLVE(A, b, PCG(1e-8, 0.0, Jacobi())).stats["num_steps"]
    assert abs(ours - theirs) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("preconditioner, part", [(None, 0.9), (Jacobi(), 0.6)])
def test_a_sequence_takes_fewer_steps(preconditioner, part, rng):
    k, b = coefficients(6, spread=0.5), jnp.asarray(rng.normal(size=(6, 20, 19)))
    solver = RecycledPCG(1e-8, 0.0, preconditioner, dimension=10)
    steps = SEQUENCE(heterogeneous_diffusion, k, b, solver).stats["num_steps"]
    alone = jax.vmap(
        lambda k, b: lx.linear_solve(
            heterogeneous_diffusion(k), b, PCG(1e-8, 0.0, preconditioner)
        ).stats["num_steps"]
    )(k, b)
    assert int(steps[1:].sum()) < part * int(alone[1:].sum()), (steps, alone)


def test_exact_eigenvectors_leave_the_rest_of_the_spectrum(rng):
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    values = np.concatenate([[1e-4, 1e-3, 1e-2], np.repeat([1.0, 2.0], [20, 17])])
    A, b = tagged(basis * values @ basis.T), jnp.asarray(rng.normal(size=40))
    solver = RecycledPCG(1e-10, 0.0, dimension=3)
    options = {"deflation": jnp.asarray(5 * basis[:, :3].T)}
    solution = SOLVE(A, b, solver, options=options)
    assert solution.stats["num_steps"] == 2  # two eigenvalues are left
    np.testing.assert_allclose(A.mv(solution.value), b, atol=1e-8)


def test_the_space_becomes_the_lowest_eigenvectors(rng):
    A = heterogeneous_diffusion(coefficients(1, (9, 8))[0])
    diagonal = np.asarray(lx.diagonal(A))
    scaled = np.asarray(A.as_matrix()) / np.sqrt(np.outer(diagonal, diagonal))
    lowest = np.linalg.eigh(scaled)[1][:, :2]
    solver = RecycledPCG(1e-10, 0.0, Jacobi(), dimension=6)
    b = jnp.asarray(rng.normal(size=(4, 9, 8)))
    space = SEQUENCE(lambda _: A, None, b, solver).stats["deflation"].reshape(6, -1)
    # Eigenvectors of D^-1 A, times the root of D, are those of the scaled matrix.
    found = np.linalg.qr((np.asarray(space) * np.sqrt(diagonal)).T)[0]
    np.testing.assert_allclose(np.linalg.norm(found.T @ lowest, axis=0), 1, atol=1e-4)


def test_dependent_and_zero_vectors_in_the_space(rng):
    A, b = poisson((8, 9), dtype=jnp.float64), jnp.asarray(rng.normal(size=(8, 9)))
    v = rng.normal(size=(3, 8, 9))
    space = jnp.asarray(np.stack([v[0], v[1], v[0] + v[1], 0 * v[2]]))
    solution = SOLVE(A, b, RecycledPCG(1e-10, 0.0, dimension=4), options={"deflation": space})
    np.testing.assert_allclose(A.mv(solution.value), b, atol=1e-8)
    np.testing.assert_allclose(gram(A, solution.stats["deflation"]), np.eye(4), atol=1e-12)


def test_a_short_solve_fills_the_space_in_part(rng):
    A = tagged(np.diag(np.repeat([1.0, 2.0, 3.0], 4)))
    solution = SOLVE(A, jnp.asarray(rng.normal(size=12)), RecycledPCG(1e-10, 0.0, dimension=5))
    sizes = np.sort(np.diag(gram(A, solution.stats["deflation"])))
    np.testing.assert_allclose(sizes, [0, 0, 0, 1, 1], atol=1e-9)


def test_a_sequence_is_a_loop(rng):
    k, b = coefficients(3), jnp.asarray(rng.normal(size=(3, 20, 19)))
    solver = RecycledPCG(1e-8, 0.0, Jacobi(), dimension=5)
    whole, options = SEQUENCE(heterogeneous_diffusion, k, b, solver), {}
    for i in range(3):
        one = SOLVE(heterogeneous_diffusion(k[i]), b[i], solver, options=options)
        options = {"deflation": one.stats["deflation"]}
        assert one.stats["num_steps"] == whole.stats["num_steps"][i]
        np.testing.assert_allclose(one.value, whole.value[i], rtol=1e-6)
    np.testing.assert_allclose(abs(whole.stats["deflation"]), abs(options["deflation"]), atol=1e-4)
    again = SEQUENCE(
        heterogeneous_diffusion, k, b, solver, deflation=whole.stats["deflation"], warm_start=True
    )
    assert again.stats["num_steps"][0] < whole.stats["num_steps"][0]
    np.testing.assert_allclose(again.value, whole.value, rtol=1e-5)


def test_lanes_equal_loops(rng):
    k, b = coefficients(4), jnp.asarray(rng.normal(size=(4, 20, 19)))
    k, b = k.reshape(2, 2, 20, 19), b.reshape(2, 2, 20, 19)
    solver = RecycledPCG(1e-8, 0.0, Jacobi(), dimension=4)
    run = lambda k, b: solve_sequence(heterogeneous_diffusion, k, b, solver)
    batch = jax.jit(jax.vmap(lambda k, b: run(k, b).value))(k, b)
    for lane in range(2):
        one = SEQUENCE(heterogeneous_diffusion, k[lane], b[lane], solver)
        np.testing.assert_allclose(batch[lane], one.value, rtol=1e-6)


def test_derivatives(rng):
    b, w = jnp.asarray(rng.normal(size=(2, 6, 5))), jnp.asarray(rng.normal(size=(2, 6, 5)))
    k, dk = coefficients(2, (6, 5)), jnp.asarray(rng.normal(size=(2, 6, 5)))
    db = jnp.asarray(rng.normal(size=(2, 6, 5)))
    solver = RecycledPCG(1e-13, 0.0, Jacobi(), dimension=3)

    @jax.jit
    def f(k, b):
        return jnp.sum(w * solve_sequence(heterogeneous_diffusion, k, b, solver).value)

    h = 1e-6
    difference = (f(k + h * dk, b + h * db) - f(k - h * dk, b - h * db)) / (2 * h)
    gradient = jax.grad(f, (0, 1))(k, b)
    reverse = jnp.sum(gradient[0] * dk) + jnp.sum(gradient[1] * db)
    np.testing.assert_allclose(reverse, difference, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(f, (k, b), (dk, db))[1], difference, rtol=1e-6)


def test_float32(rng):
    k = coefficients(4).astype(jnp.float32)
    b = jnp.asarray(rng.normal(size=(4, 20, 19)), jnp.float32)
    solver = RecycledPCG(1e-5, 0.0, Jacobi(), dimension=6)
    solution = SEQUENCE(heterogeneous_diffusion, k, b, solver)
    assert solution.value.dtype == solution.stats["deflation"].dtype == jnp.float32
    assert np.all(solution.stats["residual"] < 2e-5)
    space = solution.stats["deflation"]
    np.testing.assert_allclose(gram(heterogeneous_diffusion(k[-1]), space), np.eye(6), atol=1e-4)


def test_trees_and_negative_definite_operators(rng):
    dense = jnp.asarray(np.diag(np.arange(1.0, 8)))
    split = lambda x: {"a": x[:3], "b": x[3:].reshape(2, 2)}
    join = lambda t: jnp.concatenate([t["a"], t["b"].ravel()])
    b = split(jnp.asarray(rng.normal(size=7)))
    tag = lx.negative_semidefinite_tag
    structure = jax.eval_shape(lambda: b)
    A = lx.FunctionLinearOperator(lambda t: split(-dense @ join(t)), structure, tag)
    solution = SOLVE(A, b, RecycledPCG(1e-12, 0.0, dimension=2))
    np.testing.assert_allclose(-dense @ join(solution.value), join(b), atol=1e-10)
    assert solution.stats["deflation"]["b"].shape == (2, 2, 2)
    options = {"deflation": solution.stats["deflation"]}
    again = SOLVE(A, b, RecycledPCG(1e-12, 0.0, dimension=2), options=options)
    np.testing.assert_allclose(join(again.value), join(solution.value), atol=1e-10)


# Failures


def outcome(operator, vector, solver):
    return SOLVE(operator, vector, solver, throw=False)


def test_results(rng):
    A, b = poisson((20, 20), dtype=jnp.float64), jnp.asarray(rng.normal(size=(20, 20)))
    solver = RecycledPCG(1e-10, 0.0, max_steps=7)
    short = outcome(A, b, solver)
    assert short.result == lx.RESULTS.max_steps_reached and short.stats["num_steps"] == 7
    broken = outcome(A, b.at[3, 4].set(jnp.nan), solver)
    assert broken.result == lx.RESULTS.nonfinite_input
    assert np.all(np.isfinite(broken.stats["deflation"]))
    zero = outcome(A, 0 * b, solver)
    assert zero.result == lx.RESULTS.successful and zero.stats["num_steps"] == 0
    assert not np.any(zero.value)
    indefinite = tagged(np.diag([1.0, -1.0, 2.0]))
    assert outcome(indefinite, jnp.ones(3), solver).result == lx.RESULTS.breakdown
    attained = outcome(A, b, RecycledPCG(0.0, 0.0))
    assert attained.result == lx.RESULTS.successful and attained.stats["residual"] < 1e-13


def test_a_failure_in_a_sequence_is_raised_and_does_not_spread(rng):
    k, b = coefficients(3), jnp.asarray(rng.normal(size=(3, 20, 19)))
    b = b.at[1, 0, 0].set(jnp.inf)
    solver = RecycledPCG(1e-8, 0.0, Jacobi())
    solution = SEQUENCE(heterogeneous_diffusion, k, b, solver, throw=False)
    good = solution.result == lx.RESULTS.successful
    np.testing.assert_array_equal(good, [True, False, True])
    with pytest.raises(Exception, match="non-finite"):
        SEQUENCE(heterogeneous_diffusion, k, b, solver)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RecycledPCG(-1.0, 0.0), "rtol must not be negative"),
        (lambda: RecycledPCG(0.1, 0.0, dimension=0), "dimension must be at least 1"),
        (lambda: RecycledPCG(0.1, 0.0, window=0), "window must be at least 1"),
        (lambda: RecycledPCG(0.1, 0.0, max_steps=0), "max_steps must be at least 1"),
        (lambda: RecycledPCG(0.1, 0.0, tagged(np.eye(3))), "preconditioner must be"),
        (lambda: RecycledPCG(0.1, 0.0, lx.MatrixLinearOperator(jnp.eye(4))), "preconditioner must"),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        lx.linear_solve(tagged(np.eye(4)), jnp.ones(4), make())


def test_operators_and_spaces_that_are_refused():
    solver = RecycledPCG(1e-3, 0.0, dimension=2)
    with pytest.raises(ValueError, match="tag it with"):
        lx.linear_solve(lx.MatrixLinearOperator(jnp.eye(4)), jnp.ones(4), solver)
    with pytest.raises(ValueError, match="deflation must hold 2 vectors"):
        options = {"deflation": jnp.ones((3, 4))}
        lx.linear_solve(tagged(np.eye(4)), jnp.ones(4), solver, options=options)


# Order


def test_sorting_undoes_a_shuffle(rng):
    k = coefficients(12, spread=2.0)
    shuffled = np.concatenate([[0], 1 + rng.permutation(11)])
    order = jax.jit(sort_systems)(k[shuffled])
    np.testing.assert_array_equal(shuffled[order], np.arange(12))


def test_sorting_is_greedy(rng):
    tree = {"a": jnp.asarray(rng.normal(size=(20, 3))), "b": jnp.asarray(rng.normal(size=(20,)))}
    points = np.concatenate([tree["a"], tree["b"][:, None]], axis=1)
    left, expected = list(range(1, 20)), [0]
    while left:
        distance = [np.linalg.norm(points[j] - points[expected[-1]]) for j in left]
        expected.append(left.pop(int(np.argmin(distance))))
    np.testing.assert_array_equal(sort_systems(tree), expected)
