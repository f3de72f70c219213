"""How a problem is solved: the interface that an algorithm's author fills in."""

import abc
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
from equinox import AbstractVar
from jaxtyping import Array, Bool, PyTree, Real, Shaped

from ._result import RESULTS


State = TypeVar("State")
Scalar = float | Real[Array, ""]


class AbstractSolver(eqx.Module, Generic[State]):
    """One algorithm, as one small final class.

    The engine calls `init` once, then `step` until `terminate` says so, then `postprocess`.
    An author writes these four and never sees a loop, a derivative rule or a batch axis. A
    solver whose residuals cost as much as a step also says `measured_step`.
    `problem` is a jinv problem, of the kind that the solver takes;
    `point` is what the problem's `initial_point` makes of `y0`: the unknown itself, or a
    `PrimalDual` pair.

    Fields `rtol` and `atol` may be arrays. `check_every` is the number of steps between two
    calls of `terminate`: larger values save the cost of `measured_step`.
    """

    rtol: AbstractVar[Scalar]
    atol: AbstractVar[Scalar]
    check_every: AbstractVar[int]

    # Whether the point after one step depends on all that the solution depends on, with the point
    # and the state before it held fixed. Not so where data enter through a dual variable or sit
    # in the state: `OneStepAdjoint` refuses such solvers, for its derivative would be zero.
    one_step: ClassVar[bool] = True

    @abc.abstractmethod
    def init(self, problem: Any, point: PyTree, args: PyTree, options: dict[str, Any]) -> State:
        """The state before the first step; raises `ValueError` for a problem it cannot solve."""

    @abc.abstractmethod
    def step(
        self,
        problem: Any,
        point: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: State,
    ) -> tuple[PyTree, State]:
        """One iteration: the new point and the new state, of unchanged structure."""

    def measured_step(
        self,
        problem: Any,
        point: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: State,
    ) -> tuple[PyTree, State]:
        """A step that also brings up to date whatever `terminate` and `postprocess` read from
        the state, and adapts what is adapted between checks. The engine takes it as the last of
        every `check_every` steps. By default it is `step`."""
        return self.step(problem, point, args, options, state)

    @abc.abstractmethod
    def terminate(
        self,
        problem: Any,
        point: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: State,
    ) -> tuple[Bool[Array, ""], RESULTS]:
        """Whether to stop, and how it stands; a result other than `successful` also stops."""

    @abc.abstractmethod
    def postprocess(
        self,
        problem: Any,
        point: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: State,
    ) -> tuple[PyTree, dict[str, Shaped[Array, ""]]]:
        """The final point and scalar statistics, among them `residual`. It must be cheap: with
        `save_history=True` it is called at every check."""
