"""jinv: inverse problems and the solvers inside them, in JAX."""

from ._functional import AbstractFunctional as AbstractFunctional
