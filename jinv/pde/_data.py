"""The record of a data set, and the loops that fill it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Array, Float

from ._checks import check_count


class OperatorData(NamedTuple):
    """Pairs of functions on a grid: what an operator network is trained on.

    - `inputs`: the input functions, shape `(num, ...)`.
    - `outputs`: the solutions, shape `(num, ...)`.
    - `coordinates`: one vector of positions (or times) for each axis of `outputs` after the
        first.

    A NamedTuple is a PyTree, so `jax.tree.map(lambda x: x[:100], data.inputs)` and
    `jax.device_put(data)` work.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.darcy_two_phase(2, 9, key=jax.random.key(0), progress=False)
        >>> data.inputs.shape, data.outputs.shape, [x.shape for x in data.coordinates]
        ((2, 9, 9), (2, 9, 9), [(9,), (9,)])

        ```
    """

    inputs: Float[Array, "num ..."]
    outputs: Float[Array, "num ..."]
    coordinates: tuple[Float[Array, " n"], ...]


def solve_each(
    sample: Callable, solve: Callable, num: int, *, key, workers: int, progress: bool
) -> tuple[list, list]:
    """`sample(key)` by JAX and `solve(sample)` on the host, in threads: SciPy's factorisation
    lets go of Python's lock. Sample `i` has the key `fold_in(key, i)`, whatever `num` is."""
    check_count(num, "num")
    check_count(workers, "workers")
    draw = jax.jit(lambda i: sample(jax.random.fold_in(key, i)))

    def one(i):
        drawn = np.asarray(draw(i))
        return solve(drawn)

    with ThreadPoolExecutor(workers) as pool:
        pairs = pool.map(one, range(num))
        pairs = list(tqdm.tqdm(pairs, total=num, unit="sample", disable=not progress))
    return [a for a, _ in pairs], [u for _, u in pairs]


def march(
    sample: Callable,
    advance: Callable,
    num: int,
    num_frames: int,
    *,
    key,
    batch_size: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The initial states `sample(key)` and `num_frames` states after each, by `advance`; batches
    of `batch_size` go through one compiled program. The keys are those of `solve_each`."""
    for name, value in [("num", num), ("num_frames", num_frames), ("batch_size", batch_size)]:
        check_count(value, name)
    batch_size = min(batch_size, num)
    draw = jax.jit(jax.vmap(lambda i: sample(jax.random.fold_in(key, i))))
    advance = jax.jit(jax.vmap(advance))
    starts, ends = [], []
    with tqdm.tqdm(total=num * num_frames, unit="frame", disable=not progress) as bar:
        for first in range(0, num, batch_size):
            state = draw(jnp.arange(first, first + batch_size))
            starts.append(np.asarray(state))
            frames = []
            for _ in range(num_frames):
                state = advance(state)
                frames.append(np.asarray(state))
                bar.update(min(batch_size, num - first))
            ends.append(np.stack(frames, axis=1))
    # The last batch was filled up, so that it need not be compiled anew.
    return np.concatenate(starts)[:num], np.concatenate(ends)[:num]


def as_record(inputs, outputs, coordinates) -> OperatorData:
    dtype = jnp.result_type(float)
    convert = lambda x: jnp.asarray(np.asarray(x), dtype)
    return OperatorData(convert(inputs), convert(outputs), tuple(convert(x) for x in coordinates))
