"""The worker's side: `python -m benchmarks._worker MODULE`, JSON lines on stdin and stdout.

One worker holds one contender, in the environment of its library. Commands are
`hello`, `setup`, `restart`, `run`, `part`, `metrics` and `close`; every reply has `ok`.
"""

import importlib
import json
import os
import sys
import time
import traceback


def main(module_name: str) -> int:
    # Libraries print; the protocol keeps the real stdout and everything else goes to stderr.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_cores()
    state: dict = {"module_name": module_name}
    for line in sys.stdin:
        request = json.loads(line)
        if request["command"] == "close":
            break
        try:
            reply = {"ok": True, **_COMMANDS[request["command"]](state, request)}
        except Exception as error:
            from ._contender import NotAvailable

            reply = {
                "ok": False,
                "error": f"{type(error).__name__}: {error}",
                "missing": getattr(error, "name", None)
                if isinstance(error, ModuleNotFoundError)
                else None,
                "unavailable": isinstance(error, NotAvailable),
                "traceback": traceback.format_exc(),
            }
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    return 0


def _limit_cores() -> None:
    """Keep every pool, also one that ignores the usual variables, to the agreed thread count."""
    count = int(os.environ.get("JINV_BENCH_THREADS", "0"))
    if count and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if count < len(cores):
            os.sched_setaffinity(0, set(cores[:count]))


def _hello(state, request):
    from ._contender import installed_versions

    module = importlib.import_module(state["module_name"])
    state["module"] = module
    backend, device = getattr(module, "device", lambda: ("cpu", None))()
    return {
        "versions": {
            "python": sys.version.split()[0],
            **installed_versions(("numpy", *module.VERSIONS)),
        },
        "backend": backend,
        "device": device,
        "methods": sorted(module.METHODS),
    }


def _setup(state, request):
    from ._problems import make_problem

    problem = make_problem(dtype=request["dtype"], seed=request["seed"], **request["problem"])
    methods = state["module"].METHODS
    if request["method"] not in methods:
        raise ValueError(
            f"method: expected one of {sorted(methods)} of {state['module_name']}, "
            f"got {request['method']!r}."
        )
    start = time.perf_counter()
    contender = methods[request["method"]](problem, request["params"])
    contender.restart()
    setup_s = time.perf_counter() - start
    start = time.perf_counter()
    contender.compile()
    ahead = time.perf_counter() - start
    # Two equal windows from the start: what the first costs more is compilation and caches.
    first = second = _timed_window(contender, request)
    if contender.compiles:
        # The parts compile apart; that is nobody's cost but the benchmark's.
        for part in contender.parts().values():
            part()
        if first <= request["long_s"]:
            second = _timed_window(contender, request)
    state["contender"], state["problem"] = contender, problem
    return {
        "setup_s": setup_s,
        "compile_s": ahead + max(0.0, first - second) if contender.compiles else None,
        "n_weights": int(contender.n_weights),
        "parts": list(contender.parts()),
    }


def _timed_window(contender, request):
    measured = _timed(lambda: contender.run(request["window_steps"]))["run_s"]
    contender.restart()
    return measured


def _restart(state, request):
    state["contender"].restart()
    return {}


def _run(state, request):
    return _timed(lambda: state["contender"].run(request["num_steps"]))


def _part(state, request):
    return _timed(state["contender"].parts()[request["name"]])


def _metrics(state, request):
    metrics = dict(state["contender"].metrics(state["problem"]))
    history = state["contender"].history(state["problem"]) if request["history"] else {}
    return {
        "metrics": {name: float(value) for name, value in metrics.items()},
        "peak_bytes": state["contender"].peak_bytes(),
        "history": {name: [float(value) for value in values] for name, values in history.items()},
    }


def _timed(action):
    # process_time counts every thread of the worker, so it holds also on a shared machine.
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {"run_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


_COMMANDS = {
    "hello": _hello,
    "setup": _setup,
    "restart": _restart,
    "run": _run,
    "part": _part,
    "metrics": _metrics,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
