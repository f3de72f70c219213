"""What a library brings to a benchmark. Imported by workers: standard library and NumPy only."""

import abc
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._problems import Problem


class NotAvailable(Exception):
    """Raised in `setup` for what this version of a library does not offer."""


class AbstractContender(abc.ABC):
    """One method of one library, set up on one problem.

    A contender module has `VERSIONS` (distributions to report), `METHODS` (name to a function
    `setup(problem, params) -> AbstractContender`) and optionally `device() -> (backend, kind)`.
    All arrays are made in `setup`; a timed window is one call of `run`.
    """

    n_weights: int = 0
    """Learned parameters, for the record."""
    compiles: bool = True
    """Whether a first window may hold compilation; if not, there is no compile time."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Go back to the starting point, keeping everything that is compiled."""

    @abc.abstractmethod
    def run(self, num_steps: int) -> None:
        """Do `num_steps` more iterations (or calls) and return when the result is in memory."""

    @abc.abstractmethod
    def metrics(self, problem: Problem) -> Mapping[str, float]:
        """Quality of the present result; never timed. `num_steps` is what the result took."""

    def parts(self) -> Mapping[str, Callable[[], None]]:
        """Parts of a window that are also timed alone, once per repeat and in this order."""
        return {}

    def history(self, problem: Problem) -> Mapping[str, Sequence[float]]:
        """How the result came about, by columns of one length; never timed."""
        return {}

    def compile(self) -> None:
        """Compile ahead of time where the library can; timed as the compile cost."""
        return None

    def peak_bytes(self) -> int | None:
        """Memory a compiled program needs, if the library can tell."""
        return None


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions by distribution name; what is absent is left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def image_metrics(problem: Problem, x: Any) -> dict[str, float]:
    """The metrics of an image contender: the problem's own float64 objective and PSNR at x."""
    return problem.metrics(x)


def adjoint_error(u, v, forward_u, adjoint_v):
    """|<Au, v> - <u, A'v>| / (|Au| |v|), in float64."""
    u, v, forward_u, adjoint_v = (
        np.asarray(array, np.float64).ravel() for array in (u, v, forward_u, adjoint_v)
    )
    difference = abs(forward_u @ v - u @ adjoint_v)
    return float(difference / (np.linalg.norm(forward_u) * np.linalg.norm(v)))
