"""The interface of convex functionals that are a sum over single real or complex entries."""

from jinv._functional import AbstractFunctional


class AbstractSeparable(AbstractFunctional):
    r"""A convex functional $g(x) = \sum_i g_i(x_i)$ of single entries.

    Separability is what allows an array as `step_size` (one step per entry) and what makes
    [`jinv.prox.Restricted`][] exact: on a line, the constrained minimiser of a convex function
    is the unconstrained one moved into the interval.
    """
