"""Linear solvers, lineax's way: preconditioned CG, multigrid, learned directions."""

from ._algebraic import AlgebraicMultigrid as AlgebraicMultigrid
from ._dcdm import DCDM as DCDM
from ._diffusion import (
    Diffusion as Diffusion,
    heterogeneous_diffusion as heterogeneous_diffusion,
    null_space as null_space,
    poisson as poisson,
    pressure_poisson as pressure_poisson,
)
from ._direction import (
    AbstractDirection as AbstractDirection,
    conjugate_direction_loss as conjugate_direction_loss,
)
from ._direction_net import DirectionNet as DirectionNet, UNetDirection as UNetDirection
from ._fast_poisson import FastPoisson as FastPoisson
from ._learn import convergence_loss as convergence_loss
from ._multigrid import Multigrid as Multigrid, MultigridWeights as MultigridWeights
from ._neural_factor import (
    FactorNetwork as FactorNetwork,
    NeuralFactor as NeuralFactor,
    factor_loss as factor_loss,
)
from ._pcg import PCG as PCG
from ._preconditioner import (
    AbstractPreconditioner as AbstractPreconditioner,
    AbstractReduction as AbstractReduction,
    Chebyshev as Chebyshev,
    Jacobi as Jacobi,
)
from ._random import (
    random_coefficient as random_coefficient,
    random_obstacles as random_obstacles,
    random_source as random_source,
)
from ._recycling import RecycledPCG as RecycledPCG
from ._refinement import Refinement as Refinement
from ._ritz import RitzSamples as RitzSamples, ritz_pairs as ritz_pairs
from ._sequence import solve_sequence as solve_sequence, sort_systems as sort_systems
from ._sparse import SparseMatrix as SparseMatrix, to_scipy as to_scipy
from ._tagged import Tagged as Tagged
