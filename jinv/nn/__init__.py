"""Networks: convex potentials, whose gradients are proximal maps, and denoisers beside them."""

from ._branch import AbstractBranch as AbstractBranch
from ._conv_encoder import ConvEncoder as ConvEncoder
from ._denoiser import (
    ConvDenoiser as ConvDenoiser,
    LipschitzDenoiser as LipschitzDenoiser,
)
from ._dirichlet import Dirichlet as Dirichlet, transfinite as transfinite
from ._fno import FNO as FNO
from ._galerkin import GalerkinTransformer as GalerkinTransformer
from ._icnn import (
    ICNN as ICNN,
    convolutional_icnn as convolutional_icnn,
    dense_icnn as dense_icnn,
)
from ._mgno import (
    MgNO as MgNO,
    mgno as mgno,
    mgno_from_torch as mgno_from_torch,
    published_mgno as published_mgno,
)
from ._mlp import MLP as MLP
from ._multigrid import MultigridConvolution as MultigridConvolution
from ._multionet import (
    MultiONet as MultiONet,
    deeponet as deeponet,
)
from ._nonnegative import (
    NonNegative as NonNegative,
    keep_nonnegative as keep_nonnegative,
)
from ._on_grid import OnGrid as OnGrid
from ._potential import AbstractConvexPotential as AbstractConvexPotential
from ._pyramid import Pyramid as Pyramid
from ._rescaled import Rescaled as Rescaled
from ._tiled import Tiled as Tiled, Tiling as Tiling
from ._unet import UNet as UNet
