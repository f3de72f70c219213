"""Every projection of jinv.prox: feasible, optimal, equal to CVXPY, and differentiable."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jinv import prox as px


pytestmark = pytest.mark.usefixtures("quick_compilation")


_rng = np.random.default_rng(11)
N = 6
A = _rng.normal(size=(2, N))
B = A @ _rng.normal(size=N)
G = _rng.normal(size=(9, N))
H = np.abs(_rng.normal(size=9)) + 0.1
LOW = -np.abs(_rng.normal(size=N))
UP = np.abs(_rng.normal(size=N))
NORMAL = _rng.normal(size=N)
ROWS = np.array([0.5, 1.0, 0.2])
COLUMNS = np.array([0.4, 0.3, 0.6, 0.4])


def margins(u, rows, columns):
    return [u >= 0, cp.sum(u, axis=1) == rows, cp.sum(u, axis=0) == columns]


# name -> (indicator, shape of its points, the same set in CVXPY)
CONVEX = {
    "Box": (px.Box(LOW, UP), (N,), lambda u: [u >= LOW, u <= UP]),
    "NonNegative": (px.NonNegative(), (N,), lambda u: [u >= 0]),
    "LInfBall": (px.LInfBall(0.7), (N,), lambda u: [cp.norm(u, "inf") <= 0.7]),
    "Simplex": (px.Simplex(1.7), (N,), lambda u: [u >= 0, cp.sum(u) == 1.7]),
    "Simplex axis": (
        px.Simplex(1.7, axis=0), (N, 2), lambda u: [u >= 0, cp.sum(u, axis=0) == 1.7]),
    "L1Ball": (px.L1Ball(1.3), (N,), lambda u: [cp.norm(u, 1) <= 1.3]),
    "L1Ball axis": (
        px.L1Ball(1.3, axis=-1), (2, 3), lambda u: [cp.sum(cp.abs(u), axis=1) <= 1.3]),
    "L2Ball": (px.L2Ball(1.3), (N,), lambda u: [cp.norm(u, 2) <= 1.3]),
    "L2Ball centre": (px.L2Ball(0.9, UP), (N,), lambda u: [cp.norm(u - UP, 2) <= 0.9]),
    "Hyperplane": (px.Hyperplane(NORMAL, 0.7), (N,), lambda u: [NORMAL @ u == 0.7]),
    "HalfSpace": (px.HalfSpace(NORMAL, -0.7), (N,), lambda u: [NORMAL @ u <= -0.7]),
    "AffineSet": (px.AffineSet(A, B), (N,), lambda u: [A @ u == B]),
    "BoxSection": (
        px.BoxSection(LOW, UP, NORMAL, 0.1), (N,),
        lambda u: [u >= LOW, u <= UP, NORMAL @ u == 0.1]),
    "BoxSection half open": (
        px.BoxSection(LOW, np.inf, NORMAL, 3.1), (N,), lambda u: [u >= LOW, NORMAL @ u == 3.1]),
    "BoxSection open": (
        px.BoxSection(-np.inf, np.inf, NORMAL, 3.1), (N,), lambda u: [NORMAL @ u == 3.1]),
    "BoxSection with zero": (
        px.BoxSection(LOW, UP, NORMAL * (np.arange(N) > 1), 0.1), (N,),
        lambda u: [u >= LOW, u <= UP, (NORMAL * (np.arange(N) > 1)) @ u == 0.1]),
    "capped simplex": (
        px.BoxSection(0.0, 1.0, 1.0, 2.3), (N,), lambda u: [u >= 0, u <= 1, cp.sum(u) == 2.3]),
    "Transport": (px.Transport(ROWS, COLUMNS), (3, 4), lambda u: margins(u, ROWS, COLUMNS)),
    "Birkhoff": (px.Birkhoff(), (4, 4), lambda u: margins(u, np.ones(4), np.ones(4))),
    "Polyhedron": (px.Polyhedron(G, H), (N,), lambda u: [G @ u <= H]),
    "Polyhedron with equations": (
        px.Polyhedron(G, H + 1, A, A @ UP / 9), (N,),
        lambda u: [G @ u <= H + 1, A @ u == A @ UP / 9]),
    "NuclearBall": (px.NuclearBall(1.9), (3, 4), lambda u: [cp.normNuc(u) <= 1.9]),
    "PositiveSemidefinite": (px.PositiveSemidefinite(), (4, 4), lambda u: [u >> 0, u == u.T]),
}  # fmt: skip
NONCONVEX = {
    "L1Sphere": (px.L1Sphere(1.3), (N,)),
    "L2Sphere": (px.L2Sphere(1.3), (N,)),
    "L2Sphere centre": (px.L2Sphere(1.3, UP), (N,)),
    "SparseSimplex": (px.SparseSimplex(3, 1.7), (N,)),
}
# Variants that CVXPY alone has to check.
VARIANTS = {"BoxSection half open", "BoxSection open", "L1Ball axis", "NonNegative", "L2Ball"}
CORE = {k: v[:2] for k, v in CONVEX.items() if k not in VARIANTS}
ALL = {k: v[:2] for k, v in CONVEX.items()} | NONCONVEX


# Compiled once per set and dtype, and shared by the tests.
ONE = jnp.asarray(1.0)
PROJECT = eqx.filter_jit(lambda g, v: g.prox(v, ONE))
MANY = eqx.filter_jit(jax.vmap(lambda g, v: (g.prox(v, ONE), g(g.prox(v, ONE))), (None, 0)))
VALUE = eqx.filter_jit(lambda g, x: g(x))


@eqx.filter_jit
def jacobian(g, v):
    """The derivative of the projection in the point and in every parameter."""
    params, static = eqx.partition(g, eqx.is_inexact_array)
    fun = lambda v, params: eqx.combine(params, static).prox(v, ONE)
    return jax.jacrev(fun, argnums=(0, 1))(v, params)


def ids(table):
    return pytest.mark.parametrize("name", sorted(table))


@ids(CONVEX)
def test_against_cvxpy(name, rng):
    g, shape, constraints = CONVEX[name]
    for scale in (1.0, 20.0):
        v = rng.normal(size=shape) * scale
        p = PROJECT(g, jnp.asarray(v))
        assert VALUE(g, p) == 0
        u = cp.Variable(shape)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(u - v)), constraints(u))
        problem.solve(solver="CLARABEL")
        found = np.asarray(u.value)
        np.testing.assert_allclose(p, found, atol=2e-5 * scale)
        cost = np.sum((found - v) ** 2)
        assert jnp.sum((p - v) ** 2) <= cost + 1e-6 * max(1, cost)


@ids(CORE)
def test_variational_inequality(name, rng):
    """<v - p, u - p> <= 0 for every u of the set, which projections of other points are."""
    g, shape = CORE[name]
    v = jnp.asarray(rng.normal(size=(20, *shape)) * 2)
    p, values = MANY(g, v)
    assert jnp.all(values == 0)
    a, b = v.reshape(20, -1), p.reshape(20, -1)
    gap = jnp.sum((a - b) * b, axis=1)
    assert jnp.all((a - b) @ b.T <= gap[:, None] + 1e-9)
    np.testing.assert_allclose(p[0], PROJECT(g, v[0]), atol=1e-11)  # vmap = loop
    np.testing.assert_allclose(PROJECT(g, p[0]), p[0], atol=1e-9)  # twice is once


@ids(NONCONVEX)
def test_nonconvex_sets(name, rng):
    g, shape = NONCONVEX[name]
    v = jnp.asarray(rng.normal(size=(300, *shape))).at[0].set(0)
    p, values = MANY(g, v)
    assert jnp.all(values == 0)
    distance = np.linalg.norm(v[:, None] - p[None], axis=-1)
    assert np.all(np.diag(distance) <= np.min(distance, axis=1) + 1e-9)


def test_sparse_simplex_against_all_supports(rng):
    import itertools

    v = jnp.asarray(rng.normal(size=N))
    p = px.SparseSimplex(3).prox(v, 1.0)
    best = min(
        float(jnp.sum((px.Simplex().prox(v[jnp.asarray(s)], 1.0) - v[jnp.asarray(s)]) ** 2))
        + float(jnp.sum(jnp.delete(v, jnp.asarray(s)) ** 2))
        for s in itertools.combinations(range(N), 3)
    )
    np.testing.assert_allclose(jnp.sum((p - v) ** 2), best, rtol=1e-12)
    full = px.SparseSimplex(N).prox(v, 1.0)
    np.testing.assert_allclose(full, px.Simplex().prox(v, 1.0))


@ids(CORE | NONCONVEX)
def test_derivatives(name, rng):
    """In the point and in every parameter; symmetric and between 0 and 1 in the point."""
    g, shape = ALL[name]
    v = jnp.asarray(rng.normal(size=shape) * 2)
    J = jacobian(g, v)
    if name in CONVEX:
        square = np.asarray(J[0]).reshape(v.size, v.size)
        np.testing.assert_allclose(square, square.T, atol=1e-8)
        e = np.linalg.eigvalsh(square)
        assert e[0] >= -1e-8 and e[-1] <= 1 + 1e-8
    params, static = eqx.partition(g, eqx.is_inexact_array)
    args = (v, params)
    tangents = jax.tree.map(lambda x: rng.normal(size=x.shape), args)
    tangents = jax.tree.map(lambda x, d: np.where(np.isfinite(x), d, 0), args, tangents)
    if "zero" in name:  # an entry of the normal that is exactly zero is a kink
        tangents = eqx.tree_at(lambda t: t[1].a, tangents, tangents[1].a * (np.arange(N) > 1))
    if name == "Transport":  # margins keep equal sums
        margins = [d - d.mean() for d in (tangents[1].rows, tangents[1].columns)]
        tangents = eqx.tree_at(lambda t: [t[1].rows, t[1].columns], tangents, margins)
    eps = 1e-6
    ends = []
    for e in (eps, -eps):
        v, moved = jax.tree.map(lambda x, d, e=e: x + e * d, args, tangents)
        ends.append(PROJECT(eqx.combine(moved, static), v))
    numeric = (ends[0] - ends[1]) / (2 * eps)
    assert all(bool(jnp.all(jnp.isfinite(j))) for j in jax.tree.leaves(J))
    terms = jax.tree.map(lambda j, d: np.tensordot(j, d, axes=np.ndim(d)), J, tangents)
    np.testing.assert_allclose(sum(jax.tree.leaves(terms)), numeric, rtol=2e-6, atol=2e-7)


@eqx.filter_jit
def _slope(g, v):
    p, pull = jax.vjp(lambda u: g.prox(u, ONE), v)
    return p, g(p), pull(jnp.ones_like(p))[0]


@ids(CORE | NONCONVEX)
def test_flat_points_and_float32(name, rng):
    g, shape = ALL[name]
    v = jnp.asarray(rng.normal(size=shape) * 3)
    for u in (jnp.zeros(shape), jnp.ones(shape), v):
        p, value, slope = _slope(g, u.astype(jnp.float32))
        assert p.dtype == value.dtype == jnp.float32 and value == 0
        assert jnp.all(jnp.isfinite(slope))
    np.testing.assert_allclose(p, PROJECT(g, v), atol=2e-5)


def test_outside_is_infinite():
    far = jnp.array([50.0, -50.0] * 3)
    for name, (g, shape) in ALL.items():
        if shape == (N,):
            assert jnp.isinf(g(far)), name
    assert jnp.isinf(px.PositiveSemidefinite()(-jnp.eye(2)))
    assert jnp.isinf(px.PositiveSemidefinite()(jnp.array([[1.0, 2.0], [0.0, 1.0]])))
    assert jnp.isinf(px.NuclearBall(1.0)(jnp.eye(2)))
    assert jnp.isinf(px.Transport(ROWS, COLUMNS)(jnp.ones((3, 4))))


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_simplex_against_sort(size, rng):
    for scale, offset, radius in ((1.0, 0.0, 1.0), (1e-3, 1e4, 0.3), (100.0, -1e3, 50.0)):
        v = rng.normal(size=size) * scale + offset
        u = np.sort(v)[::-1]
        k = np.arange(1, size + 1)
        level = (np.cumsum(u - u[0]) - radius) / k + u[0]
        theta = level[np.nonzero(u > level)[0][-1]]
        p = px.Simplex(radius).prox(jnp.asarray(v), 1.0)
        np.testing.assert_allclose(p, np.maximum(v - theta, 0), atol=1e-9 * max(1, scale))
        low = px.Simplex(radius).prox(jnp.asarray(v, jnp.float32), 1.0)
        np.testing.assert_allclose(jnp.sum(low), radius, rtol=1e-5)


def test_simplex_ties_and_bad_values():
    np.testing.assert_allclose(px.Simplex().prox(jnp.zeros(4), 1.0), 0.25)
    np.testing.assert_allclose(px.L1Ball(0.0).prox(jnp.array([3.0, -2.0]), 1.0), 0)
    J = jax.jacfwd(lambda v: px.Simplex().prox(v, 1.0))(jnp.zeros(4))
    np.testing.assert_allclose(J, np.eye(4) - 0.25)
    # A NaN ends the search instead of hanging it.
    assert jnp.all(jnp.isnan(px.Simplex().prox(jnp.array([1.0, jnp.nan]), 1.0)))


def test_box_section_infeasible():
    g = px.BoxSection(0.0, 1.0, 1.0, 9.0)
    p = g.prox(jnp.zeros(N), 1.0)
    np.testing.assert_allclose(p, 1.0)
    assert jnp.isinf(g(p))


def test_second_order_cone(rng):
    g = px.SecondOrderCone()
    for scale in (0.3, 1.0, 3.0):
        x, s = rng.normal(size=3), rng.normal() * scale
        p = g.prox((jnp.asarray(x), jnp.asarray(s)), 1.0)
        assert g(p) == 0
        u, w = cp.Variable(3), cp.Variable()
        cost = cp.sum_squares(u - x) + cp.square(w - s)
        cp.Problem(cp.Minimize(cost), [cp.norm(u, 2) <= w]).solve(solver="CLARABEL")
        np.testing.assert_allclose(p[0], np.asarray(u.value), atol=1e-5)
        np.testing.assert_allclose(p[1], np.asarray(w.value), atol=1e-5)
        # Moreau: the cone and its polar split every point.
        q = (x - p[0], s - p[1])
        assert abs(jnp.sum(p[0] * q[0]) + p[1] * q[1]) < 1e-12
        assert jnp.linalg.norm(q[0]) <= -q[1] + 1e-12
    inside = (jnp.zeros(3, jnp.float32), jnp.asarray(0.0, jnp.float32))
    _, pull = jax.vjp(lambda v: g.prox(v, 1.0), inside)
    assert all(bool(jnp.all(jnp.isfinite(d))) for d in pull(inside)[0])


def test_affine_set_with_operators(rng):
    v = jnp.asarray(rng.normal(size=N))
    want = px.AffineSet(A, B).prox(v, 1.0)
    dense = lx.MatrixLinearOperator(jnp.asarray(A))
    free = lx.FunctionLinearOperator(dense.mv, dense.in_structure())
    iterative = px.AffineSet(free, B, solver=lx.Normal(lx.CG(rtol=1e-12, atol=1e-12)))
    np.testing.assert_allclose(iterative.prox(v, 1.0), want, atol=1e-9)
    twice = px.AffineSet(np.concatenate([A, A]), np.concatenate([B, B]), solver=lx.SVD())
    np.testing.assert_allclose(twice.prox(v, 1.0), want, atol=1e-9)


def test_transport_larger(rng):
    rows, columns = rng.random(30), rng.random(40)
    rows, columns = rows / rows.sum(), columns / columns.sum()
    g = px.Transport(rows, columns)
    run = jax.jit(lambda v: g.prox(v, 1.0))
    feasible = rng.random((20, 30, 40)) ** 8
    for _ in range(300):
        feasible *= (rows / feasible.sum(2))[:, :, None]
        feasible *= (columns / feasible.sum(1))[:, None, :]
    for scale in (0.01, 1.0, 30.0):
        v = jnp.asarray(rng.normal(size=(30, 40)) * scale)
        p = run(v)
        assert g(p) == 0
        np.testing.assert_allclose(p.sum(0), columns, atol=1e-11)
        np.testing.assert_allclose(p.sum(1), rows, atol=1e-11)
        gain = np.sum(np.asarray(v - p) * (feasible - np.asarray(p)), axis=(1, 2))
        assert np.all(gain <= 1e-9 * scale)
    low = run(v.astype(jnp.float32))
    np.testing.assert_allclose(low.sum(0), columns, atol=1e-5)


def test_polyhedron_degenerate():
    """A vertex with more active constraints than dimensions, and repeated constraints."""
    square = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    g = px.Polyhedron(square, np.array([1.0, 1.0, 2.0, 2.0, 2.0]))
    p = g.prox(jnp.array([3.0, 4.0]), 1.0)
    np.testing.assert_allclose(p, 1.0, atol=1e-9)
    slope = jax.grad(lambda v: jnp.sum(g.prox(v, 1.0)))(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)
    inside = jnp.array([0.2, 0.3])
    np.testing.assert_allclose(g.prox(inside, 1.0), inside, atol=1e-9)
    empty = px.Polyhedron(np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0]))
    assert jnp.isinf(empty(empty.prox(jnp.zeros(1), 1.0)))
