"""Which Python runs which library: peers that cannot live beside jinv have their own."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class _Peer:
    module: str
    variable: str
    default: str


_OPERATORS = "JINV_BENCH_OPERATORS", ".venv-operators/bin/python"
_PEERS = {
    "scico": _Peer("scico", "JINV_BENCH_SCICO", ".venv-scico/bin/python"),
    "deepinv": _Peer("deepinv", "JINV_BENCH_DEEPINV", ".venv-deepinv/bin/python"),
    # Of deepinv's environment, which has it.
    "torch": _Peer("torch", "JINV_BENCH_DEEPINV", ".venv-deepinv/bin/python"),
    "foundax": _Peer("foundax", *_OPERATORS),
    "neuraloperator": _Peer("neuralop", *_OPERATORS),
    "pdequinox": _Peer("pdequinox", *_OPERATORS),
    "jaxopt": _Peer("jaxopt", "JINV_BENCH_JAXOPT", ".venv-jaxopt/bin/python"),
}


class NotInstalled(Exception):
    """A peer is absent; the message says where it was looked for."""


def python_of(library: str) -> str:
    """The interpreter for a library: its environment variable, then the usual place in the
    repository, then this interpreter if it has the library.

    **Raises:** `NotInstalled`.
    """
    peer = _PEERS.get(library)
    if peer is None:
        return sys.executable
    if chosen := os.environ.get(peer.variable):
        if not Path(chosen).is_file():
            raise NotInstalled(f"{peer.variable} names {chosen}, which does not exist")
        return chosen
    if (ROOT / peer.default).is_file():
        return str(ROOT / peer.default)
    if importlib.util.find_spec(peer.module) is not None:
        return sys.executable
    raise NotInstalled(
        f"no {library}: set {peer.variable} to a Python that has it, or make {peer.default}"
    )


def worker_environment(threads: int, dtype: str) -> dict[str, str]:
    """Environment of a worker: thread counts of every pool we know, and the precision of JAX."""
    environment = dict(os.environ)
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ):
        environment[name] = str(threads)
    # A test suite may have asked for fake devices in this process; workers start clean.
    flags = [
        flag
        for flag in environment.get("XLA_FLAGS", "").split()
        if "host_platform_device_count" not in flag and "multi_thread_eigen" not in flag
    ]
    if threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    environment["XLA_FLAGS"] = " ".join(flags)
    environment["JAX_ENABLE_X64"] = "1" if dtype == "float64" else "0"
    environment["JINV_BENCH_THREADS"] = str(threads)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    )
    return environment
