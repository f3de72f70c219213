"""High-accuracy reference optima in float64, computed once and kept as small JSON files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph, linalg as sparse_linalg

from ._problems import (
    Problem,
    circular_blur,
    gradient,
    gradient_adjoint,
    make_problem,
    transfer_function,
)


REFERENCES = Path(__file__).parent / "results" / "reference"
_VERSION = 1


def reference_of(
    problem: Mapping[str, Any], *, dtype: str, seed: int, folder: Path = REFERENCES
) -> dict[str, Any] | None:
    """What a perfect answer measures: `{"values": {metric: number}, "certificate": {...}}`.

    The certificate bounds the error of the values. None for problems whose optimum depends on
    the library (`tv_ct`).
    """
    if problem["name"] not in _SOLVERS:
        return None
    key = {"version": _VERSION, **problem, "dtype": dtype, "seed": seed}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"{problem['name']}_{problem['size']}_{digest}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return stored["reference"]
    found = _SOLVERS[problem["name"]](make_problem(**problem, dtype=dtype, seed=seed))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"key": key, "reference": found}, indent=1, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    return found


def _tv_reference(problem: Problem) -> dict[str, Any]:
    _, best, lower, steps = _tv_solve(problem, modulus=1.0, relative_gap=1e-9, max_steps=20000)
    return {
        "values": {"objective": best},
        "certificate": {
            "lower_bound": lower,
            "relative_gap": (best - lower) / best,
            "steps": steps,
        },
    }


def _tv_solve(problem: Problem, *, modulus: float, relative_gap: float, max_steps: int):
    """min_x 1/2 |Ax - y|^2 + lam TV(x) by primal-dual iterations with the exact data step:
    x, its objective, a lower bound, the number of steps.

    Algorithms 1 and 2 of Chambolle & Pock, "A first-order primal-dual algorithm for convex
    problems with applications to imaging" (2011); the second, for data terms with a modulus of
    strong convexity, in denoising. The data step is diagonal in the Fourier domain.
    """
    lam, boundary = problem.params["lam"], problem.params["boundary"]
    y = problem.data["y"].astype(np.float64)
    if problem.name == "tv_deblur":
        transfer = transfer_function(problem.data["psf"], y.shape)
        tau, sigma, modulus = 10.0, 0.0125, 0.0
    else:
        transfer = np.ones((y.shape[0], y.shape[1] // 2 + 1))
        tau, sigma = 0.35, 0.35
    energy, back = np.abs(transfer) ** 2, np.conj(transfer) * np.fft.rfft2(y)
    x, x_bar, p = y.copy(), y.copy(), np.zeros((2, *y.shape))
    best, lower, step = np.inf, -np.inf, 0
    for step in range(1, max_steps + 1):
        p = p + sigma * gradient(x_bar, boundary)
        p /= np.maximum(1.0, np.sqrt(np.sum(p**2, axis=0)) / lam)
        right = np.fft.rfft2(x - tau * gradient_adjoint(p, boundary))
        x_new = np.fft.irfft2((right + tau * back) / (1 + tau * energy), s=y.shape)
        theta = 1 / np.sqrt(1 + 2 * modulus * tau)
        x_bar = x_new + theta * (x_new - x)
        x, tau, sigma = x_new, tau * theta, sigma / theta
        if step % 250 == 0:
            best = min(best, problem.objective(x))
            lower = max(lower, _lower_bound(x, p, y, transfer, boundary))
            if best - lower <= relative_gap * best:
                break
    return x, best, lower, step


def _tv_weight_reference(problem: Problem) -> dict[str, Any]:
    """The solution to many digits, then the linear system on its structure.

    With D the differences, the set F of pixels with Dx = 0 and P the indicators of the regions
    that F connects, the derivative is dx = P u, where u minimises
    1/2 |P u|^2 + lam / 2 sum_{i not in F} |T_i P u|^2 / |D_i x| + <P u, sum D_i' n_i> dlam
    with n_i = D_i x / |D_i x| and T_i the part of D_i orthogonal to it.
    """
    lam, boundary = problem.params["lam"], problem.params["boundary"]
    y, truth = (problem.data[name].astype(np.float64) for name in ("y", "truth"))
    x, best, lower, steps = _tv_solve(problem, modulus=0.5, relative_gap=0.0, max_steps=40000)
    slope = gradient(x, boundary).reshape(2, -1)
    size = np.hypot(*slope)
    # The widest gap between what is a difference and what is rounding.
    sizes = np.sort(np.maximum(size, 1e-13))
    small = int(np.searchsorted(sizes, 1e-4))
    largest_still = sizes[np.argmax(sizes[1 : small + 1] / sizes[:small])] if small else 0.0
    moving = size > largest_still
    index, ones = np.arange(y.size).reshape(y.shape), np.ones(y.size)
    after = [np.concatenate([index[1:], index[-1:]]), np.hstack([index[:, 1:], index[:, -1:]])]
    place = lambda at: sparse.csr_matrix((ones, (index.ravel(), at.ravel())), shape=2 * (y.size,))
    still = sparse.diags((~moving).astype(float))
    num, region = csgraph.connected_components(sum(still @ place(a) for a in after), directed=False)
    differences = [place(a) - place(index) for a in after]
    P = sparse.csr_matrix((ones, (index.ravel(), region)), shape=(y.size, num))
    normal = np.where(moving, slope / np.where(moving, size, 1), 0)
    root = np.sqrt(np.where(moving, lam / np.where(moving, size, 1), 0))
    across = sparse.diags(root * normal[1]) @ differences[0]
    across = (across - sparse.diags(root * normal[0]) @ differences[1]) @ P
    pull = sum(d.T @ n for d, n in zip(differences, normal, strict=True))
    u = sparse_linalg.spsolve((P.T @ P + across.T @ across).tocsc(), -(P.T @ pull))
    error = (x - truth).ravel()
    return {
        "values": {
            "objective": best,
            "outer_value": 0.5 * float(np.mean(error**2)),
            "hypergradient": float(lam * error @ (P @ u) / y.size),
        },
        "certificate": {
            "relative_gap": (best - lower) / best,
            "steps": steps,
            "regions": int(num),
            "largest_still": float(largest_still),
            "smallest_moving": float(size[moving].min()),
        },
    }


def _lower_bound(x, p, y, transfer, boundary: str) -> float:
    """A lower bound of the optimum from the dual pair (q = Ax - y, p), |p| <= lam pixelwise.

    F(z) >= -1/2 |q|^2 - <q, y> + <z, A'q + D'p> for every z. With A the identity q can be chosen
    so that the last term vanishes; otherwise it is bounded with |z| <= 2 |x| at the minimiser.
    """
    if np.all(transfer == 1):
        q = -gradient_adjoint(p, boundary)
        return float(-0.5 * np.sum(q**2) - np.sum(q * y))
    q = circular_blur(x, transfer) - y
    rest = circular_blur(q, np.conj(transfer)) + gradient_adjoint(p, boundary)
    slack = 2 * np.linalg.norm(x) * np.linalg.norm(rest)
    return float(-0.5 * np.sum(q**2) - np.sum(q * y) - slack)


def _lasso_reference(problem: Problem) -> dict[str, Any]:
    """Coordinate descent to rounding, then the linear system on the support.

    With inner problem 1/(2n) |Xw - y|^2 + lam |w|_1, support S and signs s, implicit
    differentiation gives dw_S/dlam = -(X_S'X_S / n)^{-1} s, and zero elsewhere. The hypergradient
    is that of the validation loss 1/(2m) |X_v w - y_v|^2 with respect to theta = log lam.
    """
    train_x, train_y, valid_x, valid_y = (
        problem.data[name].astype(np.float64)
        for name in ("train_x", "train_y", "valid_x", "valid_y")
    )
    lam, (n, d) = problem.params["lam"], train_x.shape
    curvature = np.sum(train_x**2, axis=0) / n
    w, residual = np.zeros(d), train_y.copy()
    active = np.arange(d)
    for sweep in range(20000):
        full = sweep % 20 == 0
        change = 0.0
        for j in range(d) if full else active:
            pull = train_x[:, j] @ residual / n + curvature[j] * w[j]
            new = np.sign(pull) * max(abs(pull) - lam, 0.0) / curvature[j]
            if new != w[j]:
                change = max(change, abs(new - w[j]))
                residual -= train_x[:, j] * (new - w[j])
                w[j] = new
        active = np.flatnonzero(w)
        if full and change <= 1e-14 * max(1.0, np.abs(w).max()):
            break
    signs, columns = np.sign(w[active]), train_x[:, active]
    gram = columns.T @ columns / n
    w = np.zeros(d)
    w[active] = np.linalg.solve(gram, columns.T @ train_y / n - lam * signs)
    correlation = np.abs(train_x.T @ (train_y - columns @ w[active]) / n)
    outer = valid_x[:, active].T @ (valid_x @ w - valid_y) / len(valid_y)
    return {
        "values": {
            "objective": problem.objective(w),
            "outer_value": 0.5 * float(np.mean((valid_x @ w - valid_y) ** 2)),
            "hypergradient": float(-lam * outer @ np.linalg.solve(gram, signs)),
        },
        "certificate": {
            "support": len(active),
            "dual_margin": float(lam - np.delete(correlation, active).max(initial=0.0)),
            "condition_number": float(np.linalg.cond(gram)),
        },
    }


_SOLVERS = {
    "tv_denoise": _tv_reference,
    "tv_deblur": _tv_reference,
    "tv_weight": _tv_weight_reference,
    "lasso": _lasso_reference,
}
