"""Hypergradients of a lasso's and a TV weight: implicit against unrolled, against jaxopt."""

from ._cases import Benchmark, Case, Contender
from ._peer_cases import hypergradient_cases


def _ours(problem):
    return _tv_weight() if problem["name"] == "tv_weight" else _lasso(problem["size"])


def _lasso(size):
    found = []
    for adjoint in ("implicit", "implicit, GMRES", "one step", "unrolled"):
        for tol in (1e-7,) if adjoint == "unrolled" else (1e-3, 1e-5, 1e-7):
            window = 5 if size > 100 else 1
            found.append(_contender("lasso", f"FISTA {tol:.0e}", adjoint, tol, window))
    return found


def _tv_weight():
    found = []
    for kind in ("PDHG", "ADMM"):
        for tol in (1e-3, 1e-4, 1e-5):
            name = f"{kind} {tol:.0e}"
            found.append(_contender("tv_weight", name, "implicit", tol, 1, kind=kind))
        found.append(_contender("tv_weight", f"{kind} 1e-04", "unrolled", 1e-4, 1, kind=kind))
    return found


def _contender(method, name, adjoint, tol, window_steps, **params):
    max_steps = 1000 if adjoint == "unrolled" else 20000
    params = {**params, "adjoint": adjoint, "tol": tol, "max_steps": max_steps}
    label = f"{name}, {adjoint}"
    return Contender(
        "jinv", "benchmarks._ours", method, params, window_steps=window_steps, label=label
    )


def cases(smoke: bool) -> list[Case]:
    return hypergradient_cases(smoke, _ours)


BENCHMARK = Benchmark(
    "hypergradient_prox", "hypergradient of a lasso's and a TV weight, implicit, unrolled", cases
)
