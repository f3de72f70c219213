"""Learned proximal networks: exact proxes, inversion, priors, certificates, proximal matching."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jinv
from jinv import nn, train
from jinv.prox import LearnedProximalNetwork


pytestmark = pytest.mark.usefixtures("quick_compilation")


def _potential(key, alpha=0.05, growth=True, size=0.3):
    potential = nn.dense_icnn(
        (4, 4), (12,), quadratic=growth, beta=10.0, strong_convexity=alpha, key=key
    )
    keys = iter(jax.random.split(key, 100))
    move = lambda x: x + size * jax.random.uniform(next(keys), x.shape, minval=-1.0)
    moved = jax.tree.map(lambda x: move(x) if eqx.is_inexact_array(x) else x, potential)
    if not growth:
        return moved
    # The frame is fixed: an orthonormal basis and its negative.
    return eqx.tree_at(lambda m: m.layers[0].lift, moved, potential.layers[0].lift)


@pytest.mark.parametrize("growth", [True, False])
def test_inversion_finds_the_point_with_status_and_certificate(growth, getkey):
    potential = _potential(getkey(), growth=growth)
    prior = LearnedProximalNetwork(potential)
    y = 2 * jax.random.normal(getkey(), (20, 4, 4))
    x = jax.vmap(potential.gradient)(y)
    sol = jax.jit(jax.vmap(prior.invert))(x)
    assert bool(jnp.all(sol.result == jinv.RESULTS.successful))
    assert float(jnp.max(sol.stats["residual"])) <= 1e-8
    np.testing.assert_allclose(sol.value, y, rtol=0, atol=1e-7)
    # Twenty times fewer evaluations than the published thousand.
    assert float(jnp.max(sol.stats["num_products"])) <= 100

    # Fenchel and Young: the value of another start, and the bound.
    def gap(x, y, start):
        other = prior.invert(x, start).value
        conjugate = jnp.sum(x * other) - potential(other)
        return potential(y) + conjugate - jnp.sum(x * y)

    gaps = jax.jit(jax.vmap(gap))(x, y, jnp.zeros_like(y))
    assert float(jnp.max(jnp.abs(gaps))) <= 1e-10
    assert float(jnp.max(sol.stats["gap"])) <= 1e-10


def test_bound_of_the_gap_is_one(getkey):
    potential = _potential(getkey())
    prior = LearnedProximalNetwork(potential, rtol=1e-2)
    x = potential.gradient(jax.random.normal(getkey(), (4, 4)))
    sol = prior.invert(x, jnp.zeros((4, 4)))
    exact = LearnedProximalNetwork(potential).invert(x).value
    psi_star = lambda y: jnp.sum(x * y) - potential(y)
    missing = psi_star(exact) - psi_star(sol.value)
    assert sol.stats["residual"] > 1e-9
    assert 0 <= missing <= sol.stats["gap"]


def test_prior_is_the_conjugate_and_the_prox_its_minimiser(getkey):
    potential = _potential(getkey())
    prior = LearnedProximalNetwork(potential)
    v = jax.random.normal(getkey(), (4, 4))
    best = prior.prox(v, 1.0)
    np.testing.assert_allclose(best, potential.gradient(v), rtol=1e-13)
    objective = lambda u: prior(u) + 0.5 * jnp.sum((u - v) ** 2)
    near = best[None] + 0.1 * jax.random.normal(getkey(), (200, 4, 4))
    far = jax.vmap(potential.gradient)(3 * jax.random.normal(getkey(), (200, 4, 4)))
    values = jax.jit(jax.vmap(objective))(jnp.concatenate([near, far]))
    assert bool(jnp.all(values >= objective(best) - 1e-12))


@pytest.mark.parametrize("share", [1.0, 1.1, pytest.param(0.3, marks=pytest.mark.slow)])
def test_prox_is_exact_at_every_step_size(share, getkey):
    prior = LearnedProximalNetwork(_potential(getkey(), size=0.1), 0.7)
    v, d = jax.random.normal(getkey(), (2, 4, 4))
    t = 0.7 * share
    objective = lambda u: prior(u) + jnp.sum((u - v) ** 2) / (2 * t)
    u = prior.prox(v, t)
    np.testing.assert_allclose(jax.jit(jax.grad(objective))(u), jnp.zeros((4, 4)), atol=1e-9)
    for fn, x, dx in (
        (lambda v: prior.prox(v, t), v, d),
        (lambda t: prior.prox(v, t), jnp.asarray(t), jnp.asarray(1.0)),
    ):
        forward = jax.jit(lambda x, dx, fn=fn: jax.jvp(fn, (x,), (dx,))[1])
        backward = jax.jit(lambda x, ct, fn=fn: jax.vjp(fn, x)[1](ct)[0])
        value, h = jax.jit(fn), 1e-5
        tangent = forward(x, dx)
        difference = (value(x + h * dx) - value(x - h * dx)) / (2 * h)
        np.testing.assert_allclose(tangent, difference, atol=1e-8)
        cotangent = jax.random.normal(jax.random.key(1), u.shape)
        back = jnp.sum(backward(x, cotangent) * dx)
        np.testing.assert_allclose(back, jnp.sum(cotangent * tangent), rtol=1e-8)


def test_derivatives_of_the_prior(getkey):
    potential = _potential(getkey())
    prior = LearnedProximalNetwork(potential)
    y, d = jax.random.normal(getkey(), (2, 4, 4))
    x = potential.gradient(y)
    value = jax.jit(lambda x: prior.prior(x)[0])
    gradient = jax.jit(jax.grad(lambda x: prior.prior(x)[0]))
    np.testing.assert_allclose(gradient(x), y - x, atol=1e-9)
    h = 1e-5
    difference = (value(x + h * d) - value(x - h * d)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(gradient(x) * d), difference, rtol=1e-6)
    hessian = jax.jvp(gradient, (x,), (d,))[1]
    difference = (gradient(x + h * d) - gradient(x - h * d)) / (2 * h)
    np.testing.assert_allclose(hessian, difference, rtol=1e-5, atol=1e-7)

    where = lambda p: p.layers[1].bias
    moved = lambda e: eqx.tree_at(where, potential, where(potential) + e)
    by_weights = lambda e: LearnedProximalNetwork(moved(e)).prior(x)[0]
    direction = jnp.linspace(-1, 1, 12)
    slope = jnp.sum(jax.grad(by_weights)(jnp.zeros(12)) * direction)
    difference = (by_weights(h * direction) - by_weights(-h * direction)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_out_of_range_is_proven_not_guessed(getkey):
    potential = nn.dense_icnn(1, (20, 20), key=getkey())
    prior = LearnedProximalNetwork(potential)
    low, high = (float(potential.gradient(jnp.array([t]))[0]) for t in (-1e6, 1e6))
    assert low < high
    inside = jnp.array([0.5 * (low + high)])
    value, result = prior.prior(inside)
    assert bool(result == jinv.RESULTS.successful) and bool(jnp.isfinite(value))
    for x in (low - 0.1, high + 0.1):
        value, result = prior.prior(jnp.array([x]))
        assert bool(result == jinv.RESULTS.out_of_range) and bool(jnp.isnan(value))
        assert bool(jnp.isposinf(prior(jnp.array([x]))))
    lanes = jax.vmap(prior)(jnp.array([[low - 1], [0.5 * (low + high)], [high + 1]]))
    assert [bool(jnp.isfinite(v)) for v in lanes] == [False, True, False]
    # Strong convexity makes everything reachable.
    strong = nn.dense_icnn(1, (20, 20), strong_convexity=0.01, key=getkey())
    value, result = LearnedProximalNetwork(strong).prior(jnp.array([high + 100]))
    assert bool(result == jinv.RESULTS.successful) and bool(jnp.isfinite(value))


def test_known_prox_soft_threshold():
    """A network that is the soft threshold but for its rounded corners: R = |x|."""
    potential = nn.dense_icnn(1, (2,), quadratic=True, beta=1e3, key=jax.random.key(0))
    frame = potential.layers[0]
    zero = jax.tree.map(jnp.zeros_like, (frame.head, potential.layers[1].head))
    put = lambda p: (p.layers[0].head, p.layers[1].head, p.layers[0].bias)
    potential = eqx.tree_at(put, potential, (*zero, jnp.full(2, -1.0)))
    y = jnp.linspace(-4, 4, 81)[:, None]
    soft = jnp.sign(y) * jnp.maximum(jnp.abs(y) - 1, 0)
    np.testing.assert_allclose(jax.vmap(potential.gradient)(y), soft, atol=2e-3)
    x = jnp.linspace(-3, 3, 61)[:, None]
    found, result = jax.vmap(LearnedProximalNetwork(potential).prior)(x)
    assert bool(jnp.all(result == jinv.RESULTS.successful))
    np.testing.assert_allclose(found - found[30], jnp.abs(x[:, 0]), atol=1e-2)


def _deblurring(key, tau, **kwargs):
    potential = nn.Tiled(_potential(key, size=0.02), 2)
    prior = LearnedProximalNetwork(potential, tau, **kwargs)
    kernel = jinv.operators.gaussian_kernel(1.0, 5, dtype=jnp.float64)
    operator = jinv.operators.Convolution(kernel, (9, 8))
    data = operator.mv(jax.random.normal(key, (9, 8)))
    return jinv.data_terms.least_squares(operator, data), prior, data


@pytest.mark.parametrize("tau", [3.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_all_solvers_reach_the_same_critical_point(tau, getkey):
    term, prior, data = _deblurring(jax.random.key(5), tau)
    fine: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}
    solve = functools.partial(jinv.solve, max_steps=20_000)
    together = jinv.Composite(term, prior)
    solver = jinv.splitting.ProximalGradient(**fine)
    sol = solve(together, solver, data, save_history=True)
    assert bool(sol.stats["certified"])
    # Its own step size, or the largest that the theorem allows.
    np.testing.assert_allclose(sol.stats["step_size"], min(tau, 0.99), rtol=1e-6)
    history = np.asarray(sol.stats["history"]["objective"])
    history = history[np.isfinite(history)]
    assert len(history) > 3
    assert np.all(np.diff(history) <= 1e-12 * np.abs(history[0]))
    other = solve(together, jinv.splitting.ADMM(**fine), data)
    assert bool(other.stats["certified"])
    assert other.stats["penalty"] >= max(1 / tau, 1.0)
    np.testing.assert_allclose(other.value, sol.value, atol=1e-6)
    apart = jinv.Composite(proximable=term, penalty=prior)
    for solver in (jinv.splitting.DouglasRachford, jinv.splitting.PDHG):
        other = solve(apart, solver(rtol=1e-7, atol=1e-9), data)
        np.testing.assert_allclose(other.value, sol.value, atol=1e-4)
        assert bool(other.stats["certified"]) == (solver is jinv.splitting.DouglasRachford)


def test_certificate_says_when_the_theorem_does_not_hold():
    term, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    run = lambda problem, solver: jinv.solve(problem, solver, data, max_steps=20, throw=False)
    problem = jinv.Composite(term, prior)
    long = run(problem, jinv.splitting.ProximalGradient(step_size=1.5))
    assert not bool(long.stats["certified"])
    weak = run(problem, jinv.splitting.ADMM(penalty=0.1))  # as in the published experiments
    assert not bool(weak.stats["certified"])
    assert bool(run(problem, jinv.splitting.ADMM(penalty=3.0)).stats["certified"])
    scaled = jinv.Composite(term, jinv.prox.Scaled(prior, 2.0))
    found = run(scaled, jinv.splitting.ProximalGradient())
    assert bool(found.stats["certified"]) and float(found.stats["step_size"]) == 0.25


@pytest.mark.slow  # each of them compiles a solver
def test_certificate_misses_what_the_theorem_does_not_cover():
    term, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    run = lambda problem, solver: jinv.solve(problem, solver, data, max_steps=20, throw=False)
    problem = jinv.Composite(term, prior)
    relaxed = run(problem, jinv.splitting.ADMM(relaxation=1.8))
    assert not bool(relaxed.stats["certified"])
    assert not bool(run(problem, jinv.splitting.FISTA()).stats["certified"])
    plug = jinv.Composite(term, jinv.prox.PlugIn(lambda v, step_size: 0.9 * v))
    assert not bool(run(plug, jinv.splitting.ProximalGradient()).stats["certified"])
    convex = run(jinv.Composite(term, jinv.prox.L1(0.1)), jinv.splitting.ProximalGradient())
    assert "certified" not in convex.stats
    # A smooth term of unknown curvature, with a step that was given or searched for.
    unknown = jinv.Composite(lambda x, args: jnp.sum(x**4), prior)
    for solver in (
        jinv.splitting.ProximalGradient(step_size=0.4),
        jinv.splitting.ProximalGradient(),
    ):
        assert not bool(run(unknown, solver).stats["certified"])
    # Above its own step size the prox need not be the global minimiser.
    above = jinv.splitting.ProximalGradient(step_size=0.6)
    assert not bool(run(problem, above).stats["certified"])
    # The theorem on ADMM knows one copy of x, not one of K x nor two.
    behind = jinv.Composite(term, penalty=prior, operator=term.operator)
    beside = jinv.Composite(term, jinv.prox.NonNegative(), penalty=prior)
    for other in (behind, beside):
        assert not bool(run(other, jinv.splitting.ADMM(penalty=3.0)).stats["certified"])


def test_certificates_of_douglas_rachford_and_half_quadratic_splitting():
    term, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    run = lambda problem, solver: jinv.solve(problem, solver, data, max_steps=20, throw=False)
    reflect, half = jinv.splitting.DouglasRachford, jinv.splitting.HQS
    apart = jinv.Composite(proximable=term, penalty=prior)
    assert bool(run(apart, reflect(step_size=0.4, relaxation=1.8)).stats["certified"])
    assert not bool(run(apart, reflect(step_size=0.6)).stats["certified"])
    # Below the prox's own penalty of 2.
    together = jinv.Composite(term, prior)
    assert bool(run(together, half()).stats["certified"])
    assert not bool(run(together, half(penalty=1.0, final_penalty=1.0)).stats["certified"])


@pytest.mark.slow  # each of them compiles a solver
def test_certificates_miss_what_their_theorems_do_not_cover():
    term, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    run = lambda problem, solver: jinv.solve(problem, solver, data, max_steps=20, throw=False)
    reflect, half = jinv.splitting.DouglasRachford, jinv.splitting.HQS
    # Too long a step for the smooth term; the terms exchanged.
    slow = jinv.Composite(
        proximable=term, penalty=LearnedProximalNetwork(prior.potential, 5.0, objective=False)
    )
    assert not bool(run(slow, reflect(step_size=1.1)).stats["certified"])
    exchanged = jinv.Composite(proximable=prior, penalty=term)
    assert not bool(run(exchanged, reflect(step_size=0.4)).stats["certified"])
    convex = jinv.Composite(proximable=term, penalty=jinv.prox.L1(0.1))
    assert "certified" not in run(convex, reflect()).stats
    # Before the last penalty is reached; an operator before the copy.
    together = jinv.Composite(term, prior)
    assert not bool(run(together, half(penalty=2.0, growth=1.01)).stats["certified"])
    behind = jinv.Composite(term, penalty=prior, operator=term.operator)
    assert not bool(run(behind, half()).stats["certified"])
    assert "certified" not in run(jinv.Composite(term, jinv.prox.L1(0.1)), half()).stats


def test_hqs_at_a_fixed_penalty_is_the_smoothed_problem(getkey):
    term, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    # Its own penalty, one over the step size, is the default and is kept.
    solver = jinv.splitting.HQS(rtol=1e-8)
    sol = jinv.solve(jinv.Composite(term, prior), solver, data, max_steps=5000)
    assert float(sol.stats["penalty"]) == 2.0 and bool(sol.stats["certified"])
    gradient = lambda x: jax.grad(term)(x) + jinv.prox.moreau_gradient(prior, x, 0.5)
    np.testing.assert_allclose(gradient(sol.value), jnp.zeros((9, 8)), atol=1e-5)


def test_implicit_derivatives_of_a_reconstruction():
    """With respect to the data, the strength of the prior and a parameter of the operator."""
    _, prior, data = _deblurring(jax.random.key(5), 0.5, objective=False)
    solver = jinv.splitting.ProximalGradient(rtol=1e-11, atol=1e-13)

    @jax.jit
    def outcome(data, tau, width):
        kernel = jinv.operators.gaussian_kernel(width, 5, dtype=jnp.float64)
        term = jinv.data_terms.least_squares(jinv.operators.Convolution(kernel, (9, 8)), data)
        functional = LearnedProximalNetwork(prior.potential, tau, objective=False)
        problem = jinv.Composite(term, functional)
        sol = jinv.solve(problem, solver, data, max_steps=20_000)
        return jnp.sum(jnp.sin(3 * sol.value))

    point = (data, jnp.asarray(0.5), jnp.asarray(1.0))
    slopes = jax.grad(outcome, (0, 1, 2))(*point)
    direction = jax.random.normal(jax.random.key(6), data.shape)
    moves = (direction, jnp.asarray(1.0), jnp.asarray(1.0))
    h = 1e-5
    for i in range(3):
        move = lambda s, i=i: tuple(p + s * moves[j] * float(i == j) for j, p in enumerate(point))
        difference = (outcome(*move(h)) - outcome(*move(-h))) / (2 * h)
        np.testing.assert_allclose(jnp.sum(slopes[i] * moves[i]), difference, rtol=1e-5)


def test_second_network_replaces_the_inversion(getkey):
    """On a potential with a known conjugate: the quadratic."""

    class Quadratic(nn.AbstractConvexPotential):
        factor: float
        shape: tuple[int, ...] = (2,)
        strong_convexity: float = 0.5

        def __call__(self, y):
            return 0.5 * self.factor * jnp.sum(y * y)

        def recession(self, direction):
            return jnp.inf * jnp.ones(())

    psi, star = Quadratic(factor=0.5), Quadratic(factor=2.0)
    batch = jax.random.normal(getkey(), (10, 2))
    loss, metrics = train.ConjugateMatching(psi)(star, batch, None)
    assert float(loss) < 1e-25 and float(metrics["value_error"]) < 1e-12
    loss, metrics = train.ConjugateMatching(psi)(psi, batch, None)
    assert float(metrics["gradient_error"]) > 0.1
    prior = LearnedProximalNetwork(psi, 0.5)
    amortised = LearnedProximalNetwork(psi, 0.5, conjugate=star)
    np.testing.assert_allclose(amortised(batch[0]), prior(batch[0]), rtol=1e-10)
    np.testing.assert_allclose(prior(batch[0]), jnp.sum(batch[0] ** 2), rtol=1e-10)


def test_gamma_schedule_is_the_published_one():
    published = train.GammaSchedule(28 * 28, pretrain=20_000, stage_steps=5_000)
    steps = (0, 19_999, 20_000, 24_999, 25_000, 30_000, 35_000, 39_999, 60_000)
    found = [float(published(step)) for step in steps]
    expected = [np.inf, np.inf, 8, 8, 4, 2, 1, 1, 1]
    np.testing.assert_allclose(found, 2.24 * np.array(expected))


def test_proximal_matching_finds_the_mode_l1_the_median_l2_the_mean():
    """One number estimated from samples of a skewed density; no network in between."""
    sample = jnp.concatenate([jnp.zeros(6), jnp.linspace(0.5, 4, 5)])[:, None]

    def minimiser(pretrain, gamma):
        loss = train.ProximalMatching(pretrain, lambda model, y: model)
        grid = jnp.linspace(-1, 5, 6001)[:, None]
        batch = sample, sample, jnp.asarray(gamma)
        values = jax.vmap(lambda c: loss(c, batch, None)[0])(grid)
        return float(grid[jnp.argmin(values), 0])

    np.testing.assert_allclose(minimiser("l2", jnp.inf), float(jnp.mean(sample)), atol=2e-3)
    assert abs(minimiser("l1", jnp.inf) - float(jnp.median(sample))) < 2e-3
    assert abs(minimiser("l1", 0.1)) < 2e-3
    gaps = jnp.array([0.0, 1.0, 2.0])[:, None]
    loss = train.ProximalMatching(apply=lambda model, y: y)
    value, metrics = loss(None, (jnp.zeros((3, 1)), gaps, jnp.asarray(1.0)), None)
    np.testing.assert_allclose(value, 1 - (1 + np.exp(-1) + np.exp(-4)) / 3)
    np.testing.assert_allclose(metrics["saturated"], 1 / 3)


def test_training_recovers_a_gaussian_prior(getkey):
    """Data of variance 1, noise of variance 1: the prox is y / 2 for every loss."""
    samples = lambda key, step: jax.random.normal(key, (256, 1))
    gamma = train.GammaSchedule(1, pretrain=300, stage_steps=100, stages=2, least=1.0)
    fitted = train.fit(
        train.ProximalMatching(),
        nn.dense_icnn(1, (8, 8), beta=4.0, key=getkey()),
        train.NoisyBatches(samples, 1.0, gamma),
        optimiser=optax.chain(optax.adam(1e-2), nn.keep_nonnegative()),
        num_steps=500,
        key=getkey(),
        progress=False,
    )
    y = jnp.linspace(-2, 2, 9)[:, None]
    found = jax.vmap(fitted.model.gradient)(y)
    np.testing.assert_allclose(found, y / 2, atol=0.15)
    assert "saturated" in fitted.history[-1]


def test_noise_between_two_levels(getkey):
    samples = lambda key, step: jnp.zeros((2000, 50))
    batches = train.NoisyBatches(samples, (0.5, 1.5))
    _, noisy, gamma = batches(getkey(), 0)
    level = jnp.std(noisy, axis=1)
    assert jnp.isinf(gamma)
    assert 0.3 < float(level.min()) < 0.65 and 1.5 < float(level.max()) < 2.3
    np.testing.assert_allclose(jnp.mean(level), 1.0, atol=0.03)


def _any(**arguments: Any) -> dict[str, Any]:
    """Hides from the type checker what it would rightly refuse."""
    return arguments


WRONG: dict[str, Any] = {
    "potential": (
        lambda p: LearnedProximalNetwork(**_any(potential=jnp.tanh)),
        "`potential` must be a convex",
    ),
    "conjugate": (
        lambda p: LearnedProximalNetwork(p, **_any(conjugate=3)),
        "`conjugate` must be",
    ),
    "step_size": (lambda p: LearnedProximalNetwork(p, 0.0), "`step_size` must be greater"),
    "max_steps": (lambda p: LearnedProximalNetwork(p, max_steps=0), "`max_steps` must be"),
    "array step": (
        lambda p: LearnedProximalNetwork(p).prox(jnp.zeros((4, 4)), jnp.ones((4, 4))),
        "a learned prox takes a scalar `step_size`",
    ),
    "size": (lambda p: train.GammaSchedule(0, 1, 1), "`size` must be positive"),
    "pretrain": (lambda p: train.GammaSchedule(1, -1, 1), "`pretrain` must not be negative"),
    "loss": (
        lambda p: train.ProximalMatching(**_any(pretrain="l3")),
        "`pretrain` must be 'l1' or 'l2'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_named(name):
    make, message = WRONG[name]
    with pytest.raises((ValueError, TypeError)) as caught:
        make(_potential(jax.random.key(0)))
    # Where the annotations say it already, the checker of the tests is first.
    assert message in str(caught.value) or "type" in str(caught.value).lower()
