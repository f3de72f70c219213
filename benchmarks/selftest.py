"""The harness on itself: NumPy contenders, some of which fail on purpose."""

from ._cases import Benchmark, Case, Contender, geometric_checkpoints


def cases(smoke: bool) -> list[Case]:
    size, last = (64, 60) if smoke else (128, 400)
    problem = {
        "name": "tv_denoise",
        "size": size,
        "params": {"boundary": "neumann", "lam": 0.1, "sigma": 0.1},
    }

    def faulty(how: str, calls: int) -> Contender:
        params = {"how": how, "calls": calls}
        return Contender(
            "numpy", "benchmarks._peer_numpy", "faulty", params, window_steps=3, label=how
        )

    return [
        Case(
            problem,
            [
                Contender("numpy", "benchmarks._peer_numpy", "PDHG", {"tau": 0.35, "sigma": 0.35}),
                faulty("raise", 1),
                faulty("exit", 4),
                faulty("nan", 6),
                Contender(
                    "numpy",
                    "benchmarks._peer_numpy",
                    "exact prox",
                    unavailable="NumPy has no total variation",
                ),
            ],
            checkpoints=geometric_checkpoints(last, 1.3),
        )
    ]


BENCHMARK = Benchmark("selftest", "the harness on NumPy contenders, some failing on purpose", cases)
