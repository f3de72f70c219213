"""What a benchmark is: problems, and the contenders that meet on each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Contender:
    """One method of one library with its settings.

    `module` is imported by the worker in the library's environment (see `_contender.py`).
    `window_steps` iterations make one timed repeat. A reason in `unavailable` is recorded
    instead of a measurement, for what a library does not offer.
    """

    library: str
    module: str
    method: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    window_steps: int = 50
    unavailable: str | None = None
    label: str | None = None
    """Name in tables, if one method appears with several settings."""
    follow: bool = True
    """Whether to follow the convergence at the case's checkpoints (operators do not converge)."""

    @property
    def name(self) -> str:
        return self.label or self.method


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem and everything that is compared on it.

    `checkpoints` are iteration counts at which the result is judged (empty: timed windows only).
    A contender stops at the smallest of `targets` (relative objective gaps), at the last
    checkpoint or after `time_limit_s` seconds of CPU. `reference` says whether the optimum is the
    NumPy one ("numpy"), the best its own library finds in `reference_steps` more iterations
    ("library"), or none.
    """

    problem: Mapping[str, Any]
    contenders: Sequence[Contender]
    checkpoints: Sequence[int] = ()
    targets: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-5)
    time_limit_s: float = 10.0
    reference: str | None = "numpy"
    reference_steps: int = 0
    long_s: float = float("inf")
    """A contender whose window takes longer has three repeats; one from three times that."""
    tolerance: float | None = None
    """The largest `relative_residual` (one per cent more, for rounding) of a success."""
    history: bool = False
    """Whether to record how the results came about (`AbstractContender.history`)."""

    def __post_init__(self) -> None:
        if self.reference not in ("numpy", "library", None):
            raise ValueError(
                f"reference: expected 'numpy', 'library' or None, got {self.reference!r}."
            )
        if (
            list(self.checkpoints) != sorted(set(self.checkpoints))
            or min(self.checkpoints, default=1) < 1
        ):
            raise ValueError(
                f"checkpoints: expected increasing positive counts, got {self.checkpoints}."
            )


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A named list of cases; `cases(smoke)` gives tiny ones for `smoke=True`."""

    name: str
    description: str
    cases: Callable[[bool], Sequence[Case]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run: the command line's options."""

    repeats: int = 10
    seed: int = 0
    dtype: str = "float32"
    threads: int = 1
    smoke: bool = False
    only: str = ""
    timeout_s: float = 600.0


def geometric_checkpoints(last: int, ratio: float = 1.1) -> tuple[int, ...]:
    """1, 2, 3, ... with growing distance up to `last`: counts to a gap are exact to `ratio`."""
    counts, count = [], 1
    while count < last:
        counts.append(count)
        count = max(count + 1, round(count * ratio))
    return (*counts, last)
