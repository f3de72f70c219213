"""Computations that XLA does not mix with their surroundings."""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def apart(fn: Callable) -> Callable:
    """`fn` as a computation of its own. Otherwise XLA fuses into a derivative whatever it can make
    again from arrays of the forward pass, and keeps all of these: more than one stored result."""
    compiled = jax.jit(fn)

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call
