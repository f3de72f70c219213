"""What a solve returns."""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import equinox as eqx
import optimistix as optx
from jaxtyping import Array, ArrayLike, PyTree


Y = TypeVar("Y")


if TYPE_CHECKING:
    # Type checkers take the class below for an `enum.Enum`, whose items are of literal types.
    class _Items(type):
        def __getitem__(cls, item: "RESULTS") -> str: ...

        def __len__(cls) -> int: ...

    class RESULTS(metaclass=_Items):
        successful: ClassVar["RESULTS"]
        max_steps_reached: ClassVar["RESULTS"]
        singular: ClassVar["RESULTS"]
        breakdown: ClassVar["RESULTS"]
        stagnation: ClassVar["RESULTS"]
        conlim: ClassVar["RESULTS"]
        nonfinite_input: ClassVar["RESULTS"]
        nonlinear_max_steps_reached: ClassVar["RESULTS"]
        nonlinear_divergence: ClassVar["RESULTS"]
        nonfinite: ClassVar["RESULTS"]
        nan_in_input: ClassVar["RESULTS"]
        unbounded_step: ClassVar["RESULTS"]
        diverged: ClassVar["RESULTS"]
        subproblem_failed: ClassVar["RESULTS"]
        out_of_range: ClassVar["RESULTS"]

        _name_to_item: ClassVar[dict[str, "RESULTS"]]
        _value: Array

        # As arrays: a result is traced, and under `vmap` it has an entry per lane.
        def __eq__(self, other: object) -> Array: ...  # pyright: ignore[reportIncompatibleMethodOverride]

        def __ne__(self, other: object) -> Array: ...  # pyright: ignore[reportIncompatibleMethodOverride]

        @classmethod
        def where(cls, pred: ArrayLike, a: "RESULTS", b: "RESULTS") -> "RESULTS": ...

        @classmethod
        def promote(cls, item: Any) -> "RESULTS": ...

        def error_if(self, token: PyTree, pred: ArrayLike) -> PyTree: ...

        def is_traced(self) -> bool: ...

else:

    class RESULTS(optx.RESULTS):
        """How a solve ended; extends optimistix's and lineax's enumerations, so an inner failure
        keeps its own message. Under `vmap` every lane has its own.

        !!! example
            ```python
            >>> import jax.numpy as jnp, jinv
            >>> problem = jinv.Composite(lambda x, b: jnp.sum((x - b) ** 2))
            >>> solver, y0 = jinv.splitting.FISTA(), jnp.zeros(1)
            >>> sol = jinv.solve(problem, solver, y0, jnp.nan, throw=False)
            >>> bool(sol.result == jinv.RESULTS.nan_in_input)
            True

            ```
        """

        nan_in_input = (
            "NaN in the initial guess, in the problem's arrays or in `args`. Nothing was solved: "
            "check the data (a division by zero, a masked pixel, a failed earlier solve)."
        )
        unbounded_step = (
            "The line search found no acceptable step size. The smooth term may be unbounded below "
            "or have no Lipschitz gradient near the iterate, its gradient may be wrong, or the "
            "tolerance may be below what the dtype resolves."
        )
        diverged = (
            "The iterates became infinite or NaN. A step size that is too large for the operator "
            "norm is the usual cause; leave the step size unset to have it chosen. Otherwise a "
            "function of the problem may be NaN at an iterate (a logarithm or a root outside its "
            "domain)."
        )
        subproblem_failed = (
            "A linear subproblem could not be solved: it is singular, or its iterative solver ran "
            "out of steps. Check that the operators' null spaces intersect only in zero, or pass a "
            "`linear_solver` with more steps."
        )
        out_of_range = (
            "The point is outside the range of the learned prox, where its prior is infinite. Take "
            "a point that the prox returned, or a potential with `strong_convexity` above zero, "
            "whose range is everything."
        )


class Solution(eqx.Module, Generic[Y]):
    """The outcome of `jinv.solve`.

    **Attributes:**

    - `value`: the solution, of the structure of `y0`.
    - `dual`: the dual solution of a composite problem with an operator, otherwise `None`.
        `PrimalDual(sol.value, sol.dual)` is a warm start for the next solve.
    - `result`: a `jinv.RESULTS` item; `sol.result == jinv.RESULTS.successful` per lane.
    - `stats`: a dictionary with at least `num_steps`, `max_steps` and `residual`; what else is
        there is documented with the solver. With `save_history=True`, `stats["history"]` holds
        arrays over the checks, padded with NaN after the last one. Statistics carry no
        derivative except under `UnrollAdjoint`.
    - `state`: the solver's final state; private to the solver.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> problem = jinv.Composite(lambda x, b: jnp.sum((x - b) ** 2))
        >>> sol = jinv.solve(problem, jinv.splitting.FISTA(), jnp.zeros(1), 2.0)
        >>> sorted(set(sol.stats) & {"max_steps", "num_steps", "residual"})
        ['max_steps', 'num_steps', 'residual']

        ```
    """

    value: Y
    dual: PyTree
    result: RESULTS
    stats: dict[str, Any]
    state: PyTree


def promote(result) -> RESULTS:
    """A result of lineax, optimistix or jinv as a jinv result."""
    # The class of an enumeration item is not public; `promote` refuses its own class.
    return result if result._enumeration is RESULTS else RESULTS.promote(result)
