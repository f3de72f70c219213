"""The hypergradient of a lasso weight: implicit against unrolled, against jaxopt."""

from ._cases import Benchmark, Case, Contender
from ._peer_cases import hypergradient_cases


def _ours(problem):
    found = []
    for adjoint in ("implicit", "implicit, GMRES", "one step", "unrolled"):
        for tol in (1e-7,) if adjoint == "unrolled" else (1e-3, 1e-5, 1e-7):
            params = {
                "adjoint": adjoint,
                "tol": tol,
                "max_steps": 1000 if adjoint == "unrolled" else 20000,
            }
            found.append(
                Contender(
                    "jinv",
                    "benchmarks._ours",
                    "lasso",
                    params,
                    window_steps=5 if problem["size"] > 100 else 1,
                    label=f"FISTA {tol:.0e}, {adjoint}",
                )
            )
    return found


def cases(smoke: bool) -> list[Case]:
    return hypergradient_cases(smoke, _ours)


BENCHMARK = Benchmark(
    "hypergradient_prox", "hypergradient of the lasso weight, implicit and unrolled", cases
)
