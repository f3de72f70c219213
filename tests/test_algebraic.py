"""Sparse matrices and algebraic multigrid: dense references, definiteness, derivatives, errors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental import sparse as jsparse

import jinv
from jinv.linear import PCG, AlgebraicMultigrid, SparseMatrix, to_scipy
from jinv.linear._read_off import Colouring


PSD = lx.positive_semidefinite_tag
pytestmark = pytest.mark.usefixtures("quick_compilation")


def random_matrix(rows, columns, density, seed=0) -> Any:
    return sp.random_array((rows, columns), density=density, rng=seed, format="csr")


def long_rows():
    matrix = random_matrix(40, 30, 0.05).tolil()
    matrix[3, :] = np.arange(30.0) + 1
    matrix[7, ::2] = 2.0
    return matrix.tocsr()


def laplacian(n):
    return jinv.linear.poisson(n, dtype=jnp.float64)


def jumps(shape, seed=0):
    fine = np.random.default_rng(seed).integers(0, 2, shape)
    return jinv.linear.heterogeneous_diffusion(jnp.asarray(np.where(fine, 1e3, 1.0)))


def graph_laplacian(n, seed=0) -> Any:
    """Points in the square, each linked to its neighbours; no grid, no boundary."""
    points = np.random.default_rng(seed).random((n, 2))
    links = np.linalg.norm(points[:, None] - points, axis=-1) < 2.5 / n**0.5
    weights = np.where(links, 1.0, 0.0) * (1 - np.eye(n))
    return sp.csr_array(np.diag(weights.sum(1) + 1e-3) - weights)


def elasticity(n):
    """Springs on an n by n grid with diagonals, held at one side; its three rigid motions."""
    points = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    matrix = np.zeros((2 * n * n, 2 * n * n))
    for i, p in enumerate(points):
        for j, q in enumerate(points[:i]):
            if np.abs(p - q).max() == 1:
                along = np.zeros(2 * n * n)
                along[2 * i : 2 * i + 2] = (p - q) / np.linalg.norm(p - q)
                along[2 * j : 2 * j + 2] = -along[2 * i : 2 * i + 2]
                matrix += np.outer(along, along)
    matrix += np.diag(np.repeat((points[:, 0] == 0).astype(float), 2))
    motions = np.zeros((3, n * n, 2))
    motions[0, :, 0] = motions[1, :, 1] = 1
    motions[2, :, 0], motions[2, :, 1] = -points[:, 1], points[:, 0]
    return sp.csr_array(matrix), motions


MATRICES = {
    "rectangular": random_matrix(30, 20, 0.2),
    "long rows": long_rows(),
    "empty rows": sp.csr_array(np.diag([0.0, 2.0, 0.0, 1.0], 1)),
    "one": sp.csr_array([[3.0]]),
    "banded": sp.csr_array(np.eye(20, k=-3) - 2 * np.eye(20) + np.eye(20, k=1) / 2),
    "many slots": random_matrix(70, 70, 0.99),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("layout", ["rows", "diagonals", "auto"])
def test_products(name, layout, rng):
    dense = MATRICES[name].toarray()
    A = SparseMatrix(MATRICES[name], layout=layout)
    x, y = jnp.asarray(rng.normal(size=dense.shape[1])), jnp.asarray(rng.normal(size=len(dense)))
    np.testing.assert_allclose(jax.jit(lambda A, x: A.mv(x))(A, x), dense @ x, atol=1e-12)
    np.testing.assert_allclose(A.T.mv(y), dense.T @ y, atol=1e-12)
    np.testing.assert_allclose(A.as_matrix(), dense, atol=1e-14)
    np.testing.assert_array_equal(to_scipy(A).toarray(), dense)
    if dense.shape[0] == dense.shape[1]:
        np.testing.assert_array_equal(lx.diagonal(A), np.diag(dense))
    rows, columns = A.indices()
    np.testing.assert_array_equal(A.values, dense[rows, columns])
    doubled = A.with_values(2 * A.values)
    np.testing.assert_array_equal(to_scipy(doubled).toarray(), 2 * dense)
    assert eqx.tree_equal(A.with_values(A.values), A)


def test_layout_is_chosen_by_the_pattern():
    assert SparseMatrix(to_scipy(laplacian((9, 8)))).offsets == (-8, -1, 0, 1, 8)
    assert SparseMatrix(MATRICES["many slots"]).offsets is None


def test_batches_equal_loops(rng):
    A = SparseMatrix(long_rows())
    values = jnp.asarray(rng.normal(size=(3, A.values.size)))
    x = jnp.asarray(rng.normal(size=(3, 30)))
    batch = jax.vmap(lambda v, x: A.with_values(v).mv(x))(values, x)
    np.testing.assert_allclose(
        batch, [A.with_values(v).mv(u) for v, u in zip(values, x, strict=True)], atol=1e-12
    )


@pytest.mark.parametrize("given", ["bcoo", "dense", "tagged", "operator", "duplicates"])
def test_to_scipy_takes(given):
    dense = np.array([[2.0, -1.0], [-1.0, 2.0]])
    place = ([0, 0, 0, 1, 1], [0, 0, 1, 0, 1])
    matrix = {
        "bcoo": lambda: jsparse.BCOO.fromdense(jnp.asarray(dense)),
        "dense": lambda: dense.astype(int),
        "tagged": lambda: lx.TaggedLinearOperator(SparseMatrix(dense), PSD),
        "operator": lambda: lx.MatrixLinearOperator(jnp.asarray(dense)),
        "duplicates": lambda: sp.coo_matrix(([1.0, 1.0, -1.0, -1.0, 2.0], place)),
    }[given]()
    np.testing.assert_array_equal(to_scipy(matrix).toarray(), dense)


@pytest.mark.parametrize("shape", [(7,), (5, 4), (3, 4, 2), (1, 6)])
def test_the_matrix_of_a_diffusion(shape, rng):
    k = jnp.asarray(rng.uniform(1, 2, shape))
    A = jinv.linear.heterogeneous_diffusion(k, shift=0.5)
    np.testing.assert_allclose(to_scipy(A).toarray(), A.as_matrix(), atol=1e-13)
    closed = jinv.linear.pressure_poisson(jnp.asarray(rng.integers(0, 2, shape)))
    assert to_scipy(closed).nnz == to_scipy(A).nnz


def test_derivatives_with_respect_to_values_and_rhs(rng):
    csr = to_scipy(laplacian((4, 5)))
    A, solver = SparseMatrix(csr, PSD), PCG(1e-13, 0.0)
    b, w = jnp.asarray(rng.normal(size=20)), jnp.asarray(rng.normal(size=20))
    shape = jnp.asarray((lambda M: (M + M.T)[csr.nonzero()])(rng.normal(size=(20, 20)))) * 0.1

    def f(t, b):
        return w @ lx.linear_solve(A.with_values(A.values + t * shape), b, solver).value

    t, db = jnp.asarray(0.1), jnp.asarray(rng.normal(size=20))
    h = 1e-5
    by_t = (f(t + h, b) - f(t - h, b)) / (2 * h)
    by_b = (f(t, b + h * db) - f(t, b - h * db)) / (2 * h)
    gradient = jax.grad(f, (0, 1))(t, b)
    np.testing.assert_allclose(gradient[0], by_t, rtol=1e-7)
    np.testing.assert_allclose(gradient[1] @ db, by_b, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(f, (t, b), (jnp.ones(()), db))[1], by_t + by_b, rtol=1e-7)


@pytest.mark.parametrize(
    "matrix, tags, message",
    [
        (np.ones((2, 3)), PSD, "square"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), lx.symmetric_tag, "must be symmetric"),
        (np.diag([1.0, -1.0]), PSD, "wrong sign"),
        (np.diag([1.0, -1.0]), lx.negative_semidefinite_tag, "wrong sign"),
        (np.eye(2), lx.diagonal_tag, "tags must be among"),
        (np.array([[np.nan]]), (), "must be finite"),
        (np.eye(2) * 1j, (), "must be real"),
        (np.ones(3), (), "two-dimensional"),
        (np.ones((0, 3)), (), "not empty"),
    ],
)
def test_matrices_that_are_refused(matrix, tags, message):
    with pytest.raises(ValueError, match=message):
        SparseMatrix(matrix, tags)


def test_other_errors():
    A = SparseMatrix(np.eye(3))
    with pytest.raises(ValueError, match="layout must be one of"):
        SparseMatrix(np.eye(3), layout="csr")
    with pytest.raises(ValueError, match="values must have shape"):
        A.with_values(jnp.ones(4))
    with pytest.raises(ValueError, match="expected an input"):
        A.mv(jnp.ones(4))
    with pytest.raises(ValueError, match="with_values"):
        jax.jit(lambda x: SparseMatrix(x).mv(x[0]))(jnp.eye(3))
    with pytest.raises(ValueError, match="unbatched"):
        to_scipy(jsparse.BCOO.fromdense(jnp.ones((2, 2, 2)), n_batch=1))


def test_symmetric_matrices_are_their_own_transposes():
    A = SparseMatrix(to_scipy(laplacian(5)), PSD)
    assert A.T is A and lx.is_symmetric(A) and lx.is_positive_semidefinite(A)
    B = SparseMatrix(to_scipy(laplacian(5)), [lx.symmetric_tag])
    assert lx.is_symmetric(B) and not lx.is_positive_semidefinite(B)
    C = SparseMatrix(-to_scipy(laplacian(5)), lx.negative_semidefinite_tag)
    solution = lx.linear_solve(C, jnp.ones(5), PCG(1e-10, 0.0))
    np.testing.assert_allclose(C.mv(solution.value), 1, atol=1e-8)


# Algebraic multigrid

SYSTEMS = {
    "line": lambda: to_scipy(laplacian(700)),
    "jumps": lambda: to_scipy(jumps((24, 25))),
    "anisotropic": lambda: to_scipy(
        jinv.linear.heterogeneous_diffusion([jnp.ones((22, 20)), jnp.full((22, 20), 1e-2)])
    ),
    "solid": lambda: to_scipy(
        jinv.linear.pressure_poisson(
            jnp.asarray(np.random.default_rng(0).random((22, 20)) < 0.2, jnp.int32),
            open_sides=[(0, 0)],
        )
    ),
    "graph": lambda: graph_laplacian(600),
    "small": lambda: to_scipy(laplacian(9)),
}


SOLVE = eqx.filter_jit(lx.linear_solve)


def dense_cycle(matrix, **options):
    A = SparseMatrix(matrix, PSD)
    return np.asarray(AlgebraicMultigrid(matrix, **options).init(A).as_matrix())


def spectrum(M, A):
    root = np.linalg.cholesky(M)
    return np.linalg.eigvalsh(root.T @ A @ root)


DEFINITE = [(name, {}) for name in SYSTEMS]
DEFINITE += [("jumps", {"degree": 1}), ("line", {"degree": 3, "cycle": "W"})]


@pytest.mark.parametrize("name, options", DEFINITE, ids=str)
def test_a_cycle_is_definite_and_below_the_inverse(name, options):
    matrix = SYSTEMS[name]()
    M = dense_cycle(matrix, **options)
    np.testing.assert_allclose(M, M.T, atol=1e-12 * np.abs(M).max())
    values = spectrum((M + M.T) / 2, matrix.toarray())
    assert values.min() > -1e-10 and values.max() < 1 + 1e-8


def test_two_levels_are_the_formula():
    matrix = SYSTEMS["jumps"]()
    amg = AlgebraicMultigrid(matrix, degree=2)
    level, A = amg.levels[0], matrix.toarray()
    assert len(amg.levels) == 1
    P, D = to_scipy(level.prolongation).toarray(), np.asarray(level.scaling)
    np.testing.assert_array_equal(to_scipy(level.restriction).toarray(), P.T)
    np.testing.assert_allclose(amg.inverse @ (P.T @ A @ P), np.eye(P.shape[1]), atol=1e-8)
    # 1 - t S(t) = U(2 - 4 t) / 5 with the Chebyshev polynomial W_2(x) = 4 x^2 + 2 x - 1
    I, t = np.eye(len(A)), D[:, None] * A
    x = I - 2 * t
    S = (I - (4 * x @ x + 2 * x - I) / 5) @ np.linalg.inv(A)
    assert np.linalg.eigvals(t).real.max() <= 1 + 1e-12
    expected = 2 * S - S @ A @ S
    expected += (I - S @ A) @ P @ np.asarray(amg.inverse) @ P.T @ (I - A @ S)
    np.testing.assert_allclose(dense_cycle(matrix), expected, atol=1e-9 * np.abs(expected).max())


def test_a_small_system_is_inverted():
    matrix = SYSTEMS["small"]()
    np.testing.assert_allclose(dense_cycle(matrix) @ matrix.toarray(), np.eye(9), atol=1e-12)


def iterations(A, preconditioner, rng, rtol=1e-8):
    like = A.in_structure()
    b = A.mv(jnp.asarray(rng.normal(size=like.shape), like.dtype))
    solution = SOLVE(A, b, PCG(rtol, 0.0, preconditioner))
    assert solution.stats["residual"] <= rtol
    return int(solution.stats["num_steps"])


@pytest.mark.parametrize("make", [lambda n: laplacian((n, n)), lambda n: jumps((n, n))])
def test_iterations_hardly_grow(make, rng):
    counts = [iterations(make(n), AlgebraicMultigrid(make(n)), rng) for n in (24, 96)]
    assert max(counts) <= 16, counts


@pytest.mark.parametrize("name", ["jumps", "graph", "anisotropic"])
def test_iterations_are_those_of_pyamg(name, rng):
    pyamg = pytest.importorskip("pyamg")
    matrix: Any = sp.csr_matrix(SYSTEMS[name]())
    theirs = []
    b = matrix @ rng.normal(size=matrix.shape[0])
    cycle = pyamg.smoothed_aggregation_solver(matrix).aspreconditioner()
    sp.linalg.cg(matrix, b, rtol=1e-8, M=cycle, callback=lambda x: theirs.append(0))
    A = SparseMatrix(matrix, PSD)
    assert iterations(A, AlgebraicMultigrid(matrix), rng) <= len(theirs) + 2
    M = dense_cycle(matrix, setup=pyamg.ruge_stuben_solver)
    assert spectrum((M + M.T) / 2, matrix.toarray()).max() < 1 + 1e-8


def test_a_diagonal_matrix_needs_no_coarse_level(rng):
    A = SparseMatrix(sp.diags_array(np.arange(1.0, 301)), PSD)
    assert iterations(A, AlgebraicMultigrid(A), rng) == 1


@pytest.mark.slow
def test_rigid_motions_help_elasticity(rng):
    matrix, motions = elasticity(14)
    A = SparseMatrix(matrix, PSD)
    plain = AlgebraicMultigrid(matrix, block_size=2)
    rigid = AlgebraicMultigrid(matrix, block_size=2, near_null_space=motions)
    count = iterations(A, rigid, rng)
    assert count <= 15 and count < iterations(A, plain, rng)
    M = np.asarray(rigid.init(A).as_matrix())
    assert spectrum((M + M.T) / 2, matrix.toarray()).min() > 0


def test_singular_systems(rng):
    A = jinv.linear.poisson((20, 21), boundary="neumann", dtype=jnp.float64)
    b = jnp.asarray(rng.normal(size=(20, 21)))
    solver = PCG(1e-8, 0.0, AlgebraicMultigrid(A), null_space=jinv.linear.null_space(A))
    solution = SOLVE(A, b, solver)
    np.testing.assert_allclose(A.mv(solution.value), b - b.mean(), atol=1e-6)
    assert solution.stats["num_steps"] < 15


@pytest.mark.slow
def test_float32_cycles_inside_float64_and_alone(rng):
    A = jumps((32, 32))
    counts = [iterations(A, AlgebraicMultigrid(A, dtype=d), rng) for d in (None, jnp.float32)]
    assert abs(counts[0] - counts[1]) <= 1
    single = jax.tree.map(lambda x: x.astype(jnp.float32), A)
    operator = AlgebraicMultigrid(single).init(single)
    assert operator.mv(jnp.ones((32, 32), jnp.float32)).dtype == jnp.float32
    assert iterations(single, AlgebraicMultigrid(single), rng, 1e-4) <= counts[0]


# Refreshing


@pytest.mark.slow
def test_refreshing_is_the_set_up_of_the_same_values(rng):
    A = jumps((20, 21))
    amg = AlgebraicMultigrid(A, refresh=True)
    frozen = AlgebraicMultigrid(A).init(A)
    x = jnp.asarray(rng.normal(size=(20, 21)))
    np.testing.assert_allclose(amg.init(A).mv(x), frozen.mv(x), rtol=1e-9)


def test_refreshing_is_the_galerkin_product_of_new_values():
    amg = AlgebraicMultigrid(jumps((30, 31)), refresh=True)
    other = jumps((30, 31), seed=1)
    cycle = eqx.filter_jit(amg.init)(other)
    matrix = to_scipy(other).toarray()
    for level in cycle.levels:
        np.testing.assert_allclose(to_scipy(level.matrix).toarray(), matrix, atol=1e-9)
        P = to_scipy(level.prolongation).toarray()
        matrix = P.T @ matrix @ P
    np.testing.assert_allclose(cycle.inverse @ matrix, np.eye(len(matrix)), atol=1e-8)
    M = np.asarray(cycle.as_matrix())
    values = spectrum((M + M.T) / 2, to_scipy(other).toarray())
    assert values.min() > 0 and values.max() < 1 + 1e-8


def test_refreshed_solves_are_batched_and_differentiated(rng):
    amg = AlgebraicMultigrid(jinv.linear.poisson((18, 17), dtype=jnp.float64), refresh=True)
    k = jnp.asarray(np.exp(rng.normal(size=(2, 18, 17))))
    b, w = jnp.asarray(rng.normal(size=(18, 17))), jnp.asarray(rng.normal(size=(18, 17)))

    def f(k):
        A = jinv.linear.heterogeneous_diffusion(k)
        return jnp.sum(w * lx.linear_solve(A, b, PCG(1e-12, 0.0, amg)).value)

    batch = jax.vmap(f)(k)
    np.testing.assert_allclose(batch, [f(k[0]), f(k[1])], rtol=1e-9)
    dk, h = jnp.asarray(rng.normal(size=(18, 17))), 1e-5
    difference = (f(k[0] + h * dk) - f(k[0] - h * dk)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(jax.grad(f)(k[0]) * dk), difference, rtol=1e-6)


@pytest.mark.parametrize("matrix", [SYSTEMS["graph"](), SYSTEMS["jumps"]()])
def test_colours_do_not_meet(matrix):
    colouring = Colouring(matrix)
    pattern: Any = sp.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr))
    for colour in range(colouring.count):
        assert (pattern[:, np.asarray(colouring.colours) == colour].sum(axis=1) <= 1).all()
    A = SparseMatrix(matrix)
    np.testing.assert_array_equal(colouring.read_off(A, A.mv).values, A.values)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"degree": 0}, "degree must be"),
        ({"cycle": "F"}, "cycle must be one of"),
        ({"threshold": 1.0}, "threshold must be"),
        ({"block_size": 7}, "block_size must divide"),
        ({"setup": "classical"}, "setup must be one of"),
        ({"setup": lambda A: [np.ones((3, 2))]}, "setup must return"),
        ({"near_null_space": np.ones((2, 5))}, "near_null_space must hold"),
        ({"dtype": jnp.int32}, "dtype must be"),
    ],
)
def test_set_ups_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlgebraicMultigrid(laplacian((20, 20)), **options)


def test_matrices_and_operators_that_do_not_fit():
    with pytest.raises(ValueError, match="must be symmetric"):
        AlgebraicMultigrid(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="4900 unknowns, too many"):
        AlgebraicMultigrid(laplacian((70, 70)), setup=lambda A: [])
    with pytest.raises(ValueError, match="set up for 400 unknowns"):
        AlgebraicMultigrid(laplacian((20, 20))).init(laplacian((20, 19)))
