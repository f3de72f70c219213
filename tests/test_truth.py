"""Every splitting solver against dense references, and so against each other."""

import functools as ft

import cvxpy as cp
import jax
import jax.numpy as jnp
import jinv
import numpy as np
import pytest
import scipy.optimize
from jinv import prox

from .helpers import CASES, COUNTS, GROUPED, IMAGE, REGRESSION, SIGNAL


def _minimum(objective, x, constraints=()):
    """The minimiser by an interior-point method, run to the end of its digits."""
    problem = cp.Problem(cp.Minimize(objective), list(constraints))
    exact = {k: 1e-14 for k in ("tol_gap_abs", "tol_gap_rel", "tol_feas")}
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


def _group_lasso():
    A, b, w = (np.asarray(GROUPED[k]) for k in ("matrix", "data", "weight"))
    x = cp.Variable(6)
    groups = sum(cp.norm2(x[2 * i : 2 * i + 2]) for i in range(3))
    return _minimum(cp.sum_squares(A @ x - b) / 2 + w * groups, x)


def _tv1():
    # The dual is least squares in a box, for which SciPy has an exact active-set method.
    b, w = np.asarray(SIGNAL["data"]), float(SIGNAL["weight"])
    D = np.diff(np.eye(7), axis=0)
    z = scipy.optimize.lsq_linear(D.T, b, (-w, w), method="bvls", tol=1e-15).x
    return b - D.T @ z


def _tv2():
    b, w = np.asarray(IMAGE["data"]), float(IMAGE["weight"])
    x = cp.Variable((3, 4))
    cells = []
    for i in range(3):
        for j in range(4):
            down = x[i + 1, j] - x[i, j] if i < 2 else 0
            right = x[i, j + 1] - x[i, j] if j < 3 else 0
            cells.append(cp.norm2(cp.hstack([down, right])))
    return _minimum(cp.sum_squares(x - b) / 2 + w * sum(cells), x)


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

    def conditions(x):
        # The solution lies inside the constraint: Newton on the gradient.
        return A.T @ (1 - b / (A @ x + 0.1))

    x = scipy.optimize.root(conditions, np.ones(3), tol=1e-14).x
    assert np.all(x > 0)
    return x


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
    sol = case.solve(case.theta, throw=False)
    np.testing.assert_allclose(sol.value, REFERENCES[name.split("-")[0]](), rtol=0, atol=1e-8)
    print(sol.result, sol.stats["num_steps"])
    assert sol.result == jinv.RESULTS.successful
