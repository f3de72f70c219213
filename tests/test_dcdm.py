"""Deep conjugate directions: the published iteration, its networks, its data and its loss."""

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jinv import linear, train
from jinv.linear import (
    DCDM,
    AbstractDirection,
    DirectionNet,
    RitzSamples,
    UNetDirection,
    conjugate_direction_loss,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")

RESULTS = lx.RESULTS
SHAPE = (9, 8)


def grid(*, dtype=None):
    """Poisson's operator on a small grid, its matrix, and a right-hand side."""
    A = linear.poisson(SHAPE, dtype=dtype)
    return A, np.asarray(A.as_matrix()), jax.random.normal(jax.random.key(0), SHAPE, A.sink.dtype)


def nonlinear(r):
    """A direction that is neither linear nor symmetric, and better than the residual."""
    smooth = linear.Chebyshev(3).init(linear.poisson(SHAPE, dtype=r.dtype)).mv(r)
    return jnp.tanh(9 * smooth) + 0.2 * jnp.roll(r, 1, axis=0)


def solve(A, b, *args, throw=True, y0=None, rtol=1e-9, **kwargs):
    options = {} if y0 is None else {"y0": y0}
    return lx.linear_solve(A, b, DCDM(rtol, 0.0, *args, **kwargs), throw=throw, options=options)


class Network(AbstractDirection):
    """The residual and some of what an untrained network makes of it."""

    net: DirectionNet | UNetDirection

    def init(self, operator):
        apply = self.net.init(operator) if isinstance(self.net, UNetDirection) else self.net
        return jax.tree_util.Partial(_mix, apply)


def _mix(apply, r):
    direction = apply(r)
    return r + 0.3 * direction * jnp.linalg.norm(r) / jnp.linalg.norm(direction)


def network(seed=0, channels=3):
    return Network(DirectionNet(2, channels, key=jax.random.key(seed)))


def obstacles(seed):
    """A solid and a piece of air in a box that is open below."""
    cells = np.zeros(SHAPE, int)
    cells[2 + seed : 5 + seed, 3:6] = 1
    cells[7:, seed : seed + 2] = 2
    return linear.pressure_poisson(cells, open_sides=[(0, 0)])


def published(matrix, b, f, steps, *, memory=2):
    """The iterates and residuals as the paper writes them, in NumPy."""
    x, r, old = np.zeros(b.size), b, []
    iterates, norms = [x], [np.linalg.norm(b)]
    for _ in range(steps):
        q = f(r / np.linalg.norm(r))
        p = q - sum((v * (q @ Av) / (v @ Av) for v, Av in old), np.zeros(b.size))
        Ap = matrix @ p
        old = [*old, (p, Ap)][-memory:] if memory else []
        x = x + p * (p @ r) / (p @ Ap)
        r = b - matrix @ x
        iterates, norms = [*iterates, x], [*norms, np.linalg.norm(r)]
    return np.array(iterates), np.array(norms)


def flattened(f):
    f = jax.jit(f)
    return lambda r: np.asarray(f(jnp.asarray(r).reshape(SHAPE))).ravel()


# The iteration


def test_the_exact_inverse_takes_one_step():
    A, matrix, b = grid()
    exact = np.linalg.solve(matrix, b.ravel()).reshape(SHAPE)
    operator = lx.linearise(lx.FunctionLinearOperator(A.mv, A.in_structure(), lx.symmetric_tag))
    inverse = lx.MatrixLinearOperator(jnp.linalg.inv(operator.as_matrix()))
    system = lx.MatrixLinearOperator(jnp.asarray(matrix), lx.positive_semidefinite_tag)
    sol = solve(system, b.ravel(), inverse)
    assert sol.stats["num_steps"] == 1
    np.testing.assert_allclose(sol.value.reshape(SHAPE), exact, rtol=1e-12)
    sol = solve(A, b, lambda r: -7 * (inverse.matrix @ r.ravel()).reshape(SHAPE))
    assert sol.stats["num_steps"] == 1 and sol.stats["residual"] < 1e-12
    np.testing.assert_allclose(sol.value, exact, rtol=1e-12)


def test_the_residual_as_direction_is_conjugate_gradients():
    A, matrix, b = grid()
    x, r = np.zeros(b.size), np.asarray(b).ravel()
    p, norms = r, [np.linalg.norm(r)]
    for _ in range(20):
        step = (r @ r) / (p @ matrix @ p)
        x, new = x + step * p, r - step * (matrix @ p)
        p, r = new + p * (new @ new) / (r @ r), new
        norms.append(np.linalg.norm(r))
    sol = solve(A, b, lambda r: r, max_steps=20, history=True, throw=False)
    assert sol.result == RESULTS.max_steps_reached
    np.testing.assert_allclose(sol.value.ravel(), x, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(sol.stats["residuals"], np.array(norms) / norms[0], 1e-10, 1e-10)


@pytest.mark.parametrize("memory", [0, 1, 2, 5])
def test_a_nonlinear_direction_follows_the_paper(memory):
    A, matrix, b = grid()
    f = flattened(nonlinear)
    iterates, norms = published(matrix, np.asarray(b).ravel(), f, 9, memory=memory)
    options = {"memory": memory, "max_steps": 9, "history": True, "throw": False}
    for every in (1, 4):
        sol = solve(A, b, nonlinear, replace_every=every, **options)
        np.testing.assert_allclose(sol.value.ravel(), iterates[-1], 1e-9, 1e-10)
        np.testing.assert_allclose(sol.stats["residuals"], norms / norms[0], 1e-9, 1e-12)
        assert sol.stats["num_steps"] == 9 and sol.stats["max_steps"] == 9
        np.testing.assert_allclose(sol.stats["residual"], norms[-1] / norms[0], 1e-9)

    # These iterates descend, and every step at least as far as the line search along q.
    exact = np.linalg.solve(matrix, b.ravel())
    energy = lambda x: (x - exact) @ matrix @ (x - exact)
    errors = np.array([energy(x) for x in iterates])
    assert np.all(np.diff(errors) < 0)
    for k, x in enumerate(iterates[:-1]):
        r = b.ravel() - matrix @ x
        q = f(r / np.linalg.norm(r))
        assert errors[k + 1] <= energy(x + q * (q @ r) / (q @ matrix @ q)) * (1 + 1e-10)


def test_a_second_pass_makes_directions_conjugate():
    A, matrix, b = grid()
    basis = jnp.asarray(np.random.default_rng(0).normal(size=(4, *SHAPE)))
    # Directions that differ by little: one pass loses most of the digits.
    f = lambda r: basis[0] + 1e-7 * jnp.tensordot(jnp.sin(9 * r[:3, 0]), basis[1:], 1)
    best = basis.reshape(4, -1)
    best = best.T @ np.linalg.solve(best @ matrix @ best.T, best @ b.ravel())
    options = {"memory": 4, "max_steps": 4, "throw": False}
    excess = [
        np.abs(solve(A, b, f, passes=n, **options).value.ravel() - best).max() for n in (1, 2)
    ]
    assert excess[1] < 1e-6 and excess[1] < 0.1 * excess[0]


@pytest.mark.parametrize("direction", [nonlinear, linear.Jacobi(), linear.Chebyshev(4), network])
def test_every_kind_of_direction_solves(direction):
    A, matrix, b = grid()
    sol = solve(A, b, network() if direction is network else direction)
    exact = np.linalg.solve(matrix, b.ravel()).reshape(SHAPE)
    np.testing.assert_allclose(sol.value, exact, rtol=1e-6, atol=1e-7)
    assert sol.stats["residual"] <= 1e-9
    assert jnp.linalg.norm(b - A.mv(sol.value)) <= 1e-9 * jnp.linalg.norm(b)


def test_a_flax_network_is_a_direction():
    A, _, b = grid()
    net = flax.linen.Conv(1, (3, 3), param_dtype=jnp.float64)
    weights = net.init(jax.random.key(0), b[None, ..., None])
    f = lambda r: 3 * r + jnp.asarray(net.apply(weights, r[None, ..., None]))[0, ..., 0]
    assert solve(A, b, f).stats["residual"] <= 1e-9


def test_first_guess():
    A, _, b = grid()
    sol = solve(A, b, nonlinear)
    near = sol.value + 1e-5 * jnp.ones(SHAPE)
    warm = solve(A, b, nonlinear, y0=near)
    assert 0 < warm.stats["num_steps"] < sol.stats["num_steps"]
    np.testing.assert_allclose(warm.value, sol.value, rtol=1e-6, atol=1e-8)
    assert solve(A, b, nonlinear, y0=sol.value).stats["num_steps"] == 0


def test_negative_operators_and_trees():
    A, _, b = grid()
    expected = solve(A, b, linear.Jacobi()).value
    negative = lx.TaggedLinearOperator(-A, lx.negative_semidefinite_tag)
    np.testing.assert_allclose(solve(negative, b, linear.Jacobi()).value, -expected, 1e-12)
    both = lambda v: {"a": A.mv(v["a"]), "b": 3 * v["b"]}
    tree = {"a": b, "b": jnp.ones(2)}
    system = lx.FunctionLinearOperator(
        both, jax.eval_shape(lambda: tree), lx.positive_semidefinite_tag
    )
    value = solve(system, tree, lambda r: r).value
    np.testing.assert_allclose(value["a"], expected, 1e-6, 1e-8)
    np.testing.assert_allclose(value["b"], 1 / 3, 1e-6)


def test_singular_systems():
    A = linear.poisson(SHAPE, boundary="neumann")
    b = jax.random.normal(jax.random.key(0), SHAPE) + 0.3
    kernel = linear.null_space(A)
    sol = solve(A, b, nonlinear, null_space=kernel)
    exact = np.linalg.pinv(A.as_matrix()) @ b.ravel()
    np.testing.assert_allclose(sol.value.ravel(), exact, 1e-6, 1e-7)
    np.testing.assert_allclose(
        sol.stats["incompatible"], abs(b.sum()) / 72**0.5 / jnp.linalg.norm(b), 1e-9
    )
    sol = solve(A, b, nonlinear, throw=False, max_steps=60)
    assert sol.result != RESULTS.successful and sol.stats["residual"] > 0.1


def test_solid_and_air_cells_are_kept_from_the_model():
    A = obstacles(0)
    lone = ~np.asarray(A.active())
    b = jnp.where(lone, 0, jax.random.normal(jax.random.key(0), SHAPE))
    seen = lambda r: r + 0.3 * jnp.roll(r, 1, axis=0) + 0.01  # writes everywhere
    sol = solve(A, b, seen)
    assert lone.any() and not np.asarray(sol.value)[lone].any()
    exact = np.linalg.solve(A.as_matrix(), b.ravel()).reshape(SHAPE)
    np.testing.assert_allclose(sol.value, exact, 1e-6, 1e-7)
    # Their own equations are solved all the same, also below tags and signs.
    sol = solve(A, b + 2.0 * lone, seen)
    np.testing.assert_allclose(np.asarray(sol.value)[lone], 2, 1e-6)
    negative = lx.TaggedLinearOperator(-A, lx.negative_semidefinite_tag)
    assert not np.asarray(solve(negative, b, seen).value)[lone].any()


# Failures


def spoilt(b, value):
    return b.at[2, 3].set(value)


def test_nothing_to_do_and_nonfinite_input():
    A, _, b = grid()
    sol = solve(A, 0 * b, nonlinear, y0=b, history=True)
    assert sol.stats["num_steps"] == 0 and sol.stats["residual"] == 0 and not sol.value.any()
    for value in (jnp.nan, jnp.inf):
        sol = solve(A, spoilt(b, value), nonlinear, throw=False)
        assert sol.result == RESULTS.nonfinite_input
        sol = solve(A, b, nonlinear, y0=spoilt(b, value), throw=False)
        assert sol.result == RESULTS.nonfinite_input


BROKEN = {
    "zero": jnp.zeros_like,
    "not finite": lambda r: spoilt(r, jnp.nan),
    "constant": jnp.ones_like,
    "orthogonal": lambda r: jnp.zeros(SHAPE).at[0, 0].set(r[0, 1]).at[0, 1].set(-r[0, 0]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_useless_directions_break_down(name):
    A, _, b = grid()
    if name == "orthogonal":
        b = jnp.zeros(SHAPE).at[0, 0].set(1.0)
    sol = solve(A, b, BROKEN[name], throw=False)
    assert sol.result == RESULTS.breakdown
    assert sol.stats["num_steps"] == int(name == "constant")
    assert np.isfinite(sol.value).all()


def test_indefinite_operators_break_down():
    matrix = jnp.diag(jnp.array([1.0, 2.0, -3.0]))
    system = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
    sol = solve(system, jnp.array([0.1, 0.1, 1.0]), lambda r: r, throw=False)
    assert sol.result == RESULTS.breakdown
    with pytest.raises(Exception, match="breakdown"):
        solve(system, jnp.array([0.1, 0.1, 1.0]), lambda r: r)


@pytest.mark.parametrize("every", [1, 20])
def test_float32_stagnates_at_its_accuracy(every):
    A, matrix, b = grid(dtype=jnp.float32)
    b = jnp.ones_like(b)
    sol = solve(A, b, nonlinear, rtol=1e-9, throw=False, replace_every=every)
    assert sol.result == RESULTS.stagnation and sol.value.dtype == jnp.float32
    assert sol.stats["residual"] < 3e-6 and sol.stats["num_steps"] < 60
    true = np.linalg.norm(1 - matrix.astype(float) @ np.asarray(sol.value, float).ravel())
    np.testing.assert_allclose(sol.stats["residual"], true / 72**0.5, 0.5)


def test_misuse_is_named():
    A, matrix, b = grid()
    cases = {
        "rtol": lambda: DCDM(-1.0, 0.0, nonlinear),
        "memory": lambda: DCDM(1e-3, 0.0, nonlinear, memory=-1),
        "passes": lambda: DCDM(1e-3, 0.0, nonlinear, passes=0),
        "replace_every": lambda: DCDM(1e-3, 0.0, nonlinear, replace_every=0),
        "max_steps": lambda: DCDM(1e-3, 0.0, nonlinear, max_steps=0),
        "tag it": lambda: solve(lx.MatrixLinearOperator(jnp.asarray(matrix)), b.ravel(), nonlinear),
        "direction must map": lambda: solve(A, b, lambda r: r[1:]),
        "direction cannot be applied": lambda: solve(A, b, lambda r: r @ r @ r),
        "null_space": lambda: solve(A, b, nonlinear, null_space=jnp.ones(3)),
        "ndim": lambda: DirectionNet(4, key=jax.random.key(0)),
        "channels": lambda: DirectionNet(2, 0, key=jax.random.key(0)),
        "pairs": lambda: DirectionNet(2, pairs=(1, -1, 2), key=jax.random.key(0)),
        "pairs must be three": lambda: DirectionNet(2, pairs=(1, 2), key=jax.random.key(0)),
        "levels": lambda: UNetDirection(2, levels=0, key=jax.random.key(0)),
        "rank 2": lambda: DirectionNet(2, 2, key=jax.random.key(0))(jnp.ones(3)),
        "Diffusion": lambda: UNetDirection(2, key=jax.random.key(0)).init(A @ A),
        "num": lambda: linear.ritz_pairs(A, 73, key=jax.random.key(0)),
        "batch_size": lambda: RitzSamples(jnp.ones(1), jnp.ones((1, 2)), 0),
        "theta": lambda: RitzSamples(jnp.ones(1), jnp.ones((1, 2)), 1, theta=-1),
    }
    for match, call in cases.items():
        with pytest.raises(ValueError, match=match):
            call()


# Transformations


def test_lanes_stop_alone_and_equal_the_loop():
    A, _, b = grid()
    lanes = jnp.stack([b, 0 * b, spoilt(b, jnp.nan), A.mv(jnp.ones(SHAPE))])
    for direction in (nonlinear, network()):
        one = jax.jit(lambda b, d=direction: solve(A, b, d, throw=False, memory=3))
        together = jax.vmap(one)(lanes)
        assert len(set(np.asarray(together.stats["num_steps"]))) > 2
        for i, lane in enumerate(lanes):
            alone = one(lane)
            value, result, steps = jax.tree.map(
                lambda x, i=i: x[i],
                (together.value, together.result, together.stats["num_steps"]),
            )
            assert alone.result == result and alone.stats["num_steps"] == steps
            np.testing.assert_allclose(alone.value, value, 1e-9, 1e-9)


def test_lanes_of_geometries():
    net = Network(UNetDirection(2, 4, levels=3, key=jax.random.key(1)))
    b = jax.random.normal(jax.random.key(0), SHAPE)
    operators = [obstacles(seed) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *operators)
    one = jax.jit(lambda A: solve(A, b, net).value)
    for A, value in zip(operators, jax.vmap(one)(stacked), strict=True):
        np.testing.assert_allclose(one(A), value, 1e-7, 1e-8)
        np.testing.assert_allclose(A.mv(value), b, 1e-6, 1e-7)


def test_derivatives_with_respect_to_operator_and_data():
    A, _, b = grid()
    net = network()
    mask = jax.random.normal(jax.random.key(2), SHAPE)

    @jax.jit
    def loss(A, b):
        return jnp.sum(mask * solve(A, b, net, rtol=1e-13).value ** 2)

    keys = jax.random.split(jax.random.key(3), 4)
    tangents = (
        linear.Diffusion(
            [jax.random.uniform(k, w.shape) for k, w in zip(keys, A.faces, strict=False)],
            jax.random.uniform(keys[2], SHAPE),
        ),
        jax.random.normal(keys[3], SHAPE),
    )
    h = 1e-5
    move = lambda h: jax.tree.map(lambda x, t: x + h * t, (A, b), tangents)
    numeric = (loss(*move(h)) - loss(*move(-h))) / (2 * h)
    _, forward = jax.jvp(loss, (A, b), tangents)
    gradient = jax.grad(loss, (0, 1))(A, b)
    dots = jax.tree.map(lambda g, t: jnp.sum(g * t), gradient, tangents)
    np.testing.assert_allclose(forward, numeric, 1e-6)
    np.testing.assert_allclose(sum(jax.tree.leaves(dots)), numeric, 1e-6)
    batched = jax.vmap(jax.grad(loss, 1), (None, 0))(A, jnp.stack([b, 2 * b]))
    np.testing.assert_allclose(batched[0], gradient[1], 1e-6, 1e-8)
    # A network inside a solve has no derivative, and says so.
    with pytest.raises(Exception, match="solver"):
        eqx.filter_grad(lambda net: jnp.sum(solve(A, b, net).value))(net)


def test_tolerances_and_weights_do_not_compile_anew():
    A, _, b = grid()
    traces = []

    @eqx.filter_jit
    def run(solver):
        traces.append(1)
        return lx.linear_solve(A, b, solver).value

    for seed in (0, 1):
        run(DCDM(jnp.asarray(0.1**seed), jnp.zeros(()), network(seed)))
    assert len(traces) == 1


def test_inside_shard_map():
    A, _, b = grid()
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    lanes = jnp.stack([b, 2 * b[::-1]])
    solver = DCDM(1e-9, 0.0, network())
    one = lambda b: solver.compute(solver.init(A, {}), b, {})[0]
    run = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    np.testing.assert_allclose(jax.jit(run)(lanes), jax.vmap(one)(lanes), 1e-9, 1e-9)


# Networks


def plain(net, x):
    """The published layers (those for 64 cells), by XLA's own convolution, channels first."""

    def conv(layer, x):
        weight = jnp.moveaxis(layer.weight, (-1, -2), (0, 1))
        pad = "SAME" if weight.shape[2] == 3 else "VALID"
        y = jax.lax.conv_general_dilated(x, weight, (1,) * (x.ndim - 2), pad)
        return y + layer.bias.reshape(1, -1, *[1] * (x.ndim - 2))

    def pairs(layers, x):
        for inner, outer in layers.layers:
            x = jax.nn.relu(conv(outer, jax.nn.relu(conv(inner, x)))) + x
        return x

    space = range(2, 2 + x.ndim)
    a = pairs(net.fine, jax.nn.relu(conv(net.first, conv(net.enter, x[None, None]))))
    fine = jax.nn.relu(conv(net.middle, a))
    window = [2 if i in space else 1 for i in range(2 + x.ndim)]
    coarse = jax.lax.reduce_window(fine, 0.0, jax.lax.add, window, window, "VALID") / 2**x.ndim
    up = pairs(net.coarse, coarse)
    for axis in space:
        up = jnp.repeat(up, 2, axis)
    return conv(net.leave, pairs(net.last, up + fine))[0, 0]


@pytest.mark.parametrize("shape", [(12,), (6, 8), (6, 4, 8)])
def test_the_network_has_the_published_layers(shape):
    net = DirectionNet(len(shape), 5, key=jax.random.key(0), dtype=jnp.float64)
    biases = lambda path, x: x + jnp.linspace(0, 1, x.size) if "bias" in str(path) else x
    net = jax.tree.map_with_path(biases, net)
    reference = jax.jit(lambda x, net=net: plain(net, x))
    net = jax.jit(lambda x, net=net: net(x))
    x = jax.random.normal(jax.random.key(1), shape)
    np.testing.assert_allclose(net(x), reference(x), 1e-12, 1e-12)
    batch = jnp.stack([x, -2 * x])
    np.testing.assert_allclose(jax.vmap(net)(batch)[1], net(-2 * x), 1e-12, 1e-12)
    odd = x[..., :-1]
    padded = jnp.pad(odd, [*[(0, 0)] * (x.ndim - 1), (0, 1)])
    np.testing.assert_allclose(net(odd), net(padded)[..., :-1], 1e-12)


def test_the_sizes_of_the_published_networks():
    counts = {}
    for pairs in [(1, 3, 2), (2, 5, 3)]:
        net = eqx.filter_eval_shape(DirectionNet, 3, pairs=pairs, key=jax.random.key(0))
        counts[pairs] = sum(x.size for x in jax.tree.leaves(net))
    assert counts == {(1, 3, 2): 97457, (2, 5, 3): 152881}


@pytest.mark.parametrize("net", [DirectionNet, UNetDirection])
def test_networks_compute_in_their_own_dtype(net):
    A, _, b = grid()
    net = net(2, 3, key=jax.random.key(0))
    apply = net if isinstance(net, DirectionNet) else net.init(A)
    assert apply(b).dtype == jnp.float64
    np.testing.assert_allclose(apply(b), apply(b.astype(jnp.float32)), 1e-4, 1e-5)


def test_the_u_net_sees_the_geometry():
    b = jax.random.normal(jax.random.key(0), SHAPE)
    A, B = linear.poisson(SHAPE), obstacles(0)
    net = UNetDirection(2, 3, key=jax.random.key(0))
    assert float(jnp.abs(net.init(A)(b) - net.init(B)(b)).max()) > 1e-3
    wall = linear.poisson(SHAPE, boundary="neumann")
    assert float(jnp.abs(net.init(A)(b) - net.init(wall)(b)).max()) > 1e-3
    blind = UNetDirection(2, 3, levels=1, pairs=2, geometry=False, key=jax.random.key(0))
    np.testing.assert_array_equal(blind.init(A)(b), blind.init(B)(b))


# Data and loss


@pytest.mark.parametrize("shape", [(11,), (7, 7), (4, 4, 3)])
def test_all_ritz_pairs_are_the_eigenpairs(shape):
    # Squares and cubes have repeated eigenvalues, where the Krylov space ends early.
    A = linear.poisson(shape)
    n = int(np.prod(shape))
    values, vectors = linear.ritz_pairs(A, n, key=jax.random.key(0))
    expected = np.linalg.eigvalsh(A.as_matrix())
    np.testing.assert_allclose(values, expected, 1e-10, 1e-10)
    V = np.asarray(vectors).reshape(n, n)
    np.testing.assert_allclose(V @ V.T, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(V @ np.asarray(A.as_matrix()), np.diag(values) @ V, atol=1e-9)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-10), (jnp.float32, 1e-4)])
def test_some_ritz_pairs(dtype, tolerance):
    A = linear.poisson((20, 17), dtype=dtype)
    values, vectors = linear.ritz_pairs(A, 60, key=jax.random.key(0))
    assert values.dtype == dtype and vectors.shape == (60, 20, 17)
    V = np.asarray(vectors, float).reshape(60, -1)
    np.testing.assert_allclose(V @ V.T, np.eye(60), atol=tolerance)
    np.testing.assert_allclose(V @ np.asarray(A.as_matrix()) @ V.T, np.diag(values), atol=tolerance)
    expected = np.linalg.eigvalsh(A.as_matrix())
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(values[-1], expected[-1], 1e-3)


def test_ritz_samples_weigh_the_lower_part():
    A = linear.poisson((6, 6), boundary="neumann")
    values, vectors = np.linalg.eigh(A.as_matrix())
    values, vectors = jnp.asarray(values), jnp.asarray(vectors.T).reshape(36, 6, 6)
    samples = RitzSamples(values, vectors, 4000, theta=3)
    batch = samples(jax.random.key(1), 0)
    assert batch.shape == (4000, 6, 6)
    np.testing.assert_allclose(jnp.linalg.norm(batch, axis=(1, 2)), 1, 1e-12)
    spread = jnp.std(jnp.tensordot(batch, vectors, ((1, 2), (1, 2))), axis=0)
    low, high = spread[1:22], spread[22:]  # 36 // 2 + 3 above zero
    assert spread[0] < 1e-12
    np.testing.assert_allclose(low / low.mean(), 1, atol=0.1)
    np.testing.assert_allclose(high / low.mean(), 1 / 9, rtol=0.1)
    again = samples(jax.random.key(2), 0)
    assert not np.allclose(batch, again)


def test_the_loss_and_its_minimum():
    A, matrix, b = grid()
    batch = jnp.stack([b, -3 * b[::-1], jnp.ones(SHAPE)])
    loss = lambda f: jax.jit(lambda: conjugate_direction_loss(f, A, batch))()
    expected = []
    for b in np.asarray(batch).reshape(3, -1):
        y = flattened(nonlinear)(b / np.linalg.norm(b))
        rest = b - matrix @ y * (y @ b) / (y @ matrix @ y)
        expected.append(rest @ rest / (b @ b))
    np.testing.assert_allclose(loss(nonlinear), np.mean(expected), 1e-12)
    np.testing.assert_allclose(loss(lambda r: -1e5 * nonlinear(r)), np.mean(expected), 1e-12)
    inverse = jnp.linalg.inv(jnp.asarray(matrix))
    assert loss(lambda r: (inverse @ r.ravel()).reshape(SHAPE)) < 1e-20
    assert loss(linear.Chebyshev(6)) < loss(linear.Jacobi())
    assert loss(jnp.zeros_like) == 1
    gradient = jax.grad(lambda s: loss(lambda r: s * r))(0.0)
    assert gradient == 0
    assert conjugate_direction_loss(nonlinear, A, 0 * batch) == 1


def test_the_loss_has_the_derivative_of_its_network():
    A, _, b = grid()
    net = UNetDirection(2, 3, levels=2, key=jax.random.key(0), dtype=jnp.float64)
    operators = jax.tree.map(lambda *x: jnp.stack(x), obstacles(1), obstacles(2))
    batch = jax.random.normal(jax.random.key(1), (2, 3, *SHAPE))
    loss = lambda net: jnp.mean(
        jax.vmap(conjugate_direction_loss, (None, 0, 0))(net, operators, batch)
    )
    tangent = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), net)
    move = lambda h: jax.tree.map(lambda x, t: x + h * t, net, tangent)
    numeric = (loss(move(1e-6)) - loss(move(-1e-6))) / 2e-6
    products = jax.tree.map(lambda g, t: jnp.sum(g * t), jax.grad(loss)(net), tangent)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), numeric, 1e-5)


def test_a_short_training_pays():
    A = linear.poisson((16, 16), dtype=jnp.float32)
    pairs = linear.ritz_pairs(A, 128, key=jax.random.key(0))
    fitted = train.fit(
        lambda net, batch, key: conjugate_direction_loss(net, A, batch),
        DirectionNet(2, 8, pairs=(1, 2, 1), key=jax.random.key(1)),
        RitzSamples(*pairs, 8),
        optimiser=optax.adam(2e-3),
        num_steps=400,
        key=jax.random.key(2),
        progress=False,
    )
    assert fitted.history[-1]["loss"] < 0.2 * fitted.history[0]["loss"] < 0.1
    b = jax.random.normal(jax.random.key(3), (16, 16), jnp.float32)
    steps = [solve(A, b, f, rtol=1e-4).stats["num_steps"] for f in (fitted.model, lambda r: r)]
    assert 2 * steps[0] < steps[1], steps
