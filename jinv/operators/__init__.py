"""Forward models as lineax operators with exact adjoints."""

from ._absolute import absolute_sums as absolute_sums
from ._base import AbstractOperator as AbstractOperator, adjoint as adjoint
from ._convolution import Convolution as Convolution
from ._downsampling import Downsampling as Downsampling
from ._ellipses import ellipse_image as ellipse_image, ellipse_sinogram as ellipse_sinogram
from ._fan_beam import FanBeam as FanBeam
from ._fbp import filtered_back_projection as filtered_back_projection
from ._finite_difference import FiniteDifference as FiniteDifference
from ._fourier import FourierSampling as FourierSampling
from ._kernels import (
    disk_kernel as disk_kernel,
    gaussian_kernel as gaussian_kernel,
    motion_kernel as motion_kernel,
)
from ._norm import norm_bound as norm_bound, operator_norm as operator_norm
from ._normal import NormalSystem as NormalSystem
from ._pointwise import Diagonal as Diagonal, Mask as Mask
from ._radon import ParallelBeam as ParallelBeam
from ._spectrum import Spectrum as Spectrum, gram_spectrum as gram_spectrum
from ._stack import BlockDiagonal as BlockDiagonal, Stack as Stack
