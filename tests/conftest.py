"""Strict settings for the whole suite; the library itself sets none of these."""

import gc
import os
import socket


flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=2".strip()
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax._src import dispatch  # noqa: E402


jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules whose functions run once each: compiling them well would be most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program takes memory maps, of which Linux gives a process 65530: after some
    thousand programs the next compilation would crash."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing in jinv may open a connection; local sockets of worker processes are fine."""

    def refuse(self, address, *_):
        raise AssertionError(f"a socket was opened to {address!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _no_errors_left():
    """What a callback raised in one test stays in JAX's tokens, and would be raised in another."""
    yield
    try:
        jax.effects_barrier()
    except Exception:
        dispatch.runtime_tokens.clear()


@pytest.fixture
def getkey(request):
    """Fresh PRNG keys, seeded by the test's name so that a failure repeats."""
    seed = int.from_bytes(request.node.name.encode()[-7:], "little")
    keys = iter(jax.random.split(jax.random.key(seed % 2**31), 1000))
    return lambda: next(keys)


@pytest.fixture
def rng(request):
    return np.random.default_rng(list(request.node.name.encode()))
