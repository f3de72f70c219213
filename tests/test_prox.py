"""Every functional of jinv.prox against brute force, and the laws that proximal maps obey."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jinv import prox as px


pytestmark = pytest.mark.usefixtures("quick_compilation")


W = np.array([0.3, 0.8, 0.0, 1.2, 0.5])
Y = np.array([0.2, -0.7, 1.5, 0.0, 2.0])
COUNTS = np.array([0.0, 1.0, 3.0, 0.0, 7.0])
Q = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))[0]


def lin(matrix):
    return lx.MatrixLinearOperator(jnp.asarray(matrix))


# Compiled once per functional and dtype, and shared by the tests: steps are arrays, or they
# would be compiled in.
PROX = eqx.filter_jit(lambda g, v, t: g.prox(v, t))
STAR = eqx.filter_jit(lambda g, z, s: g.conjugate_prox(z, s))
VALUE = eqx.filter_jit(lambda g, x: g(x))
MANY = eqx.filter_jit(
    jax.vmap(lambda g, v, t: (g.prox(v, t), g.conjugate_prox(v, t)), (None, 0, 0))
)


@eqx.filter_jit
def jacobian(g, v, t):
    """The prox and its derivative in the point, the step and every parameter."""
    params, static = eqx.partition(g, eqx.is_inexact_array)

    def fun(v, t, params):
        p = eqx.combine(params, static).prox(v, t)
        return p, p

    J, p = jax.jacrev(fun, argnums=(0, 1, 2), has_aux=True)(v, t, params)
    return p, J


def directional(J, tangents):
    terms = jax.tree.map(lambda j, d: np.tensordot(j, d, axes=np.ndim(d)), J, tangents)
    return sum(jax.tree.leaves(terms))


# Sums of functions of single entries: checked against a dense grid, entry by entry.
SCALAR = {
    "L1": px.L1(0.7),
    "L1 weighted": px.L1(W),
    "SquaredL2": px.SquaredL2(1.3),
    "SquaredL2 weighted": px.SquaredL2(W),
    "ElasticNet": px.ElasticNet(0.4, 0.9),
    "Huber": px.Huber(0.6, 1.4),
    "Entropy": px.Entropy(0.8),
    "LogBarrier": px.LogBarrier(0.5),
    "KullbackLeibler": px.KullbackLeibler(COUNTS),
    "KullbackLeibler background": px.KullbackLeibler(COUNTS, 0.4),
    "Zero": px.Zero(),
    "Box": px.Box(-0.5, 1.0),
    "NonNegative": px.NonNegative(),
    "LInfBall": px.LInfBall(0.8),
    "non-negative lasso": px.Restricted(px.L1(0.7)),
    "non-negative ridge": px.Restricted(px.SquaredL2(0.7)),
    "bounded Poisson": px.Restricted(px.KullbackLeibler(COUNTS, 0.4), 0.0, 3.0),
    "Scaled": px.Scaled(px.Huber(0.6), 2.5),
    "Translated": px.Translated(px.L1(0.6), Y),
    "ArgumentScaled": px.ArgumentScaled(px.ElasticNet(0.4, 0.9), -1.7),
    "Tilted": px.Tilted(px.Entropy(), Y),
    "Regularised": px.Regularised(px.L1(0.6), 0.9),
    "nested": px.Scaled(px.Translated(px.ArgumentScaled(px.L1(), 2.0), Y), 0.3),
}
NONCONVEX = {
    "L0": px.L0(0.4),
    "MCP": px.MCP(0.7, 2.5),
    "MCP small shape": px.MCP(0.7, 0.6),
    "SCAD": px.SCAD(0.6, 3.7),
    "SCAD small shape": px.SCAD(0.6, 2.1),
    "LogSum": px.LogSum(0.9, 0.3),
    "LogSum convex": px.LogSum(0.2, 1.5),
}
# Coupled convex functionals: checked against a numerical minimiser.
COUPLED = {
    "L2": (px.L2(0.9), (5,)),
    "LInf": (px.LInf(1.1), (5,)),
    "GroupL2": (px.GroupL2(0.8, axis=0), (2, 4)),
    "GroupL2 long": (px.GroupL2(0.8, axis=-1), (2, 6)),
    "GroupL2 weighted": (px.GroupL2(np.array([[0.2, 0.9, 0.0]]), axis=0), (3, 3)),
    "GroupL2 two axes": (px.GroupL2(0.8, axis=(0, 2)), (2, 3, 2)),
    "NuclearNorm": (px.NuclearNorm(0.8), (3, 4)),
    "Orthogonal": (px.Orthogonal(px.L1(0.5), lin(Q)), (5,)),
    "Orthogonal frame": (px.Orthogonal(px.L1(0.5), lin(2 * Q[:3]), 4.0), (5,)),
    "Translated norm": (px.Translated(px.L2(0.9), Y), (5,)),
    "Regularised norm": (px.Regularised(px.LInf(1.1), 0.4), (5,)),
}
CONVEX = {k: (g, (5,)) for k, g in SCALAR.items()} | COUPLED
ALL = CONVEX | {k: (g, (5,)) for k, g in NONCONVEX.items()}


def ids(table):
    return pytest.mark.parametrize("name", sorted(table))


def objective(g, u, v, t):
    return g(u) + jnp.sum(jnp.abs(u - v) ** 2) / (2 * t)


@ids(SCALAR | NONCONVEX)
@pytest.mark.parametrize("t", [0.4, 1.7])
def test_entries_against_grid(name, t, rng):
    g = (SCALAR | NONCONVEX)[name]
    v, t = jnp.asarray(rng.normal(size=5) * 2.5), jnp.asarray(t)
    p = PROX(g, v, t)
    # Each entry in turn runs over a grid, refined around the prox and around zero.
    grid = np.concatenate([np.linspace(-9, 9, 4001), np.linspace(-1e-3, 1e-3, 401), [1e-9]])
    values = np.concatenate([grid[None] + np.asarray(p)[:, None], np.tile(grid, (5, 1))], axis=1)
    best, others = _scan(g, p, jnp.asarray(values), v, t)
    assert jnp.isfinite(best)
    # Grid points of indicators may overstep by the documented slack.
    assert jnp.all(others >= best - 3e-7)


@eqx.filter_jit
def _scan(g, p, values, v, t):
    def along(i, column):
        return jax.vmap(lambda a: objective(g, p.at[i].set(a), v, t))(column)

    return objective(g, p, v, t), jax.vmap(along)(jnp.arange(p.size), values)


def group_norms(u, axis):
    return cp.sum(cp.norm(u, 2, axis=axis))


MODELS = {
    "L2": lambda u: 0.9 * cp.norm(u, 2),
    "LInf": lambda u: 1.1 * cp.norm(u, "inf"),
    "GroupL2": lambda u: 0.8 * group_norms(u, 0),
    "GroupL2 long": lambda u: 0.8 * group_norms(u, 1),
    "GroupL2 weighted": lambda u: np.array([0.2, 0.9, 0.0]) @ cp.norm(u, 2, axis=0),
    "NuclearNorm": lambda u: 0.8 * cp.normNuc(u),
    "Orthogonal": lambda u: 0.5 * cp.norm(Q @ u, 1),
    "Orthogonal frame": lambda u: 0.5 * cp.norm(2 * Q[:3] @ u, 1),
    "Translated norm": lambda u: 0.9 * cp.norm(u - Y, 2),
    "Regularised norm": lambda u: 1.1 * cp.norm(u, "inf") + 0.2 * cp.sum_squares(u),
}


@eqx.filter_jit
def _objectives(g, points, v, t):
    return jax.vmap(lambda u: objective(g, u, v, t))(points)


@ids(COUPLED)
def test_coupled_against_minimiser(name, rng):
    g, shape = COUPLED[name]
    t = 0.8
    for scale in (0.3, 2.0):
        v = jnp.asarray(rng.normal(size=shape) * scale)
        p = PROX(g, v, jnp.asarray(t))
        size = 10 ** rng.uniform(-5, 0, size=(2000, *[1] * len(shape)))
        near = jnp.concatenate([p[None], p[None] + rng.normal(size=(2000, *shape)) * size])
        values = _objectives(g, near, v, t)
        best = values[0]
        assert jnp.min(values) >= best
        if name in MODELS:
            u = cp.Variable(shape)
            model = MODELS[name](u) + cp.sum_squares(u - np.asarray(v)) / (2 * t)
            cp.Problem(cp.Minimize(model)).solve(
                solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10
            )
            found = np.asarray(u.value)
            np.testing.assert_allclose(best, objective(g, jnp.asarray(found), v, t), atol=1e-8)
            np.testing.assert_allclose(p, found, atol=2e-5)


@ids(CONVEX)
def test_moreau_identity(name, rng):
    g, shape = CONVEX[name]
    v, s = jnp.asarray(rng.normal(size=shape) * 2), jnp.asarray(0.6)
    np.testing.assert_allclose(STAR(g, v, s), v - s * PROX(g, v / s, 1 / s), atol=1e-12)


@ids(CONVEX)
def test_conjugate_value(name, rng):
    g, shape = CONVEX[name]
    star = px.Conjugate(g)
    u = jnp.asarray(rng.normal(size=shape) * 2)
    p = PROX(g, u, jnp.asarray(1.0))
    z = u - p
    value = star(z)
    if hasattr(g, "conjugate"):
        # Fenchel-Young with equality: z is a subgradient of g at p.
        np.testing.assert_allclose(g(p) + value, jnp.sum(p * z), atol=1e-7)
    else:
        assert jnp.isnan(value)


@ids(CONVEX)
def test_firmly_nonexpansive(name, rng):
    g, shape = CONVEX[name]
    v = jnp.asarray(rng.normal(size=(60, *shape)) * 3)
    t = jnp.full(60, 0.9)
    p, q = MANY(g, v, t)
    d, e = (u.reshape(60, -1) for u in (p, v))
    d, e = d[:, None] - d[None], e[:, None] - e[None]
    assert jnp.all(jnp.sum(d * d, -1) <= jnp.sum(d * e, -1) + 1e-10)
    for i in (0, 7):  # vmap = loop
        np.testing.assert_allclose(p[i], PROX(g, v[i], t[i]), atol=1e-12)
        np.testing.assert_allclose(q[i], STAR(g, v[i], t[i]), atol=1e-12)


@ids(ALL)
def test_derivatives(name, rng):
    """In the point, the step and every parameter; symmetric and between 0 and 1 in the point."""
    g, shape = ALL[name]
    v, t = jnp.asarray(rng.normal(size=shape) * 2), jnp.asarray(0.73)
    _, J = jacobian(g, v, t)
    if name in CONVEX:
        square = np.asarray(J[0]).reshape(v.size, v.size)
        np.testing.assert_allclose(square, square.T, atol=1e-9)
        e = np.linalg.eigvalsh(square)
        assert e[0] >= -1e-10 and e[-1] <= 1 + 1e-10
    params, static = eqx.partition(g, eqx.is_inexact_array)
    args = (v, t, params)
    tangents = jax.tree.map(lambda x: rng.normal(size=x.shape), args)
    # Zero weights and counts sit at the border of their domain: hold them.
    tangents = jax.tree.map(lambda x, d: np.where(x == 0, 0, d), args, tangents)
    if "Orthogonal" in name:  # the operator must stay orthogonal
        dead = jax.tree.map(np.zeros_like, tangents[2])
        dead = eqx.tree_at(lambda g: g.functional, dead, tangents[2].functional)
        tangents = (*tangents[:2], dead)
    eps = 1e-6
    ends = []
    for e in (eps, -eps):
        v, t, moved = jax.tree.map(lambda x, d, e=e: x + e * d, args, tangents)
        ends.append(PROX(eqx.combine(moved, static), v, t))
    numeric = (ends[0] - ends[1]) / (2 * eps)
    np.testing.assert_allclose(directional(J, tangents), numeric, rtol=1e-6, atol=1e-7)


VARIANTS = {"L1 weighted", "SquaredL2 weighted", "KullbackLeibler background", "nested",
            "non-negative ridge", "bounded Poisson", "GroupL2 two axes", "Translated norm",
            "Regularised norm", "Orthogonal frame", "LogSum convex", "MCP small shape"}  # fmt: skip


@ids(ALL.keys() - VARIANTS)
def test_flat_input_and_float32(name, rng):
    g, shape = ALL[name]
    if "Orthogonal" in name:  # lineax operators have the dtype they were given
        g = jax.tree.map(lambda x: x.astype(jnp.float32), g)
    t = jnp.asarray(0.73)
    for fill in (0.0, 1.0):
        v = jnp.full(shape, fill, jnp.float32)
        p, J = jacobian(g, v, t)
        assert p.dtype == jnp.float32
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(J))
        assert VALUE(g, v).dtype == jnp.float32
    v = jnp.asarray(rng.normal(size=shape) * 2)
    low = PROX(g, v.astype(jnp.float32), t), STAR(g, v.astype(jnp.float32), t)
    g = ALL[name][0]
    for got, want in zip(low, (PROX(g, v, t), STAR(g, v, t)), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["L1", "L2", "GroupL2", "Huber", "LInf", "Entropy"])
def test_value_gradient_at_zero(name):
    g, shape = CONVEX[name]
    assert not jnp.any(jnp.isnan(jax.grad(lambda u: g(u))(jnp.zeros(shape))))


COMPLEX = {
    "L1": (px.L1(0.7), (4,)),
    "SquaredL2": (px.SquaredL2(1.3), (4,)),
    "ElasticNet": (px.ElasticNet(0.4, 0.9), (4,)),
    "Huber": (px.Huber(0.6, 1.4), (4,)),
    "L2": (px.L2(0.9), (4,)),
    "LInf": (px.LInf(1.1), (4,)),
    "GroupL2": (px.GroupL2(0.8), (2, 3)),
    "NuclearNorm": (px.NuclearNorm(0.8), (3, 2)),
    "L1Ball": (px.L1Ball(1.5), (4,)),
    "L2Ball": (px.L2Ball(1.5, 0.1 + 0.2j), (4,)),
    "LInfBall": (px.LInfBall(0.8), (4,)),
    "Translated": (px.Translated(px.L1(0.5), 0.3 - 0.4j), (4,)),
    "Tilted": (px.Tilted(px.L2(0.5), 0.3 - 0.4j), (4,)),
    "L0": (px.L0(0.4), (4,)),
    "MCP": (px.MCP(0.7, 2.5), (4,)),
    "SCAD": (px.SCAD(0.6, 3.7), (4,)),
    "LogSum": (px.LogSum(0.9, 0.3), (4,)),
}


@ids(COMPLEX)
def test_complex(name, rng):
    g, shape = COMPLEX[name]
    t = jnp.asarray(0.8)
    v = jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)) * 1.5
    noise = rng.normal(size=(2000, *shape)) + 1j * rng.normal(size=(2000, *shape))
    noise = jnp.asarray(noise * 10 ** rng.uniform(-4, 0, size=(2000, *[1] * len(shape))))

    @jax.jit
    def run(v, noise):
        p = g.prox(v, t)
        others = jax.vmap(lambda d: objective(g, p + d, v, t))(noise)
        grad = jax.grad(lambda u: jnp.sum(jnp.abs(g.prox(u, t)) ** 2))(jnp.zeros_like(v))
        return p, g(p), objective(g, p, v, t), others, grad

    p, value, best, others, grad = run(v, noise)
    assert jnp.isfinite(best) and not jnp.iscomplexobj(value)
    assert jnp.min(others) >= best - 1e-7
    assert jnp.all(jnp.isfinite(grad))
    star = STAR(g, v, t)
    np.testing.assert_allclose(star, v - t * PROX(g, v / t, 1 / t), atol=1e-12)
    assert jax.eval_shape(lambda u: g.prox(u, t), v.astype(jnp.complex64)).dtype == jnp.complex64


@pytest.mark.parametrize(
    "g",
    [px.L1(0.7), px.SquaredL2(), px.Huber(), px.L2(1.1), px.LInf(1.1), px.Simplex(), px.L1Ball(),
     px.L2Ball(), px.LInfBall(), px.NonNegative(), px.Hyperplane(1.0, 0.5),
     px.HalfSpace(1.0, -1.0)],
    ids=lambda g: type(g).__name__,
)  # fmt: skip
def test_pytrees(g, rng):
    flat = jnp.asarray(rng.normal(size=6)) * 2
    tree = {"a": flat[:2], "b": flat[2:].reshape(2, 2)}
    np.testing.assert_array_equal(px.Conjugate(g).prox(flat, 0.6), g.conjugate_prox(flat, 0.6))
    np.testing.assert_array_equal(px.Conjugate(g).conjugate_prox(flat, 0.6), g.prox(flat, 0.6))
    for fn, args in ((g.prox, (0.6,)), (g.conjugate_prox, (0.6,)), (g, ())):
        want = fn(flat, *args)
        got = ravel_pytree(fn(tree, *args))[0]
        np.testing.assert_allclose(got, np.ravel(want), atol=1e-12)


def test_parameters_and_steps_like_the_data(rng):
    v = {"a": jnp.asarray(rng.normal(size=3)), "b": jnp.asarray(rng.normal(size=2))}
    weight = {"a": jnp.ones(3), "b": 0.5}
    step = {"a": 0.3, "b": jnp.array([0.1, 0.9])}
    got = px.L1(weight).prox(v, step)
    np.testing.assert_allclose(got["a"], px.L1().prox(v["a"], 0.3))
    want = [px.L1(0.5).prox(v["b"][i], t) for i, t in enumerate((0.1, 0.9))]
    np.testing.assert_allclose(got["b"], jnp.stack(want))
    rows = px.L1(jnp.array([0.1, 0.2])).prox(jnp.ones((3, 2)), 1.0)
    np.testing.assert_allclose(rows, np.tile([0.9, 0.8], (3, 1)))


def test_separable_sum(rng):
    a, b = jnp.asarray(rng.normal(size=(2, 4)))
    g = px.Separable((px.L1(0.3), px.Scaled(px.L2(), 0.7)))
    for step in (0.6, (0.6, 0.6)):
        got = g.prox((a, b), step)
        np.testing.assert_allclose(got[0], px.L1(0.3).prox(a, 0.6))
        np.testing.assert_allclose(got[1], px.L2(0.7).prox(b, 0.6))
        warm, carry = g.warm_prox((a, b), step, g.init_prox((a, b)))
        np.testing.assert_allclose(warm[1], got[1])
        star = g.conjugate_prox((a, b), step)
        np.testing.assert_allclose(star[0], jnp.clip(a, -0.3, 0.3))
    np.testing.assert_allclose(g((a, b)), 0.3 * jnp.abs(a).sum() + 0.7 * jnp.linalg.norm(b))
    with pytest.raises(ValueError, match="2 blocks"):
        g.prox((a,), 1.0)


class _Counter(px.AbstractSeparable):
    """A prox with a carry: the number of calls."""

    def __call__(self, x):
        return jnp.sum(x) * 0

    def prox(self, v, step_size):
        return v

    def init_prox(self, v):
        return jnp.asarray(0)

    def warm_prox(self, v, step_size, carry):
        return v, carry + 1


def test_warm_starts_pass_through():
    f = _Counter()
    v = jnp.ones(5)
    for g in (px.Scaled(f, 2.0), px.Translated(f, 1.0), px.ArgumentScaled(f, 2.0),
              px.Tilted(f, v), px.Regularised(f, 0.5), px.Orthogonal(f, lin(Q))):  # fmt: skip
        p, carry = g.warm_prox(v, 0.7, g.init_prox(v))
        assert carry == 1
        np.testing.assert_allclose(p, g.prox(v, 0.7))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_entropy_extreme_arguments(dtype):
    v = jnp.asarray([-1e30, -1e6, -800.0, -90.0, -30.0, -1.0, 0.0, 1.0, 3.0, 1e3, 1e9, 1e30], dtype)
    for weight in (1e-6, 1.0, 1e6):
        u = px.Entropy(weight).prox(v, 1.0)
        assert jnp.all(jnp.isfinite(u)) and jnp.all(u >= 0)
        # The optimality condition u + w (log u + 1) = v, where u does not underflow.
        ok = u > 1e-30
        gap = u + weight * (jnp.log(jnp.where(ok, u, 1)) + 1) - v
        size = jnp.abs(v) + weight + u
        tol = 40 * jnp.finfo(dtype).eps
        assert jnp.all(jnp.where(ok, jnp.abs(gap) / size, 0) <= tol)
        slope = jax.grad(lambda v: jnp.sum(px.Entropy(weight).prox(v, 1.0)))(v)  # noqa: B023
        assert jnp.all((slope >= 0) & (slope <= 1 + tol))


@pytest.mark.parametrize("g", [px.LogBarrier(1e-3), px.KullbackLeibler(jnp.asarray(1e-3))])
def test_no_cancellation(g):
    v = jnp.asarray(-1e4, jnp.float32)
    exact = g.prox(v.astype(jnp.float64), 1.0)
    np.testing.assert_allclose(g.prox(v, 1.0), exact, rtol=1e-5)
    assert exact > 0


def test_exact_zeros_of_groups(rng):
    # What the optimiser does to w / sqrt(n) is the point here.
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        _exact_zeros(rng)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


def _exact_zeros(rng):
    z = jnp.asarray(rng.normal(size=(2, 64, 64)), jnp.float32)
    run = eqx.filter_jit(lambda g, v: (g.prox(v, 1.0), g.conjugate_prox(v, 1.0)))
    for w in np.geomspace(1e-3, 3.0, 12).tolist():
        scaled = z * np.float32(w)
        p, q = run(px.GroupL2(w), scaled)
        short = jnp.linalg.norm(z, axis=0) < 1 - 1e-5
        assert jnp.all(jnp.where(short, p, 0) == 0)
        assert jnp.all(jnp.where(short, q, scaled) == scaled)
        assert jnp.all(jnp.linalg.norm(q, axis=0) <= w * (1 + 1e-6))
    zero = px.GroupL2(0.0)
    np.testing.assert_array_equal(zero.prox(z, 1.0), z)
    np.testing.assert_array_equal(zero.conjugate_prox(z, 1.0), 0 * z)


def test_spectral_derivative_at_repeated_values(rng):
    """Isotropic shrinkage of a multiple of an isometry has a closed derivative."""
    g = px.NuclearNorm(1.0)
    U = jnp.asarray(Q[:, :3])
    J = jax.jacfwd(lambda x: g.prox(x, 1.0))(3.0 * U)
    fd = jnp.stack(
        [
            (g.prox(3.0 * U + e, 1.0) - g.prox(3.0 * U - e, 1.0)) / 2e-6
            for e in 1e-6 * jnp.eye(15).reshape(15, 5, 3)
        ],
        axis=-1,
    ).reshape(5, 3, 5, 3)
    np.testing.assert_allclose(J, fd, atol=1e-7)
    assert jnp.all(jnp.isfinite(jax.jacrev(lambda x: g.prox(x, 1.0))(jnp.zeros((3, 3)))))


@pytest.mark.parametrize("name", ["L1", "Box", "Entropy", "GroupL2", "NuclearNorm", "Tilted"])
def test_moreau_envelope(name, rng):
    g, shape = CONVEX[name]
    v = jnp.asarray(rng.normal(size=shape) * 2)
    grad = jax.grad(lambda u: px.moreau_envelope(g, u, 0.7))(v)
    np.testing.assert_allclose(grad, px.moreau_gradient(g, v, 0.7), atol=1e-10)
    slope = jax.grad(lambda t: px.moreau_envelope(g, v, t))(0.7)
    gap = v - g.prox(v, 0.7)
    np.testing.assert_allclose(slope, -jnp.sum(gap**2) / (2 * 0.7**2), atol=1e-9)


def test_plug_in():
    g = px.PlugIn(lambda v, t: v / (1 + t))
    x = jnp.ones(3, jnp.float32)
    np.testing.assert_allclose(g.prox(x, 1.0), 0.5)
    assert jnp.isnan(g(x)) and g(x).dtype == jnp.float32


def test_new_values_do_not_retrace():
    count = 0

    @eqx.filter_jit
    def run(g, v, t):
        nonlocal count
        count += 1
        return g.prox(v, t)

    for w in (0.1, 0.2, 0.3):
        run(px.Restricted(px.ElasticNet(w, 2 * w), -w, w), jnp.ones(3), jnp.asarray(w))
    assert count == 1


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: px.L1(-1.0), "`weight` must be at least 0, got -1.0"),
        (lambda: px.SquaredL2(np.array([1.0, -2.0])), "`weight` must be at least 0"),
        (lambda: px.Entropy(0.0), "`weight` must be greater than 0"),
        (lambda: px.Scaled(px.L1(), -2.0), "`scale` must be greater than 0"),
        (lambda: px.Simplex(0.0), "`radius` must be greater than 0"),
        (lambda: px.SCAD(1.0, 1.5), "`shape` must be greater than 2"),
        (lambda: px.SparseSimplex(0), "`max_nonzeros` must be at least 1"),
        (lambda: px.Restricted(px.L2()), "`functional` must be separable"),
        (lambda: px.GroupL2(1.0, axis=2).prox(jnp.ones((2, 3)), 1.0), "`axis` 2"),
        (lambda: px.NonNegative().prox(jnp.ones(2, complex), 1.0), "real arrays"),
        (lambda: px.L1(np.ones((2, 3))).prox(jnp.ones(3), 1.0), "does not broadcast"),
        (lambda: px.AffineSet(jnp.ones((2, 3)), jnp.ones(3)), "`b` must have the shape"),
        (lambda: px.Polyhedron(jnp.ones((2, 3)), jnp.ones(2), jnp.ones((1, 3))), "together"),
        (lambda: px.Transport(np.ones(2), np.ones(3)), "equal sums, got 2 and 3"),
    ],
)  # fmt: skip
def test_clear_errors(make, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make()
