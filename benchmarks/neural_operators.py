"""Neural operators, multigrid and Fourier: outputs and training steps, with their memory."""

from ._cases import Benchmark, Case, Contender


def _contender(library, module, method, window_steps, label=None, **params):
    return Contender(
        library,
        f"benchmarks.{module}",
        method,
        params,
        window_steps=window_steps,
        label=label,
    )


def _mgno(batch, side, method, window_steps, smoke):
    params = {"side": side, "channels": 8 if smoke else 24}
    found = [_contender("jinv", "_mgno_ours", method, window_steps)]
    for mode in ("published", "channels last"):
        found.append(_contender("torch", "_mgno_torch", method, window_steps, mode, mode=mode))
    found.append(_contender("foundax", "_mgno_foundax", method, window_steps))
    return _case(f"mgno_{method}", batch, params, found)


def _fno(batch, side, channels, method, window_steps=1):
    found = [
        _contender("jinv", "_fno_ours", method, window_steps, kind, kind=kind)
        for kind in ("gated", "plain")
    ]
    found.append(_contender("neuraloperator", "_fno_torch", method, window_steps))
    # Steps one by one or in a loop, of which either can be faster.
    kinds = {"step": {"calls": False, "a loop": True}, "infer": {None: False}}[method]
    for label, looped in kinds.items():
        contender = "pdequinox", "_fno_pdequinox", method, window_steps, label
        found.append(_contender(*contender, looped=looped))
    return _case(f"fno_{method}", batch, {"side": side, "channels": channels}, found)


def _case(name, batch, params, contenders):
    return Case({"name": name, "size": batch, "params": params}, contenders, reference=None)


def cases(smoke: bool) -> list[Case]:
    methods = ("infer", "step")
    if smoke:
        mgno = [_mgno(2, 32, method, 1, smoke) for method in methods]
        return mgno + [_fno(2, 32, 4, method) for method in methods]
    found = []
    # Training steps for about two seconds, as long as a call in `jinv.train.fit`.
    for batch, side, calls, steps in ((8, 64, 1, 8), (1, 64, 8, 50), (8, 128, 1, 2)):
        found.append(_mgno(batch, side, "infer", calls, smoke))
        found.append(_mgno(batch, side, "step", steps, smoke))
    for channels in (32, 24):
        found.append(_fno(8, 64, channels, "infer"))
        found.append(_fno(8, 64, channels, "step", 16))
    return found


BENCHMARK = Benchmark(
    "neural_operators", "multigrid and Fourier neural operators: outputs and training steps", cases
)
