"""How far a reconstruction is from the truth: pure functions of one pair of arrays."""

from ._error import (
    mae as mae,
    mse as mse,
    psnr as psnr,
    relative_error as relative_error,
    snr as snr,
)
from ._ssim import ssim as ssim
