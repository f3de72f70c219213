"""TV denoising, deblurring and CT at 256x256 by splitting solvers, against scico and deepinv."""

from ._cases import Benchmark, Case, Contender
from ._peer_cases import splitting_cases


def _jinv(method, params, label=None, **options):
    return Contender("jinv", "benchmarks._ours", method, params, label=label, **options)


def _ours(problem):
    smoke = problem["size"] < 128
    if problem["name"] == "tv_ct":
        few = {"window_steps": 1 if smoke else 2}
        projections = [
            _jinv("projection", {"direction": d}, d, window_steps=1, follow=False)
            for d in ("forward", "adjoint")
        ]
        return [
            *projections,
            _jinv("CT ADMM", {}, "ADMM CG", **few),
            _jinv("CT PDHG", {}, "PDHG", **few),
            _jinv("CT FISTA", {}, "FISTA exact TV prox", **few),
        ]
    rho = 0.05 if problem["name"] == "tv_deblur" else 2.0
    fixed = [(0.35, 0.35)] + ([(10.0, 0.012)] if problem["name"] == "tv_deblur" else [])
    # Every outer step of these two solves a problem of its own.
    few = {"window_steps": 2 if smoke else 10}
    size = 20 if smoke else 100
    whole = {"num_steps": size, "window_steps": size, "follow": False}
    found = [
        _jinv("PDHG", {}, "PDHG default"),
        *(
            _jinv(
                "PDHG",
                {"primal_step": tau, "dual_step": sigma},
                f"PDHG tau {tau:g} sigma {sigma:g}",
            )
            for tau, sigma in fixed
        ),
        _jinv("ADMM", {}, "ADMM default"),
        _jinv("ADMM", {"penalty": rho, "adaptive": False, "relaxation": 1.0}, f"ADMM rho {rho:g}"),
        _jinv("FISTA", {}, "FISTA exact TV prox", **few),
        _jinv("PGD", {}, "PGD exact TV prox", **few),
    ]
    for kind in ("PDHG", "ADMM"):
        found += [_whole(kind, whole), _batch(kind, whole)]
    return found


def _whole(kind, whole):
    params = {"kind": kind, "num_steps": whole["num_steps"]}
    return _jinv(
        "solve",
        params,
        f"solve {kind}, {whole['num_steps']} steps",
        window_steps=whole["window_steps"],
        follow=False,
    )


def _batch(kind, whole):
    params = {"kind": kind, "num_steps": whole["num_steps"], "batch": 16}
    return _jinv(
        "batch",
        params,
        f"vmap of 16, {kind}, {whole['num_steps']} steps",
        window_steps=whole["window_steps"],
        follow=False,
    )


def _weights(smoke):
    """One image with 32 weights."""
    found = []
    for size in (32,) if smoke else (64, 256):
        params = {"boundary": "neumann", "lam": 0.1, "sigma": 0.1}
        problem = {"name": "tv_denoise", "size": size, "params": params}
        steps = 20 if smoke else 100
        contenders = [
            _jinv(
                "weights",
                {"kind": kind, "count": 32, "num_steps": steps, "vmapped": vmapped},
                f"32 weights, {kind}, {'vmap' if vmapped else 'one by one'}",
                window_steps=steps,
                follow=False,
            )
            for kind in ("PDHG", "ADMM")
            for vmapped in (True, False)
        ]
        found.append(Case(problem, contenders))
    return found


def cases(smoke: bool) -> list[Case]:
    return [*splitting_cases(smoke, _ours), *_weights(smoke)]


BENCHMARK = Benchmark(
    "splitting", "TV denoising, deblurring and CT: time per iteration and to a gap", cases
)
