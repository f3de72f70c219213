"""Data sets of operator learning by published recipes, and the solvers that make them."""

from ._burgers import burgers as burgers, solve_burgers as solve_burgers
from ._cache import cached as cached
from ._darcy import darcy_operator as darcy_operator, solve_darcy as solve_darcy
from ._darcy_data import (
    darcy_multiscale as darcy_multiscale,
    darcy_rough as darcy_rough,
    darcy_smooth as darcy_smooth,
    darcy_two_phase as darcy_two_phase,
)
from ._data import OperatorData as OperatorData
from ._field import GaussianField as GaussianField
from ._helmholtz import helmholtz as helmholtz, solve_helmholtz as solve_helmholtz
from ._navier_stokes import (
    navier_stokes as navier_stokes,
    solve_navier_stokes as solve_navier_stokes,
)
