"""jinv: inverse problems and the solvers inside them, in JAX."""

from . import (
    data as data,
    data_terms as data_terms,
    linear as linear,
    metrics as metrics,
    nn as nn,
    operators as operators,
    pde as pde,
    plot as plot,
    pretrained as pretrained,
    prox as prox,
    splitting as splitting,
    train as train,
)
from ._adjoint import (
    AbstractAdjoint as AbstractAdjoint,
    ImplicitAdjoint as ImplicitAdjoint,
    NeumannAdjoint as NeumannAdjoint,
    OneStepAdjoint as OneStepAdjoint,
    UnrollAdjoint as UnrollAdjoint,
)
from ._composite import Composite as Composite, PrimalDual as PrimalDual
from ._functional import AbstractFunctional as AbstractFunctional
from ._problem import (
    AbstractProblem as AbstractProblem,
    FixedPoint as FixedPoint,
    Minimise as Minimise,
    RootFind as RootFind,
)
from ._progress import (
    AbstractProgressMeter as AbstractProgressMeter,
    NoProgressMeter as NoProgressMeter,
    TqdmProgressMeter as TqdmProgressMeter,
)
from ._result import RESULTS as RESULTS, Solution as Solution
from ._solve import solve as solve
from ._solver import AbstractSolver as AbstractSolver
