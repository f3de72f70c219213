"""The problems of the first two benchmarks and the peers that meet on each.

`splitting.py` and `hypergradient_prox.py` add jinv's own contenders with `ours`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._cases import Case, Contender, geometric_checkpoints


Ours = Callable[[Mapping[str, Any]], Sequence[Contender]]


def _none(problem: Mapping[str, Any]) -> Sequence[Contender]:
    return ()


def splitting_cases(smoke: bool, ours: Ours = _none) -> list[Case]:
    """TV denoising and deblurring, two boundaries each, the cost of projectors, and TV-CT."""
    size = 64 if smoke else 256
    cases = []
    for name, lam, sigma in (("tv_denoise", 0.1, 0.1), ("tv_deblur", 1e-3, 0.02)):
        for boundary in ("neumann", "circular"):
            if smoke and (boundary == "circular") != (name == "tv_deblur"):
                continue
            params = {"boundary": boundary, "lam": lam, "sigma": sigma}
            problem = {"name": name, "size": size, "params": params}
            cases.append(
                Case(
                    problem,
                    [*ours(problem), *_tv_peers(problem, smoke)],
                    checkpoints=geometric_checkpoints(20 if smoke else 3000, 1.5 if smoke else 1.1),
                )
            )
    for num_angles in (12,) if smoke else (60, 180):
        params = {"boundary": "neumann", "num_angles": num_angles, "lam": 1e-3, "sigma": 0.01}
        problem = {"name": "tv_ct", "size": size, "params": params}
        cases.append(
            Case(
                problem,
                [*ours(problem), *_ct_peers(smoke)],
                checkpoints=geometric_checkpoints(4 if smoke else 1000, 1.3),
                targets=(1e-2, 1e-3, 1e-4),
                time_limit_s=25.0,
                reference="library",
                reference_steps=2 if smoke else 50,
            )
        )
    return cases


def hypergradient_cases(smoke: bool, ours: Ours = _none) -> list[Case]:
    """Hypergradients with respect to the log of the weight: of a lasso's validation loss, of the
    squared error of a denoised photograph."""
    problems = [
        {"name": "lasso", "size": 10, "params": {"data": "diabetes", "lam": 0.05}},
        {
            "name": "lasso",
            "size": 60 if smoke else 1000,
            "params": {"data": "synthetic", "lam": 0.1},
        },
    ]
    params = {"boundary": "neumann", "lam": 0.1, "sigma": 0.1}
    image = {"name": "tv_weight", "size": 16 if smoke else 64, "params": params}
    cases = [(problem, _lasso_peers(smoke)) for problem in problems]
    return [
        Case(problem, [*ours(problem), *peers], reference="numpy")
        for problem, peers in [*cases, (image, _tv_weight_peers(smoke))]
    ]


def _scico(method: str, params: Mapping[str, Any], label: str, **options: Any) -> Contender:
    return Contender("scico", "benchmarks._peer_scico", method, params, label=label, **options)


def _deepinv(method: str, params: Mapping[str, Any], label: str, **options: Any) -> Contender:
    return Contender("deepinv", "benchmarks._peer_deepinv", method, params, label=label, **options)


def _tv_peers(problem: Mapping[str, Any], smoke: bool) -> list[Contender]:
    deblur, circular = problem["name"] == "tv_deblur", problem["params"]["boundary"] == "circular"
    rho = 0.05 if deblur else 2.0
    solver = (
        {"subproblem": "fft"} if circular else {"subproblem": "cg", "cg_tol": 1e-4, "cg_steps": 20}
    )
    step_pairs = [(0.35, 0.35), *([(10.0, 0.012)] if deblur else [])]
    found = []
    for statistics in ("default", "minimal"):
        said = f", {statistics} statistics"
        found.append(
            _scico(
                "ADMM",
                {"rho": rho, **solver, "statistics": statistics},
                f"ADMM {solver['subproblem'].upper()}{said}",
            )
        )
        for tau, sigma in step_pairs:
            found.append(
                _scico(
                    "PDHG",
                    {"tau": tau, "sigma": sigma, "statistics": statistics},
                    f"PDHG tau {tau:g} sigma {sigma:g}{said}",
                )
            )
        for method in ("PGM", "APGM"):
            found.append(
                _scico(
                    method,
                    {"L0": 1.05, "statistics": statistics},
                    f"{method} approximate TV{said}",
                )
            )
    window = {"window_steps": 2 if smoke else 10}
    absent = "deepinv has Neumann differences only" if circular else None
    for tau, sigma in step_pairs:
        found.append(
            _deepinv(
                "PDCP",
                {"tau": tau, "sigma": sigma},
                f"PDCP tau {tau:g} sigma {sigma:g}",
                unavailable=absent,
            )
        )
    for method, step_size in (("PGD", 1.0), ("FISTA", 1.0), ("ADMM", 20.0 if deblur else 1.0)):
        found.append(
            _deepinv(
                method,
                {"step_size": step_size, "inner_steps": 20},
                f"{method} TVPrior(20)",
                unavailable=absent,
                **window,
            )
        )
    found.append(
        Contender(
            "jaxopt",
            "benchmarks._peer_jaxopt",
            "ProximalGradient",
            label="ProximalGradient TV",
            unavailable="jaxopt has no total variation",
        )
    )
    return found


def _ct_peers(smoke: bool) -> list[Contender]:
    found = []
    for make in (_scico, _deepinv):
        for direction in ("forward", "adjoint"):
            found.append(
                make(
                    "projection", {"direction": direction}, direction, window_steps=1, follow=False
                )
            )
    # The stacked operator's squared norm is at most 9: the projector's 1, the differences' 8.
    steps = [{"tau": tau, "sigma": 0.11 / tau, "statistics": "minimal"} for tau in (0.33, 10.0)]
    admm = {
        "rho": 0.05,
        "subproblem": "cg",
        "cg_tol": 1e-4,
        "cg_steps": 25,
        "statistics": "minimal",
    }
    few = {"window_steps": 1 if smoke else 2}
    found += [
        _scico("CT ADMM", admm, "ADMM CG", **few),
        *(_scico("CT PDHG", step, f"PDHG tau {step['tau']:g}", **few) for step in steps),
        _deepinv("CT ADMM", {"step_size": 20.0, "inner_steps": 20}, "ADMM TVPrior(20)", **few),
        _deepinv("CT FISTA", {"step_size": 1.0, "inner_steps": 20}, "FISTA TVPrior(20)", **few),
    ]
    return found


def _lasso_peers(smoke: bool) -> list[Contender]:
    found = []
    for adjoint in ("normal_cg", "cg", "gmres", "bicgstab", "lu", "unrolled"):
        # Unrolling does the same work at every tolerance.
        tols = (1e-6,) if smoke else (1e-7,) if adjoint == "unrolled" else (1e-3, 1e-5, 1e-7)
        for tol in tols:
            params = {
                "adjoint": adjoint,
                "tol": tol,
                "max_steps": 1000 if adjoint == "unrolled" else 20000,
                "step_size": "fixed",
                "accelerated": True,
            }
            found.append(
                Contender(
                    "jaxopt",
                    "benchmarks._peer_jaxopt",
                    "ProximalGradient",
                    params,
                    window_steps=1 if smoke else 5,
                    label=f"FISTA {tol:.0e}, {adjoint}",
                )
            )
    return found


def _tv_weight_peers(smoke: bool) -> list[Contender]:
    """jaxopt has no total variation, but its user can project the dual variable himself."""
    found = []
    for adjoint in ("normal_cg", "gmres", "unrolled"):
        for tol in (1e-3,) if smoke or adjoint == "unrolled" else (1e-3, 1e-4, 1e-5):
            params = {
                "adjoint": adjoint,
                "tol": tol,
                "max_steps": 1000 if adjoint == "unrolled" else 20000,
            }
            found.append(
                Contender(
                    "jaxopt",
                    "benchmarks._peer_jaxopt",
                    "dual ProjectedGradient",
                    params,
                    window_steps=1,
                    label=f"dual FISTA {tol:.0e}, {adjoint}",
                )
            )
    return found
