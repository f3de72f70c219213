"""High-accuracy reference optima in float64, computed once and kept as small JSON files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
    """min_x 1/2 |Ax - y|^2 + lam TV(x) by primal-dual iterations with the exact data step.

    Algorithms 1 and 2 of Chambolle & Pock, "A first-order primal-dual algorithm for convex
    problems with applications to imaging" (2011); the second, for strongly convex data terms, in
    denoising. The data step is diagonal in the Fourier domain.
    """
    lam, boundary = problem.params["lam"], problem.params["boundary"]
    y = problem.data["y"].astype(np.float64)
    if problem.name == "tv_deblur":
        transfer = transfer_function(problem.data["psf"], y.shape)
        tau, sigma, modulus = 10.0, 0.0125, 0.0
    else:
        transfer = np.ones((y.shape[0], y.shape[1] // 2 + 1))
        tau, sigma, modulus = 0.35, 0.35, 1.0
    energy, back = np.abs(transfer) ** 2, np.conj(transfer) * np.fft.rfft2(y)
    x, x_bar, p = y.copy(), y.copy(), np.zeros((2, *y.shape))
    best, lower, step = np.inf, -np.inf, 0
    for step in range(1, 20001):
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
            if best - lower <= 1e-9 * best:
                break
    return {
        "values": {"objective": best},
        "certificate": {"lower_bound": lower, "relative_gap": (best - lower) / best, "steps": step},
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
    "lasso": _lasso_reference,
}
