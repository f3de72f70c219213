"""Shipped weights, and the format they are stored in: arrays without pickle, and a record."""

from ._models import dcdm as dcdm, multigrid as multigrid, neural_factor as neural_factor
from ._operators import operator as operator
from ._priors import denoiser as denoiser, lpn as lpn
from ._store import (
    load as load,
    names as names,
    read_record as read_record,
    save as save,
)
