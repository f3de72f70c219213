from ._algebraic import AlgebraicMultigrid as AlgebraicMultigrid
from ._diffusion import (
    Diffusion as Diffusion,
    heterogeneous_diffusion as heterogeneous_diffusion,
    null_space as null_space,
    poisson as poisson,
    pressure_poisson as pressure_poisson,
)
from ._pcg import PCG as PCG
from ._preconditioner import (
    AbstractPreconditioner as AbstractPreconditioner,
    AbstractReduction as AbstractReduction,
    Chebyshev as Chebyshev,
    Jacobi as Jacobi,
)
from ._sparse import SparseMatrix as SparseMatrix, to_scipy as to_scipy
