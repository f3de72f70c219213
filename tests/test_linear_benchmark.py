"""The benchmark of linear solves: its problems, the count of work, the parts of a solve."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import _figures, _linear_problems, _linear_report, linear
from benchmarks._cases import Benchmark, Case, Settings
from benchmarks._harness import run_benchmark
from benchmarks._linear_contender import history_of, on_grid
from benchmarks._linear_scipy import METHODS
from benchmarks._problems import make_problem
from benchmarks._records import check_record
from benchmarks._report import latest, report
from benchmarks._work import cycle_entries, transform_entries
from benchmarks._work_jax import Work, entries, matvec_equivalents
from jinv.linear import (
    PCG,
    Chebyshev,
    Diffusion,
    Jacobi,
    heterogeneous_diffusion,
    null_space,
    poisson,
    pressure_poisson,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")

SPECS = [
    ("obstacles", "2-D", {"geometry": "standard"}),
    ("obstacles", "2-D", {"geometry": "random"}),
    ("obstacles", "3-D", {"geometry": "random"}),
    ("box", "3-D", {}),
    ("diffusion", "2-D", {"coefficient": "blobs", "jump": 1e3}),
    ("diffusion", "3-D", {"coefficient": "blocks", "jump": 1e3}),
    ("anisotropic", "2-D", {"ratio": 100.0}),
]


def problem_of(name, dim, params, seed=0, size=None, dtype="float64"):
    size = size or {"2-D": 21, "3-D": 8}[dim]
    return make_problem(name, size, {"dim": dim, **params}, dtype=dtype, seed=seed)


@pytest.mark.parametrize("name, dim, params", SPECS)
@pytest.mark.parametrize("seed", [0, 5])
def test_a_problem_is_one_system_in_all_its_forms(name, dim, params, seed, rng):
    problem = problem_of(name, dim, params, seed)
    unknown = problem.data["unknown"]
    matrix = _linear_problems.sparse_matrix(problem)
    dense = matrix.toarray()
    operator = Diffusion(_linear_problems.faces_of(problem), problem.data["sink"])
    whole, inside = np.asarray(operator.as_matrix()), unknown.ravel()
    np.testing.assert_allclose(dense, whole[np.ix_(inside, inside)], rtol=1e-14)
    # What is not an unknown is alone with the value zero.
    np.testing.assert_array_equal(whole[~inside], np.eye(inside.size)[~inside])
    assert not problem.data["rhs"][~unknown].any()
    np.testing.assert_array_equal(dense, dense.T)
    assert np.linalg.eigvalsh(dense)[0] > 0
    b = problem.data["rhs"][unknown]
    assert np.linalg.norm(b) > 0
    x = np.linalg.solve(dense, b)
    assert problem.objective(on_grid(problem, x)) < 1e-12
    x = x + 1e-3 * np.linalg.norm(x) / x.size * rng.standard_normal(x.size)
    expected = np.linalg.norm(b - dense @ x) / np.linalg.norm(b)
    np.testing.assert_allclose(problem.objective(on_grid(problem, x)), expected, rtol=1e-9)


def test_problems_are_those_that_jinv_names():
    problem = problem_of("obstacles", "2-D", {"geometry": "random"})
    expected = pressure_poisson((~problem.data["unknown"]).astype(int), open_sides=[(0, 1)])
    k = _linear_problems.coefficient((21, 21), "blocks", 1e3, np.random.default_rng(4))
    assert set(np.unique(k)) == {1.0, 1e3} and np.all(k[8:16, 8:16] == k[8, 8])
    jumps = problem_of("diffusion", "2-D", {"coefficient": "blocks", "jump": 1e3}, seed=4)
    pairs = [(problem, expected), (jumps, heterogeneous_diffusion(jnp.asarray(k)))]
    for found, operator in pairs:
        for w, v in zip(_linear_problems.faces_of(found), operator.faces, strict=True):
            np.testing.assert_allclose(w, v, rtol=1e-14)
        np.testing.assert_array_equal(found.data["sink"], operator.sink)


@pytest.mark.parametrize("dim", ["2-D", "3-D"])
def test_random_obstacles_leave_no_pocket(dim):
    seen = set()
    for seed in range(8):
        problem = problem_of("obstacles", dim, {"geometry": "random"}, seed, size=24)
        operator = Diffusion(_linear_problems.faces_of(problem), problem.data["sink"])
        assert null_space(operator).shape[0] == 0
        assert 0.4 < problem.data["unknown"].mean() < 0.97
        seen.add(problem.data["unknown"].tobytes())
        again = problem_of("obstacles", dim, {"geometry": "random"}, seed, size=24)
        assert all(np.array_equal(problem.data[key], again.data[key]) for key in again.data)
    assert len(seen) == 8


def test_the_right_hand_side_is_in_the_range_of_a_closed_box(rng):
    faces = [np.asarray(w) for w in poisson((9, 7), boundary="neumann").faces]
    rhs = _linear_problems.divergence(faces, np.ones((9, 7), bool), rng)
    assert np.linalg.norm(rhs) > 1 and abs(rhs.sum()) < 1e-12


@pytest.mark.parametrize(
    "name, params, message",
    [
        ("obstacles", {"geometry": "round"}, "geometry"),
        ("diffusion", {"coefficient": "stripes", "jump": 1e3}, "coefficient"),
    ],
)
def test_bad_problems_are_named(name, params, message):
    with pytest.raises(ValueError, match=f"{message}: expected"):
        problem_of(name, "2-D", params)


def test_float32_problems_are_judged_as_given():
    problem = problem_of("diffusion", "2-D", SPECS[4][2], dtype="float32")
    assert problem.data["rhs"].dtype == problem.data["face_0"].dtype == np.float32
    matrix = _linear_problems.sparse_matrix(problem).toarray()
    x = np.linalg.solve(matrix, problem.data["rhs"].astype(np.float64).ravel())
    assert problem.objective(x) < 1e-12


def test_matvecs_of_jax_programs():
    n, m = 6, 5
    cells, inner, outer = n * m, n * (m - 1) + (n - 1) * m, 2 * (n + m)
    operator, b = poisson((n, m)), jnp.ones((n, m))
    product = entries(operator.mv, b)
    # The matrix's own entries, and the faces to the walls, which its diagonal holds.
    assert product == Work(once=cells + 2 * inner + outer)

    def work(preconditioner):
        solver = PCG(1e-6, 0.0, preconditioner=preconditioner, replace_every=4)
        state = solver.init(operator, {})
        return entries(lambda state, b: solver.compute(state, b, {}), state, b)

    one = product.once
    # Besides, a pass computes the true residual, and the end the accuracy that can be had.
    assert work(None) == Work(once=one, per_step=one, per_pass=one)
    assert work(Jacobi()) == Work(once=one, per_step=one + cells, per_pass=one)
    degree = 3
    expected = one + degree * one + (degree + 1) * cells
    assert work(Chebyshev(degree)) == Work(once=one, per_step=expected, per_pass=one)
    assert matvec_equivalents(work(None), product, 9, 4) == 1 + 9 + 3
    assert matvec_equivalents(work(None), product, 9) == 1 + 9 + 1


def test_entries_do_not_depend_on_how_a_product_is_written():
    w, x = jnp.linspace(1.0, 2.0, 8), jnp.linspace(0.0, 1.0, 9)
    interpolate = lambda w, x: x[:-1] + w * (x[1:] - x[:-1])
    apart = lambda w, x: (1 - w) * x[:-1] + w * x[1:]
    assert entries(interpolate, w, x) == entries(apart, w, x) == Work(once=16)

    def transposed(w, y):
        share = w * y
        return jnp.pad(y - share, (0, 1)) + jnp.pad(share, (1, 0))

    y = jnp.ones(8)
    (expected,) = jax.linear_transpose(lambda x: interpolate(w, x), x)(y)
    np.testing.assert_allclose(transposed(w, y), expected)
    assert entries(transposed, w, y) == Work(once=16)


def test_what_counts_as_an_entry():
    x, A = jnp.ones(12), jnp.ones((5, 12))
    count = lambda f, *arguments: entries(f, *arguments).once
    assert count(lambda A, x: A @ x, A, x) == 60
    assert count(lambda x: 2 * x + x * x.sum(), x) == 0
    assert count(lambda x: jnp.vdot(x, x) + jnp.sum(x * (x + 1)), x) == 0
    assert count(jax.jit(lambda A: A * A[::-1]), A) == 60
    loop = lambda x, w: jax.lax.fori_loop(0, 7, lambda _, x: w * x, x)
    assert count(loop, x, x + 1) == 84
    either = lambda x, w: jax.lax.cond(x[0] > 0, lambda: w * x, lambda: x)
    assert count(either, x, x + 1) == 12
    image, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
    convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME")
    assert count(convolve, image, kernel) == 8 * 8 * 4 * 27
    assert count(lambda x: x * jax.random.normal(jax.random.key(0), x.shape), x) == 12
    until = lambda x, w: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: w * x, x)
    assert entries(until, x, x + 1) == Work(per_step=12)
    assert count(lambda x: jnp.fft.rfft(x).real, jnp.ones(16)) == 16 * 4


@pytest.mark.parametrize("name, dim, params", [SPECS[3], SPECS[6], ("diffusion", "2-D", {})])
def test_the_transform_of_an_empty_box_is_its_inverse(name, dim, params, rng):
    params = params or {"coefficient": "blobs", "jump": 1.0}
    contender = METHODS["CG box transform"](problem_of(name, dim, params), {})
    x = rng.standard_normal(contender.rhs.size)
    np.testing.assert_allclose(contender.preconditioner @ (contender.A @ x), x, rtol=1e-9)
    contender.run(1)
    assert contender.num_steps == 1
    cells = contender.rhs.size
    assert transform_entries(cells) == cells * np.log2(2 * cells)
    assert contender.matvecs == 1 + transform_entries(cells) / contender.A.nnz


def test_matvecs_of_pyamg():
    pyamg = pytest.importorskip("pyamg")
    matrix = pyamg.gallery.poisson((9,), format="csr")
    fine = 3 * 9 - 2
    hierarchy = pyamg.ruge_stuben_solver(matrix, max_levels=2, max_coarse=4)
    coarse = hierarchy.levels[1].A.shape[0]
    transfers = 2 * hierarchy.levels[0].P.nnz
    assert cycle_entries(hierarchy) == 5 * fine + transfers + coarse**2
    problem = problem_of("obstacles", "2-D", {"geometry": "standard"})
    for accel in (None, "cg"):
        contender = METHODS["pyamg"](problem, {"kind": "Ruge-Stuben", "accel": accel})
        contender.run(1)
        assert contender.metrics(problem)["relative_residual"] < 1e-6
        each = cycle_entries(contender.hierarchy) / contender.A.nnz
        assert contender.matvecs == 1 + contender.num_steps * (1 + each)


@pytest.mark.parametrize(
    "method, params",
    [
        ("CG", {}),
        ("CG box transform", {}),
        ("CG incomplete", {"kind": "IC(0)"}),
        ("CG incomplete", {"kind": "ICT"}),
        ("CG incomplete", {"kind": "spilu"}),
        ("splu", {}),
    ],
)
def test_scipy_contenders_solve_and_tell_how(method, params):
    if params.get("kind") in ("IC(0)", "ICT"):
        pytest.importorskip("ilupp")
    problem = problem_of("obstacles", "2-D", {"geometry": "standard"})
    contender = METHODS[method](problem, params)
    contender.run(1)
    found = contender.metrics(problem)
    assert found["relative_residual"] <= 1.001e-6
    assert found["matvecs"] >= found["num_steps"] >= 1
    history = contender.history(problem)
    if method == "splu":
        assert not history and found["matvecs"] > 1
        return
    assert history["num_steps"][-1] == found["num_steps"]
    np.testing.assert_allclose(history["matvecs"][-1], found["matvecs"])
    np.testing.assert_allclose(history["relative_residual"][-1], found["relative_residual"])


def test_histories_are_thinned_and_keep_their_ends():
    found = history_of(list(np.geomspace(1, 1e-6, 1001)), 3000.0)
    assert len(found["num_steps"]) == 200 and found["num_steps"][-1] == 1000
    assert found["matvecs"][-1] == 3000 and found["relative_residual"][-1] == 1e-6
    assert history_of([1.0], 0.0) == {}


PROBLEM = {"name": "obstacles", "size": 12, "params": {"dim": "2-D", "geometry": "standard"}}


@pytest.fixture(scope="module")
def measured():
    """Records through real workers: with and without set-up, a tolerance too small, a lack."""

    def run(tolerance, contenders, repeats=4, seed=0, **options):
        case = Case(PROBLEM, contenders, reference=None, tolerance=tolerance, **options)
        benchmark = Benchmark("linear", "", lambda smoke: [case])
        settings = Settings(repeats=repeats, dtype="float64", seed=seed)
        (records,) = run_benchmark(benchmark, settings, log=lambda line: None)
        return [check_record(record) for record in records]

    plain, direct = linear._scipy("CG", "CG"), linear._scipy("splu", "splu")
    ours = linear._ours("Jacobi", "PCG, Jacobi")
    records = run(1e-6, [plain, direct, ours], history=True)
    return records + run(1e-12, [plain], seed=1, long_s=0.0)


def test_parts_are_timed_apart(measured):
    plain, direct, ours, strict = measured
    for record in (direct, ours):
        assert set(record["cost"]["parts"]) == {"set-up", "solve"}
        for part in record["cost"]["parts"].values():
            assert len(part["run_s"]) == len(part["cpu_s"]) == 4
        assert len(record["cost"]["run_s"]) == 4
    assert "parts" not in plain["cost"] and _linear_report.least(plain, "set-up") == 0
    assert _linear_report.least(plain, "solve") == min(plain["cost"]["run_s"])
    # Only what compiles has a time for that.
    assert plain["cost"]["compile_s"] is None and ours["cost"]["compile_s"] > 0
    for record in (plain, direct, ours):
        assert record["outcome"]["result"] == "successful"
        assert record["outcome"]["metrics"]["relative_residual"] <= 1.001e-6
        assert record["outcome"]["num_steps"] >= 1
    assert plain["outcome"]["trajectory"]["num_steps"][-1] == plain["outcome"]["num_steps"]
    history = ours["outcome"]["trajectory"]["relative_residual"]
    assert history[0] == 1 and history[-1] <= 1e-6
    # The result misses the tolerance, and a window that takes long is run once.
    assert strict["outcome"]["result"] == "not converged"
    assert "relative residual is" in strict["outcome"]["message"]
    assert len(strict["cost"]["run_s"]) == 1


def test_report_and_figures(measured, tmp_path):
    default = copy.deepcopy(measured[2])
    default["method"]["name"] = _linear_report.DEFAULT[1]
    text = report([*measured, default])
    assert text.count("## linear: obstacles 2-D standard 12") == 2 and "seed 1" in text
    header = next(line for line in text.splitlines() if line.startswith("| library"))
    assert all(f"| {name} |" in header for name in ("set-up ms", "matvecs", "both / default"))
    (row,) = [line for line in text.splitlines() if line.startswith("| jinv | PCG, Multigrid |")]
    assert row.split(" | ")[8:10] == ["1", "1"]
    bigger = copy.deepcopy(default)
    bigger["problem"]["size"], bigger["outcome"]["metrics"]["unknowns"] = 24, 500.0
    paths = _figures.save_figures(latest([*measured, default, bigger]), tmp_path)
    names = {path.name.split("_float64")[0] for path in paths}
    assert names == {
        "linear_obstacles_2-D_standard_12_convergence",
        "linear_obstacles_2-D_standard_24_convergence",
        "linear_obstacles_2-D_scaling_run_s",
        "linear_obstacles_2-D_scaling_num_steps",
    }


@pytest.mark.parametrize("smoke", [True, False])
def test_contenders_can_be_told_apart(smoke):
    for case in linear.cases(smoke):
        labels = [(contender.library, contender.name) for contender in case.contenders]
        assert labels and len(set(labels)) == len(labels)
        assert smoke or _linear_report.DEFAULT in labels
