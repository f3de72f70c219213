"""Solvers inside programs that do not tag their operators."""

from typing import Any

import equinox as eqx
import lineax as lx

from .._linear import AbstractWrappedSolver


class Tagged(AbstractWrappedSolver):
    """Gives the operator a tag before `solver` sees it.

    For libraries that make the operator themselves and cannot know what it is: the Jacobian of an
    implicit step in diffrax, for instance, is minus the identity minus a step of the operator,
    so negative definite for diffusion. It is not checked; with a wrong tag the solver reports a
    breakdown, or worse.

    **Arguments:**

    - `solver`: a lineax solver that needs the tag, such as [`jinv.linear.PCG`][].
    - `tag`: one of lineax's tags, or several as a frozenset.

    !!! example
        ```python
        >>> import jinv, lineax as lx, optimistix as optx
        >>> solver = jinv.linear.Tagged(
        ...     jinv.linear.PCG(1e-6, 1e-6), lx.negative_semidefinite_tag
        ... )
        >>> root_finder = optx.Newton(1e-6, 1e-6, linear_solver=solver)
        >>> # diffrax.ImplicitEuler(root_finder=root_finder)

        ```
    """

    solver: lx.AbstractLinearSolver
    tag: Any = eqx.field(static=True)

    def init(self, operator, options):
        return self.solver.init(lx.TaggedLinearOperator(operator, self.tag), options)

    def compute(self, state, vector, options):
        return self.solver.compute(state, vector, options)
