"""Proximal maps: norms, data terms, projections, and their calculus."""

from ._affine import AffineSet as AffineSet
from ._ball import L2Ball as L2Ball, L2Sphere as L2Sphere
from ._box import (
    Box as Box,
    LInfBall as LInfBall,
    NonNegative as NonNegative,
    Restricted as Restricted,
)
from ._box_section import BoxSection as BoxSection
from ._calculus import (
    ArgumentScaled as ArgumentScaled,
    Conjugate as Conjugate,
    Orthogonal as Orthogonal,
    Regularised as Regularised,
    Scaled as Scaled,
    Separable as Separable,
    Tilted as Tilted,
    Translated as Translated,
    Zero as Zero,
)
from ._cone import (
    PositiveSemidefinite as PositiveSemidefinite,
    SecondOrderCone as SecondOrderCone,
)
from ._entropy import (
    Entropy as Entropy,
    KullbackLeibler as KullbackLeibler,
    LogBarrier as LogBarrier,
)
from ._group import GroupL2 as GroupL2
from ._huber import Huber as Huber
from ._l1 import L1 as L1
from ._learned import LearnedProximalNetwork as LearnedProximalNetwork
from ._norms import L2 as L2, LInf as LInf
from ._nuclear import NuclearBall as NuclearBall, NuclearNorm as NuclearNorm
from ._plane import HalfSpace as HalfSpace, Hyperplane as Hyperplane
from ._plug_in import (
    PlugIn as PlugIn,
    moreau_envelope as moreau_envelope,
    moreau_gradient as moreau_gradient,
)
from ._polyhedron import Polyhedron as Polyhedron
from ._quadratic import ElasticNet as ElasticNet, SquaredL2 as SquaredL2
from ._separable import AbstractSeparable as AbstractSeparable
from ._simplex import (
    L1Ball as L1Ball,
    L1Sphere as L1Sphere,
    Simplex as Simplex,
    SparseSimplex as SparseSimplex,
)
from ._sparsity import L0 as L0, MCP as MCP, SCAD as SCAD, LogSum as LogSum
from ._total_variation import TotalVariation as TotalVariation
from ._transport import Birkhoff as Birkhoff, Transport as Transport
