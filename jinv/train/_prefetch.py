"""Batches made on the host, on request ahead of their use and in a thread of their own."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxtyping import PRNGKeyArray

from ._compiled import keys


@contextlib.contextmanager
def made_on_host(
    batches: Callable, key: PRNGKeyArray, steps: range, ahead: int
) -> Iterator[Callable[[], Any]]:
    """A function that returns the batches of `steps`, one after the other.

    Only `batches` itself runs in the thread, one call at a time and in order: what is set for the
    calling thread, such as a default device, holds for the keys and for the way to the device.
    """
    if not ahead:
        yield functools.partial(next, (batches(keys(key, step)[0], step) for step in steps))
        return
    pool = ThreadPoolExecutor(1, "jinv-batches")
    try:
        yield functools.partial(next, _made_ahead(pool, batches, key, steps, ahead))
    finally:
        pool.shutdown(cancel_futures=True)


def _made_ahead(pool, batches, key, steps, ahead):
    waiting = deque()
    for step in steps:
        waiting.append(pool.submit(batches, keys(key, step)[0], step))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
