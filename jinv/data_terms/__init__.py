"""Data terms: how far the prediction of a forward model is from the data."""

from ._data_term import (
    DataTerm as DataTerm,
    huber as huber,
    least_absolute as least_absolute,
    least_squares as least_squares,
    poisson as poisson,
)
