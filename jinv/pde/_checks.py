"""Checks of arguments, shared by the data sets."""

import numpy as np


def check_count(value, name: str, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")


def check_positive(value, name: str) -> None:
    if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")


def check_stride(stride, intervals: int) -> None:
    """Every `stride`-th point must hit both ends of the grid, or the period."""
    check_count(stride, "stride")
    if intervals % stride:
        raise ValueError(f"`stride` must divide the {intervals} intervals, got {stride}.")


def check_square(array, name: str) -> None:
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] < 3:
        raise ValueError(
            f"`{name}` must be values on a square grid of at least 3 x 3 nodes, "
            f"got shape {array.shape}."
        )


def check_finite(array, name: str, remedy: str) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"the solution is not finite: `{name}` {remedy}.")
