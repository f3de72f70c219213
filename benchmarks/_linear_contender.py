"""A linear solve as a contender: set-up and solve, together and alone."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._contender import AbstractContender
from ._problems import Problem


TOLERANCE = 1e-6
"""Of everyone: the norm of the residual over that of the right-hand side, from zero."""
MAX_STEPS = 20_000


class LinearContender(AbstractContender):
    """A window is one whole solve, set-up included: what a changed matrix costs.

    A subclass sets `value` (on the grid, or the unknowns in the grid's order), `num_steps` and
    `matvecs` (see `_work.py`; `None` if unknown) in `solve`, and overrides `set_up` if there is
    something to redo for a new matrix.
    """

    value: Any = None
    num_steps: int | None = None
    matvecs: float | None = None

    def set_up(self) -> None:
        """What must be redone when the matrix changes."""
        return None

    @abc.abstractmethod
    def solve(self) -> None:
        """From a right-hand side to the solution, with what the last `set_up` left."""

    def whole(self) -> None:
        self.set_up()
        self.solve()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self.whole()

    def parts(self) -> Mapping[str, Callable[[], None]]:
        if type(self).set_up is LinearContender.set_up:
            return {}
        return {"set-up": self.set_up, "solve": self.solve}

    def metrics(self, problem):
        found = {"relative_residual": problem.objective(on_grid(problem, self.value))}
        if self.num_steps is not None:
            found["num_steps"] = self.num_steps
        if self.matvecs is not None:
            found["matvecs"] = self.matvecs
        return {**found, "unknowns": np.count_nonzero(problem.data["unknown"])}


def on_grid(problem: Problem, value: Any) -> np.ndarray:
    """A solution on the grid, in float64; solid cells are zero."""
    value, unknown = np.asarray(value, np.float64), problem.data["unknown"]
    if value.shape == unknown.shape:
        return value
    found = np.zeros(unknown.shape)
    found[unknown] = value
    return found


def history_of(
    residuals: Sequence[float], matvecs: float, points: int = 200
) -> dict[str, Sequence[float]]:
    """Columns of a history from the relative residual after 0, 1, 2, ... steps, of which at most
    about `points` are kept; `matvecs` is the work of all the steps."""
    last = len(residuals) - 1
    if last < 1:
        return {}
    chosen = np.unique(np.linspace(0, last, min(last + 1, points)).round().astype(int))
    return {
        "num_steps": [float(k) for k in chosen],
        "matvecs": [float(k) * matvecs / last for k in chosen],
        "relative_residual": [float(residuals[k]) for k in chosen],
    }
