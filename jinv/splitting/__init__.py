"""Splitting solvers for composite problems, as jinv solvers."""

from ._pdhg import PDHG as PDHG
from ._proximal_gradient import FISTA as FISTA, ProximalGradient as ProximalGradient
