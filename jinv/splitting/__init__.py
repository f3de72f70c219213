"""Splitting solvers for composite problems, as jinv solvers.

All of them stop when a primal and a dual residual are small, each against
`sqrt(size) * atol + rtol * scale` (Boyd et al. 2011, eq. 3.12), tested every `check_every`
steps, and report `objective`, `primal_residual`, `dual_residual` and the larger relative one as
`residual` in `stats`. Any functional with a prox plugs in, a denoiser too.
"""

from ._admm import ADMM as ADMM
from ._douglas_rachford import DouglasRachford as DouglasRachford
from ._hqs import HQS as HQS
from ._pdhg import PDHG as PDHG
from ._proximal_gradient import FISTA as FISTA, ProximalGradient as ProximalGradient
