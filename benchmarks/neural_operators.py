"""Neural operators: outputs and training steps of the multigrid one, beside PyTorch."""

from ._cases import Benchmark, Case, Contender


def _case(name, batch, side, method, window_steps, smoke):
    params = {"side": side, "channels": 8 if smoke else 24}
    found = [Contender("jinv", "benchmarks._mgno_ours", method, {}, window_steps=window_steps)]
    for mode in ("published", "channels last"):
        one = {"mode": mode}
        found.append(
            Contender(
                "torch",
                "benchmarks._mgno_torch",
                method,
                one,
                window_steps=window_steps,
                label=mode,
            )
        )
    return Case({"name": name, "size": batch, "params": params}, found, reference=None)


def cases(smoke: bool) -> list[Case]:
    if smoke:
        return [_case(f"mgno_{method}", 2, 32, method, 1, smoke) for method in ("infer", "step")]
    found = []
    for batch, side in ((8, 64), (1, 64), (8, 128)):
        for method in ("infer", "step"):
            windows = 8 // batch if side == 64 else 1
            found.append(_case(f"mgno_{method}", batch, side, method, windows, smoke))
    return found


BENCHMARK = Benchmark(
    "neural_operators", "multigrid neural operator: outputs and training steps, in PyTorch", cases
)
