"""Every splitting solver against dense references, and so against each other."""

import functools as ft
import itertools
import warnings

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import jinv
from jinv import prox
from jinv.data_terms import least_squares

from .helpers import CASES, COUNTS, FORMS, GROUPED, IMAGE, REGRESSION, SIGNAL, SOLVERS, matrix


def _minimum(objective, x, constraints=()):
    """The minimiser by an interior-point method, run to the end of its digits."""
    problem = cp.Problem(cp.Minimize(objective), list(constraints))
    exact = {k: 1e-14 for k in ("tol_gap_abs", "tol_gap_rel", "tol_feas")}
    with warnings.catch_warnings():
        # It may not certify tolerances at rounding; the test's own tolerance decides.
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver="CLARABEL", **exact, max_iter=200)
    return np.asarray(x.value)


def _lasso():
    A, b, w = (np.asarray(REGRESSION[k]) for k in ("matrix", "data", "weight"))
    # With x = p - n and p, n >= 0 the optimality conditions are those of a bounded quadratic;
    # of the 3^5 sign patterns exactly one satisfies them.
    best, best_value = np.zeros(5), np.inf
    for signs in np.stack(np.meshgrid(*[[-1, 0, 1]] * 5), -1).reshape(-1, 5):
        on = signs != 0
        x = np.zeros(5)
        if on.any():
            gram = A[:, on].T @ A[:, on]
            x[on] = np.linalg.solve(gram, A[:, on].T @ b - w * signs[on])
        value = 0.5 * np.sum((A @ x - b) ** 2) + w * np.abs(x).sum()
        if value < best_value:
            best, best_value = x, value
    return best


def _nnls():
    return scipy.optimize.nnls(np.asarray(REGRESSION["matrix"]), np.asarray(REGRESSION["data"]))[0]


def _elastic_net():
    # The ridge term is a set of further equations; what is left is a lasso.
    A, b, w = (np.asarray(REGRESSION[k]) for k in ("matrix", "data", "weight"))
    x = cp.Variable(5)
    objective = cp.sum_squares(A @ x - b) / 2 + w * cp.norm1(x) + 0.35 * cp.sum_squares(x)
    return _minimum(objective, x)


def _polished(A, b, weight, blocks, start):
    """The exact minimiser of |A x - b|^2 / 2 + w sum_i |B_i x|, where it vanishes being known.

    On the subspace of the vanishing blocks the objective is smooth: Newton on its gradient.
    """
    size = [np.linalg.norm(B @ start) for B in blocks]
    flat = [B for B, s in zip(blocks, size, strict=True) if s < 1e-4]
    active = [B for B, s in zip(blocks, size, strict=True) if s >= 1e-4]
    basis = scipy.linalg.null_space(np.vstack(flat)) if flat else np.eye(start.size)

    def gradient(c):
        x = basis @ c
        total = A.T @ (A @ x - b)
        for B in active:
            total = total + weight * B.T @ (B @ x) / np.linalg.norm(B @ x)
        return basis.T @ total

    solution = scipy.optimize.root(gradient, basis.T @ start, tol=1e-15)
    assert np.abs(gradient(solution.x)).max() < 1e-12
    return basis @ solution.x


def _group_lasso():
    A, b, w = (np.asarray(GROUPED[k]) for k in ("matrix", "data", "weight"))
    x = cp.Variable(6)
    groups = sum(cp.norm2(x[2 * i : 2 * i + 2]) for i in range(3))
    start = _minimum(cp.sum_squares(A @ x - b) / 2 + w * groups, x)
    return _polished(A, b, w, np.split(np.eye(6), 3), start)


def _tv1():
    # The dual is least squares in a box, for which SciPy has an exact active-set method.
    b, w = np.asarray(SIGNAL["data"]), float(SIGNAL["weight"])
    D = np.diff(np.eye(7), axis=0)
    z = scipy.optimize.lsq_linear(D.T, b, (-w, w), method="bvls", tol=1e-15).x
    return b - D.T @ z


def _tv2():
    b, w = np.asarray(IMAGE["data"]).ravel(), float(IMAGE["weight"])
    pixel = np.eye(12).reshape(3, 4, 12)
    down = np.concatenate([np.diff(pixel, axis=0), np.zeros((1, 4, 12))]).reshape(12, 12)
    right = np.concatenate([np.diff(pixel, axis=1), np.zeros((3, 1, 12))], 1).reshape(12, 12)
    blocks = list(np.stack([down, right], axis=1))
    x = cp.Variable(12)
    start = _minimum(cp.sum_squares(x - b) / 2 + w * sum(cp.norm2(B @ x) for B in blocks), x)
    return _polished(np.eye(12), b, w, blocks, start).reshape(3, 4)


def _l1_tv():
    b, w = np.asarray(SIGNAL["data"]), float(SIGNAL["weight"])
    # A linear programme over x, |x - b| <= s, |D x| <= t, solved by the simplex method.
    D, eye = np.diff(np.eye(7), axis=0), np.eye(7)
    rows = [np.c_[sign * eye, -eye, np.zeros((7, 6))] for sign in (1, -1)]
    rows += [np.c_[sign * D, np.zeros((6, 7)), -np.eye(6)] for sign in (1, -1)]
    bounds = [(None, None)] * 7 + [(0, None)] * 13
    cost = np.r_[np.zeros(7), np.ones(7), np.full(6, w)]
    limit = np.r_[b, -b, np.zeros(12)]
    return scipy.optimize.linprog(cost, np.vstack(rows), limit, bounds=bounds, method="highs-ds").x[
        :7
    ]


def _poisson():
    A, b = np.asarray(COUNTS["matrix"]), np.asarray(COUNTS["data"])
    gradient = lambda x: A.T @ (1 - b / (A @ x + 0.1))
    # Newton on every support; the one that satisfies the optimality conditions is the solution.
    for support in itertools.product([False, True], repeat=3):
        on = np.flatnonzero(support)
        place = lambda c, on=on: np.bincount(on, c, minlength=3)
        x = np.zeros(3)
        if on.size:
            found = scipy.optimize.root(
                lambda c, on=on, place=place: gradient(place(c))[on], np.ones(on.size), tol=1e-15
            )
            x = place(found.x)
        if np.all(x >= 0) and np.all(gradient(x) >= -1e-12):
            return x
    raise AssertionError


REFERENCES = {
    "lasso": _lasso,
    "nnls": _nnls,
    "elastic_net": _elastic_net,
    "group_lasso": _group_lasso,
    "tv1": _tv1,
    "tv2": _tv2,
    "l1_tv": _l1_tv,
    "poisson": _poisson,
}
REFERENCES = {name: ft.cache(fn) for name, fn in REFERENCES.items()}


@pytest.mark.parametrize("name", [name for name in CASES if name != "lasso-HQS"])
def test_solvers_agree_with_dense_reference(name):
    case = CASES[name]
    sol = case.solve(case.theta)
    np.testing.assert_allclose(sol.value, REFERENCES[name.split("-")[0]](), rtol=0, atol=1e-8)
    assert sol.result == jinv.RESULTS.successful
    assert sol.stats["residual"] < 1e-10
    x = sol.value
    if name.split("-")[0] not in ("nnls", "poisson"):  # rounding may leave a constraint
        objective = case.build(case.theta).objective(x, None)
        np.testing.assert_allclose(sol.stats["objective"], objective, rtol=1e-9)


def test_hqs_minimises_the_moreau_smoothed_problem():
    case = CASES["lasso-HQS"]
    sol = case.solve(case.theta)
    A, b = np.asarray(REGRESSION["matrix"]), np.asarray(REGRESSION["data"])
    smoothed = jax.grad(lambda x: prox.moreau_envelope(prox.L1(REGRESSION["weight"]), x, 1 / 2.0))
    conditions = lambda x: A.T @ (A @ x - b) + np.asarray(smoothed(jnp.asarray(x)))
    exact = scipy.optimize.root(conditions, np.zeros(5), tol=1e-14).x
    np.testing.assert_allclose(sol.value, exact, rtol=0, atol=1e-8)
    assert np.abs(exact - REFERENCES["lasso"]()).max() > 1e-3


def test_hqs_with_growth_approaches_the_problem():
    case = CASES["lasso-HQS"]
    for final in (1e2, 1e4):
        solver = jinv.splitting.HQS(rtol=1e-10, penalty=1.0, growth=1.5, final_penalty=final)
        error = case.solve(case.theta, solver=solver, max_steps=100_000).value
        assert np.abs(error - REFERENCES["lasso"]()).max() < 10 / final


def test_history_is_padded_and_monotone():
    case = CASES["lasso-ProximalGradient"]
    solver = jinv.splitting.ProximalGradient(rtol=1e-6, check_every=3)
    sol = case.solve(case.theta, solver=solver, max_steps=1000, save_history=True)
    history = sol.stats["history"]
    checks = int(sol.stats["num_steps"]) // 3
    assert sol.stats["num_steps"] % 3 == 0 and 2 < checks < 334
    for row in history.values():
        assert row.shape == (334,)
        assert np.all(np.isfinite(row[:checks])) and np.all(np.isnan(row[checks:]))
    assert np.all(np.diff(history["objective"][:checks]) <= 1e-12)
    assert history["residual"][checks - 1] == sol.stats["residual"]


def test_complex_least_squares_with_l1():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 3)) + 1j * rng.normal(size=(6, 3))
    b = rng.normal(size=6) + 1j * rng.normal(size=6)
    x = cp.Variable(3, complex=True)
    exact = _minimum(cp.sum_squares(A @ x - b) / 2 + 1.5 * cp.sum(cp.abs(x)), x)
    f, g = least_squares(matrix(jnp.asarray(A)), jnp.asarray(b)), prox.L1(1.5)
    for name in ("FISTA", "PDHG", "ADMM", "DouglasRachford"):
        sol = jinv.solve(FORMS[name](f, g), SOLVERS[name], jnp.zeros(3, complex))
        np.testing.assert_allclose(sol.value, exact, rtol=0, atol=1e-6)
        # The optimality conditions, where CVXPY has no more digits.
        slope, value = A.conj().T @ (A @ sol.value - b), np.asarray(sol.value)
        on = np.abs(value) > 1e-6
        np.testing.assert_allclose(slope[on], -1.5 * value[on] / np.abs(value[on]), atol=1e-9)
        assert np.all(np.abs(slope[~on]) <= 1.5 + 1e-9)


def test_warm_start_from_the_solution_stops_at_the_first_check():
    for name in ("tv1-PDHG", "tv1-ADMM", "lasso-DouglasRachford"):
        case = CASES[name]
        sol = case.solve(case.theta)
        loose = jax.tree.map(lambda _: 1e-7, case.solver)
        again = case.solve(case.theta, y0=jinv.PrimalDual(sol.value, sol.dual), solver=loose)
        assert again.stats["num_steps"] == case.solver.check_every
