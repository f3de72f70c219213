"""Preconditioned conjugate gradients: exactness, failures, transformations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import jinv
from jinv.linear import (
    PCG,
    Chebyshev,
    Diffusion,
    FastPoisson,
    Jacobi,
    Multigrid,
    Refinement,
    Tagged,
    poisson,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")
RESULTS = lx.RESULTS
PRECONDITIONERS = [None, Jacobi(), Chebyshev(3), FastPoisson("dirichlet"), Multigrid()]
named = lambda p: type(p).__name__


def _dense(n, rng, condition=1e3):
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = jnp.asarray((q * np.geomspace(1, condition, n)) @ q.T)
    return lx.MatrixLinearOperator((matrix + matrix.T) / 2, lx.positive_semidefinite_tag)


def _system(shape, rng, dtype=jnp.float64):
    k = jnp.asarray(np.exp(rng.normal(size=shape)), dtype)
    operator = jinv.linear.heterogeneous_diffusion(k)
    return operator, jnp.asarray(rng.normal(size=shape), dtype)


def _solve(operator, vector, solver, **kwargs):
    return lx.linear_solve(operator, vector, solver, throw=False, **kwargs)


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS, ids=named)
@pytest.mark.parametrize("flexible", [False, True])
def test_solves_as_dense_factorisation_does(preconditioner, flexible, rng):
    operator, b = _system((24, 25), rng)
    solution = _solve(operator, b, PCG(1e-12, 0.0, preconditioner, flexible=flexible))
    exact = np.linalg.solve(operator.as_matrix().reshape(600, 600), b.ravel())
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value.ravel(), exact, rtol=0, atol=1e-9 * abs(exact).max())
    true = jnp.linalg.norm(b - operator.mv(solution.value)) / jnp.linalg.norm(b)
    np.testing.assert_allclose(solution.stats["residual"], true, rtol=0.2)
    assert true <= 1e-12


def test_iterates_minimise_the_energy_over_the_krylov_space(rng):
    operator = _dense(20, rng)
    b = jnp.asarray(rng.normal(size=20))
    exact = np.linalg.solve(operator.matrix, b)
    basis = [np.asarray(b)]
    for steps in range(1, 7):
        value = _solve(operator, b, PCG(0.0, 0.0, max_steps=steps)).value
        q = np.linalg.qr(np.stack(basis, axis=1))[0]
        best = q @ np.linalg.solve(q.T @ operator.matrix @ q, q.T @ np.asarray(b))
        energy = lambda x: (x - exact) @ operator.matrix @ (x - exact)
        np.testing.assert_allclose(energy(value), energy(best), rtol=1e-7)
        basis.append(np.asarray(operator.matrix) @ basis[-1])


def test_history_and_tolerances(rng):
    operator, b = _system((20, 20), rng)
    solution = _solve(operator, b, PCG(1e-6, 0.0, max_steps=300, history=True))
    steps, residuals = int(solution.stats["num_steps"]), solution.stats["residuals"]
    assert residuals.shape == (301,) and residuals[0] == 1
    assert residuals[steps] <= 1e-6 < residuals[steps - 1]
    assert jnp.isnan(residuals[steps + 1 :]).all() and jnp.isfinite(residuals[: steps + 1]).all()
    absolute = _solve(operator, b, PCG(0.0, 1e-6 * jnp.linalg.norm(b)))
    assert absolute.stats["num_steps"] == steps


def test_warm_start(rng):
    operator, b = _system((24, 24), rng)
    solver = PCG(1e-8, 0.0, Multigrid())
    cold = _solve(operator, b, solver)
    warm = _solve(operator, b, solver, options={"y0": cold.value + 1e-5})
    assert 0 < warm.stats["num_steps"] < cold.stats["num_steps"]
    assert _solve(operator, b, solver, options={"y0": cold.value}).stats["num_steps"] == 0


def test_preconditioner_as_operator_and_function(rng):
    operator = _dense(30, rng)
    b = jnp.asarray(rng.normal(size=30))
    inverse = jnp.linalg.inv(operator.matrix)
    exact = lx.MatrixLinearOperator((inverse + inverse.T) / 2, lx.positive_semidefinite_tag)
    for given in (exact, lambda r: inverse @ r):
        assert _solve(operator, b, PCG(1e-8, 0.0, given)).stats["num_steps"] == 1
    wins = _solve(operator, b, PCG(1e-8, 0.0), options={"preconditioner": exact})
    assert wins.stats["num_steps"] == 1

    @jax.jit
    def traced(inverse):
        return _solve(operator, b, PCG(1e-8, 0.0, lambda r: inverse @ r)).stats["num_steps"]

    assert traced(inverse) == 1


def test_flexible_copes_with_a_changing_preconditioner(rng):
    operator, b = _system((24, 24), rng)
    crooked = lambda r: r * (1 + 0.3 * jnp.sin(1e3 * r / jnp.linalg.norm(r)))
    steps = {
        flexible: _solve(operator, b, PCG(1e-8, 0.0, crooked, flexible=flexible, max_steps=2000))
        for flexible in (False, True)
    }
    assert steps[True].result == RESULTS.successful
    assert steps[True].stats["num_steps"] < steps[False].stats["num_steps"]


def test_negative_definite(rng):
    operator = _dense(10, rng)
    negative = lx.MatrixLinearOperator(-operator.matrix, lx.negative_semidefinite_tag)
    b = jnp.asarray(rng.normal(size=10))
    value = _solve(negative, b, PCG(1e-12, 0.0)).value
    np.testing.assert_allclose(negative.mv(value), b, atol=1e-8)


def test_trees_are_vectors(rng):
    matrix = _dense(5, rng).matrix
    structure = {"a": jax.ShapeDtypeStruct((2,), float), "b": jax.ShapeDtypeStruct((3,), float)}

    def mv(x):
        y = matrix @ jnp.concatenate([x["a"], x["b"]])
        return {"a": y[:2], "b": y[2:]}

    operator = lx.FunctionLinearOperator(mv, structure, lx.positive_semidefinite_tag)
    b = {"a": jnp.ones(2), "b": jnp.ones(3)}
    value = _solve(operator, b, PCG(1e-12, 0.0)).value
    np.testing.assert_allclose(matrix @ jnp.concatenate([value["a"], value["b"]]), 1, atol=1e-9)


def test_singular_systems(rng):
    operator = poisson((9, 7), boundary="neumann")
    basis = jinv.linear.null_space(operator)
    b = jnp.asarray(rng.normal(size=(9, 7)))
    solution = _solve(operator, b, PCG(1e-10, 0.0, null_space=basis))
    exact = np.linalg.pinv(operator.as_matrix().reshape(63, 63)) @ b.ravel()
    np.testing.assert_allclose(solution.value.ravel(), exact, atol=1e-9)
    part = abs(jnp.sum(b)) / 63**0.5 / jnp.linalg.norm(b)
    np.testing.assert_allclose(solution.stats["incompatible"], part, rtol=1e-10)
    assert solution.result == RESULTS.successful
    # Without being told, the part outside the range cannot be solved; nothing is hidden.
    blind = _solve(operator, b, PCG(1e-10, 0.0, max_steps=500))
    assert blind.result != RESULTS.successful
    compatible = operator.mv(b)
    assert _solve(operator, compatible, PCG(1e-10, 0.0)).result == RESULTS.successful


def test_failures_are_results(rng):
    operator, b = _system((20, 20), rng)
    assert _solve(operator, b, PCG(1e-9, 0.0, max_steps=3)).result == RESULTS.max_steps_reached
    nan = _solve(operator, b.at[0, 0].set(jnp.nan), PCG(1e-9, 0.0))
    assert nan.result == RESULTS.nonfinite_input
    guess = {"y0": b.at[0, 0].set(jnp.nan)}
    assert _solve(operator, b, PCG(1e-9, 0.0), options=guess).result == RESULTS.nonfinite_input
    poisoned = eqx.tree_at(lambda d: d.sink, operator, operator.sink + jnp.nan)
    assert _solve(poisoned, b, PCG(1e-9, 0.0)).result == RESULTS.breakdown
    indefinite = lx.DiagonalLinearOperator(jnp.array([1.0, -1.0, 2.0]))
    indefinite = lx.TaggedLinearOperator(indefinite, lx.positive_semidefinite_tag)
    assert _solve(indefinite, jnp.ones(3), PCG(1e-9, 0.0)).result == RESULTS.breakdown
    backwards = PCG(1e-9, 0.0, lambda r: -r)
    assert _solve(operator, b, backwards).result == RESULTS.breakdown
    zero = _solve(operator, jnp.zeros_like(b), PCG(1e-9, 0.0))
    assert zero.result == RESULTS.successful and zero.stats["num_steps"] == 0
    np.testing.assert_array_equal(zero.value, 0)
    with pytest.raises(Exception, match="maximum number of solver steps"):
        lx.linear_solve(operator, b, PCG(1e-9, 0.0, max_steps=3))


def test_impossible_tolerance_ends_at_the_attainable_accuracy(rng):
    operator, b = _system((24, 24), rng, jnp.float32)
    solution = _solve(operator, b, PCG(1e-12, 0.0, Multigrid()))
    true = jnp.linalg.norm(b - operator.mv(solution.value)) / jnp.linalg.norm(b)
    assert solution.result == RESULTS.successful and solution.stats["num_steps"] < 60
    assert true < 1e-5


@pytest.mark.parametrize("n", [64, 97])
def test_refinement_has_the_accuracy_of_the_wide_dtype(n, rng):
    operator, b = _system((n, n), rng)
    inner = PCG(1e-3, 0.0, Multigrid())
    solution = _solve(operator, b, Refinement(inner, 1e-11, 0.0))
    true = jnp.linalg.norm(b - operator.mv(solution.value)) / jnp.linalg.norm(b)
    assert solution.result == RESULTS.successful and true <= 1e-11
    assert solution.value.dtype == jnp.float64 and solution.stats["num_rounds"] <= 6
    assert _solve(operator, 0 * b, Refinement(inner, 1e-11, 0.0)).result == RESULTS.successful
    bad = _solve(operator, b.at[0].set(jnp.inf), Refinement(inner, 1e-11, 0.0))
    assert bad.result == RESULTS.nonfinite_input


def test_refinement_says_when_the_narrow_solver_is_useless(rng):
    operator = _dense(40, rng, condition=1e12)
    b = jnp.asarray(rng.normal(size=40))
    solver = Refinement(PCG(1e-3, 0.0, max_steps=20), 1e-10, 0.0)
    assert _solve(operator, b, solver).result == RESULTS.stagnation
    one = _dense(40, rng)
    few = Refinement(PCG(0.2, 0.0, max_steps=400), 1e-10, 0.0, max_rounds=2)
    assert _solve(one, b, few).result == RESULTS.max_steps_reached


def _lanes(solver, operators, vectors):
    return jax.vmap(lambda A, b: _solve(A, b, solver))(operators, vectors)


@pytest.mark.parametrize("preconditioner", [None, Multigrid()], ids=named)
def test_many_right_hand_sides_stop_one_by_one(preconditioner, rng):
    operator, _ = _system((24, 24), rng)
    vectors = np.asarray(rng.normal(size=(32, 24, 24)))
    vectors[:16] = jax.vmap(operator.mv)(jnp.asarray(vectors[:16]))
    vectors[5] = 0
    vectors = jnp.asarray(vectors)
    solver = PCG(1e-10, 0.0, preconditioner)
    batch = jax.vmap(lambda b: _solve(operator, b, solver))(vectors)
    one = jax.jit(lambda b: _solve(operator, b, solver))
    for lane, b in enumerate(vectors):
        alone = one(b)
        # Sums of a batch are rounded differently, which a hundred steps make visible.
        rounded = preconditioner is None
        difference = abs(batch.stats["num_steps"][lane] - alone.stats["num_steps"])
        assert difference <= (10 if rounded else 0)
        atol = 1e-6 if rounded else 1e-12
        np.testing.assert_allclose(batch.value[lane], alone.value, rtol=0, atol=atol)
    assert batch.stats["num_steps"][5] == 0 and len(set(batch.stats["num_steps"].tolist())) > 1


def test_many_geometries(rng):
    keys = jax.random.split(jax.random.key(0), 8)
    cells = jax.jit(jax.vmap(lambda key: jinv.linear.random_obstacles((17, 14), key=key)))(keys)
    make = lambda c: jinv.linear.pressure_poisson(c, open_sides=[(0, 1)])
    source = jinv.linear.random_source
    b = jax.jit(jax.vmap(lambda c, key: source(make(c), key=key)))(cells, keys)
    solver = PCG(1e-8, 0.0, Multigrid())
    one = jax.jit(lambda c, b: _solve(make(c), b, solver))
    batch = jax.jit(jax.vmap(one))(cells, b)
    for lane in range(8):
        alone = one(cells[lane], b[lane])
        assert batch.stats["num_steps"][lane] == alone.stats["num_steps"]
        np.testing.assert_allclose(batch.value[lane], alone.value, rtol=0, atol=1e-10)
    assert (batch.stats["residual"] <= 1e-8).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: PCG(1e-13, 0.0, Multigrid()),
        lambda: Refinement(PCG(1e-3, 0.0, Multigrid()), 1e-13, 0.0),
    ],
    ids=["PCG", "Refinement"],
)
def test_derivatives(make, rng):
    solver, shape = make(), (13, 12)
    k = jnp.asarray(np.exp(rng.normal(size=shape)))
    b, weights = jnp.asarray(rng.normal(size=(2, *shape)))

    def functional(k, b, faces):
        operator = jinv.linear.heterogeneous_diffusion(k)
        operator = eqx.tree_at(lambda d: d.faces[0], operator, operator.faces[0] + faces)
        return jnp.sum(weights * lx.linear_solve(operator, b, solver).value)

    point = k, b, jnp.zeros((14, 12))
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)
    f = jax.jit(functional)
    along = lambda t: f(*jax.tree.map(lambda x, d: x + t * d, point, direction))
    h = 1e-5
    difference = (8 * (along(h) - along(-h)) - along(2 * h) + along(-2 * h)) / (12 * h)
    forward = jax.jit(lambda p, d: jax.jvp(functional, p, d)[1])(point, direction)
    gradient = jax.jit(jax.grad(functional, argnums=(0, 1, 2)))(*point)
    reverse = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    np.testing.assert_allclose(forward, difference, rtol=1e-6)
    np.testing.assert_allclose(reverse, difference, rtol=1e-6)


def test_inside_optimistix(rng):
    k = jnp.asarray(np.exp(rng.normal(size=(23, 24))))
    operator = jinv.linear.heterogeneous_diffusion(k)
    b = jnp.asarray(rng.normal(size=(23, 24)))
    residual = lambda x, _: operator.mv(x) + x**3 - b
    tags = frozenset({lx.positive_semidefinite_tag})
    newton = optx.Newton(1e-8, 1e-8, linear_solver=PCG(1e-10, 0.0))
    root = optx.root_find(residual, newton, jnp.zeros_like(b), tags=tags)
    np.testing.assert_allclose(residual(root.value, None), 0, atol=1e-7)


def test_inside_diffrax():
    operator = poisson((8, 8), spacing=1 / 8)
    x = jnp.ones((8, 8))

    solver = Tagged(PCG(1e-10, 0.0), lx.negative_semidefinite_tag)
    roots = optx.Newton(1e-8, 1e-8, linear_solver=solver)
    term = diffrax.ODETerm(lambda t, y, _: -operator.mv(y))
    out = diffrax.diffeqsolve(
        term,
        diffrax.ImplicitEuler(root_finder=roots),
        0.0,
        0.02,
        0.01,
        x,
        stepsize_controller=diffrax.ConstantStepSize(),
    )
    step = np.eye(64) + 0.01 * np.asarray(operator.as_matrix()).reshape(64, 64)
    assert out.ys is not None
    exact = np.linalg.solve(step, np.linalg.solve(step, np.ones(64)))
    np.testing.assert_allclose(out.ys[-1].ravel(), exact, rtol=1e-6)


def test_inside_shard_map(rng):
    operator, _ = _system((14, 14), rng)
    vectors = jnp.asarray(rng.normal(size=(4, 14, 14)))
    solver = PCG(1e-8, 0.0, Multigrid())
    solve = lambda b: solver.compute(solver.init(operator, {}), b, {})[0]
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    sharded = jax.shard_map(jax.vmap(solve), mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    expected = jax.jit(jax.vmap(solve))(vectors)
    np.testing.assert_allclose(jax.jit(sharded)(vectors), expected, atol=1e-10)


@pytest.mark.parametrize("check", [True, False])
def test_linear_solve_inside_shard_map(check, rng):
    """Also over devices. The errors of equinox and lineax's transpose know no varying values: with
    JAX's check there is no `throw` and no derivative in reverse mode."""
    operator, _ = _system((12, 12), rng)
    vectors = jnp.asarray(rng.normal(size=(4, 12, 12)))
    scales = jnp.arange(1.0, 5.0)
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))

    def one(scale, b):
        scaled = Diffusion([scale * w for w in operator.faces], operator.sink)
        return lx.linear_solve(scaled, b, PCG(1e-10, 0.0, Jacobi()), throw=not check).value

    on_devices = jax.jit(
        jax.shard_map(
            jax.vmap(one), mesh=mesh, in_specs=(P("i"), P("i")), out_specs=P("i"), check_vma=check
        )
    )
    here = jax.jit(jax.vmap(one))
    np.testing.assert_allclose(on_devices(scales, vectors), here(scales, vectors), atol=1e-9)
    if not check:
        grads = [
            jax.grad(lambda s, f=f: jnp.sum(f(s, vectors) ** 2))(scales) for f in (on_devices, here)
        ]
        np.testing.assert_allclose(*grads, rtol=1e-6)


def test_changing_tolerances_and_coefficients_does_not_retrace(rng):
    traces = []

    @eqx.filter_jit
    def solve(operator, b, rtol):
        traces.append(1)
        return _solve(operator, b, PCG(rtol, jnp.zeros(()), Multigrid())).value

    for rtol in (1e-3, 1e-6):
        operator, b = _system((24, 24), rng)
        solve(operator, b, jnp.asarray(rtol))
    assert len(traces) == 1


def test_bad_input_is_named(rng):
    operator, b = _system((6, 6), rng)
    untagged = lx.MatrixLinearOperator(jnp.eye(3))
    cases = [
        (lambda: PCG(-1.0, 0.0), "rtol"),
        (lambda: PCG(1.0, float("nan")), "atol"),
        (lambda: PCG(1e-3, 0.0, max_steps=0), "max_steps"),
        (lambda: PCG(1e-3, 0.0, replace_every=0), "replace_every"),
        (lambda: Refinement(PCG(1e-3, 0.0), -1.0, 0.0), "rtol"),
        (lambda: Refinement(PCG(1e-3, 0.0), 1.0, 0.0, max_rounds=0), "max_rounds"),
        (lambda: _solve(untagged, jnp.ones(3), PCG(1e-3, 0.0)), "positive"),
        (lambda: _solve(operator, b, PCG(1e-3, 0.0, untagged)), "preconditioner"),
        (lambda: _solve(operator, b, PCG(1e-3, 0.0, 3.0)), "preconditioner"),
        (lambda: _solve(operator, b, PCG(1e-3, 0.0, null_space=b)), "null_space"),
        (lambda: Chebyshev(-1), "degree"),
        (lambda: Chebyshev(2, condition=1.0), "condition"),
        (lambda: Chebyshev(2, bound=0.0), "bound"),
        (lambda: FastPoisson("periodic"), "boundary"),
        (lambda: FastPoisson([("neumann", "x")]), "boundary"),
        (lambda: FastPoisson([("neumann", "neumann")]).init(operator), "boundary"),
        (lambda: FastPoisson().init(untagged), "Diffusion"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError, match=words):
            make()
    complex_ = lx.MatrixLinearOperator(jnp.eye(3, dtype=complex), lx.positive_semidefinite_tag)
    with pytest.raises(ValueError, match="real"):
        _solve(complex_, jnp.ones(3, complex), PCG(1e-3, 0.0))
    closure = lx.FunctionLinearOperator(
        lambda x: x, jax.ShapeDtypeStruct((3,), float), lx.positive_semidefinite_tag
    )
    with pytest.raises(ValueError, match="cast"):
        _solve(closure, jnp.ones(3), Refinement(PCG(1e-3, 0.0), 1e-6, 0.0))
