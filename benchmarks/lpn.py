"""Learned proximal networks: the prox and the training step of the published digit network."""

from ._cases import Benchmark, Case, Contender
from ._lpn_imaging_cases import imaging_cases


def _ours(method, label, window_steps, **params):
    module = "benchmarks._lpn_ours"
    return Contender("jinv", module, method, params, window_steps=window_steps, label=label)


def _torch(method, mode, window_steps):
    module, params = "benchmarks._lpn_torch", {"mode": mode}
    return Contender("torch", module, method, params, window_steps=window_steps, label=mode)


def _case(name, batch, contenders, smoke):
    sizes = (8, 4, 5) if smoke else (28, 64, 64)
    params = dict(zip(("side", "channels", "hidden"), sizes, strict=True))
    return Case({"name": name, "size": batch, "params": params}, contenders, reference=None)


def _prox(batch, window_steps, smoke):
    found = [_ours("prox", "vmap", window_steps)]
    if batch > 1:
        at_once = 2 if smoke else 20
        found.append(_ours("prox", f"{at_once} at a time", window_steps, at_once=at_once))
    modes = ("published", "no graph", "channels last", *(() if smoke else ("compiled",)))
    found += [_torch("prox", mode, window_steps) for mode in modes]
    return _case("lpn_prox", batch, found, smoke)


def _step(batch, smoke):
    found = [_ours("step", "vmap", 1)]
    found += [_torch("step", mode, 1) for mode in ("published", "channels last")]
    return _case("lpn_step", batch, found, smoke)


def cases(smoke: bool) -> list[Case]:
    if smoke:
        return [_prox(3, 1, smoke), _step(3, smoke), *imaging_cases(smoke)]
    return [_prox(1, 50, smoke), _prox(100, 1, smoke), _step(200, smoke), *imaging_cases(smoke)]


BENCHMARK = Benchmark("lpn", "learned proximal networks: prox and training step, in PyTorch", cases)
