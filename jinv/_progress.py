"""Progress meters: what a long solve shows while it runs."""

import abc
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import tqdm
from jax.experimental import io_callback
from jaxtyping import PyTree

from ._loop import any_lane_max


class AbstractProgressMeter(eqx.Module):
    """Shows the progress of a solve. Under `vmap` one meter serves all lanes."""

    @abc.abstractmethod
    def init(self, max_steps: int) -> PyTree:
        """Opens the meter; returns what `step` and `close` need, as a PyTree of arrays."""

    @abc.abstractmethod
    def step(self, state, num_steps, residual):
        """Shows that `num_steps` steps are done with the given residual; returns the state."""

    @abc.abstractmethod
    def close(self, state, num_steps, residual):
        """Shows the end of the solve."""


class NoProgressMeter(AbstractProgressMeter):
    """Shows nothing; the default.

    !!! example
        ```python
        >>> import jinv
        >>> jinv.NoProgressMeter()
        NoProgressMeter()

        ```
    """

    def init(self, max_steps):
        return None

    def step(self, state, num_steps, residual):
        return state

    def close(self, state, num_steps, residual):
        return None


class TqdmProgressMeter(AbstractProgressMeter):
    """A tqdm bar with the number of steps and the residual.

    Under `vmap` it is printed once and shows the slowest lane: the largest number of steps
    and the largest residual. It costs a host callback every `refresh_steps` steps.

    **Arguments:**

    - `refresh_steps`: steps between two updates of the bar.

    !!! example
        ```python
        >>> import jinv
        >>> meter = jinv.TqdmProgressMeter(refresh_steps=50)
        >>> # jinv.solve(problem, solver, y0, progress_meter=meter)

        ```
    """

    refresh_steps: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        if self.refresh_steps < 1:
            raise ValueError(f"refresh_steps must be at least 1, got {self.refresh_steps}")

    def init(self, max_steps):
        def open_bar(_):
            return _BARS.open(max_steps)

        # The dummy argument keeps the callback inside the traced computation, once per solve.
        shape = jax.ShapeDtypeStruct((), jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        return io_callback(open_bar, shape, zero), zero

    def step(self, state, num_steps, residual):
        handle, shown = state
        slowest = any_lane_max(num_steps).astype(jnp.int32)
        due = slowest - shown >= self.refresh_steps
        return jax.lax.cond(
            due,
            lambda: (_show(handle, slowest, any_lane_max(residual)), slowest),
            lambda: (handle, shown),
        )

    def close(self, state, num_steps, residual):
        handle, _ = state
        slowest = any_lane_max(num_steps).astype(jnp.int32)
        jax.debug.callback(_BARS.close, handle, slowest, any_lane_max(residual))


def _show(handle, num_steps, residual):
    jax.debug.callback(_BARS.show, handle, num_steps, residual)
    return handle


class _Bars:
    """The open bars of this process, by number: traced code can only carry numbers."""

    def __init__(self):
        self._bars: dict[int, tqdm.tqdm] = {}
        self._lock = threading.Lock()
        self._next = 0

    def open(self, max_steps):
        import numpy as np

        with self._lock:
            self._next += 1
            self._bars[self._next] = tqdm.tqdm(total=max_steps, unit="step", leave=True)
            return np.int32(self._next)

    def show(self, handle, num_steps, residual):
        bar = self._bars.get(int(handle))
        if bar is not None and int(num_steps) > bar.n:
            bar.set_postfix(residual=f"{float(residual):.1e}", refresh=False)
            bar.update(int(num_steps) - bar.n)

    def close(self, handle, num_steps, residual):
        self.show(handle, num_steps, residual)
        bar = self._bars.pop(int(handle), None)
        if bar is not None:
            bar.close()


_BARS = _Bars()
