"""Networks: convex potentials, whose gradients are proximal maps, and denoisers beside them."""

from ._denoiser import (
    ConvDenoiser as ConvDenoiser,
    LipschitzDenoiser as LipschitzDenoiser,
)
from ._icnn import (
    ICNN as ICNN,
    convolutional_icnn as convolutional_icnn,
    dense_icnn as dense_icnn,
)
from ._nonnegative import (
    NonNegative as NonNegative,
    keep_nonnegative as keep_nonnegative,
)
from ._potential import AbstractConvexPotential as AbstractConvexPotential
from ._pyramid import Pyramid as Pyramid
from ._rescaled import Rescaled as Rescaled
from ._tiled import Tiled as Tiled, Tiling as Tiling
