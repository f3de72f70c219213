"""One array of a file: its shape and dtype at once, its numbers when they are asked for."""

import math
import operator
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


# What damaged data make the readers of NumPy, SciPy and HDF5 raise.
DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
DAMAGE += (TypeError, LookupError, RuntimeError, OverflowError)

# For each axis an increasing slice or increasing integers, each once.
Block = tuple[slice | np.ndarray, ...]


class Field:
    """One array of a file that [`jinv.data.fields`][] has opened; indexing reads from the file.

    `name`, `shape`, `dtype`, `ndim`, `size` and `nbytes` are known without reading, and `len`
    counts the first axis. An index means what it means in NumPy, and gives a NumPy array of your
    own. Allowed are integers, slices, `...`, and along one axis a list of integers (sorted or
    not, with repetitions) or a mask. `numpy.asarray(field)` reads everything.

    From HDF5 and `.npy` only what the index names is read. HDF5 reads a list of integers that
    covers more than a quarter of its range as one piece. Arrays of `.mat` version 5 and `.npz`
    cannot be read in part: the first index reads the array, which then stays in memory until
    the file is closed.

    A `Field` may be read from several threads. For several processes, open the file in each.

    **Raises:** `IndexError` for an index that is out of range or of another kind; `ValueError`,
    naming the file, if its data are damaged or it has been closed.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import numpy as np
        >>> import jinv.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "sol.npy")
        ...     np.save(path, np.arange(12.0).reshape(6, 2))
        ...     with jinv.data.fields(path) as file:
        ...         sol = file["sol"]
        ...         print(sol.shape, sol.dtype, sol[[4, 0], 1])
        (6, 2) float64 [9. 1.]

        ```
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype,
        read: Callable[[Block], np.ndarray],
    ):
        self.name = name
        self.shape = tuple(int(length) for length in shape)
        self.dtype = dtype.newbyteorder("=")
        self._path = path
        self._read: Callable[[Block], np.ndarray] | None = read

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self.name!r} is a number and has no length.")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Field({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        block, rest = _plan(key, self.shape)
        read = self._read
        if read is None:
            raise ValueError(f"{self._path}: closed; read {self.name!r} before.")
        lengths = [_length(entry) for entry in block]
        if 0 in lengths:
            return np.empty(lengths, self.dtype)[rest]
        try:
            array = read(block)
        except DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{self._path}: the data of {self.name!r} are damaged or cut short ({reason})."
            ) from error
        return np.asarray(array[rest], dtype=self.dtype, order="C")

    def _close(self) -> None:
        self._read = None


def _plan(key: Any, shape: tuple[int, ...]) -> tuple[Block, tuple]:
    """An index as what to read, in increasing order, and how to index that in memory."""
    entries = zip(_entries(key, shape), shape, strict=True)
    plans = [_plan_axis(entry, length) for entry, length in entries]
    block = tuple(entry for entry, _ in plans)
    if sum(isinstance(entry, np.ndarray) for entry in block) > 1:
        raise IndexError("expected a list of integers along one axis, got several; read one first.")
    return block, tuple(rest for _, rest in plans)


def _entries(key: Any, shape: tuple[int, ...]) -> list:
    entries = list(key) if isinstance(key, tuple) else [key]
    dots = [position for position, entry in enumerate(entries) if entry is Ellipsis]
    missing = len(shape) - len(entries) + len(dots)
    if missing < 0 or len(dots) > 1:
        raise IndexError(f"expected at most {len(shape)} indices and one `...`, got {key!r}.")
    where = dots[0] if dots else len(entries)
    entries[where : where + len(dots)] = [slice(None)] * missing
    return entries


def _plan_axis(entry: Any, length: int) -> tuple[slice | np.ndarray, Any]:
    if isinstance(entry, slice):
        return _plan_slice(entry, length)
    if np.ndim(entry) == 0:
        start = int(_in_range(np.array([_integer(entry)]), length)[0])
        return slice(start, start + 1, 1), 0
    return np.unique(_integers(entry, length), return_inverse=True)


def _plan_slice(entry: slice, length: int) -> tuple[slice, slice]:
    indices = range(length)[entry]
    backwards = indices.step < 0
    if backwards:
        indices = indices[::-1]
    if not indices:
        indices = range(0)
    return slice(indices.start, indices.stop, indices.step), slice(
        None, None, -1 if backwards else 1
    )


def _integer(entry: Any) -> int:
    try:
        if not isinstance(entry, bool | np.bool_):
            return operator.index(entry)
    except TypeError:
        pass
    raise IndexError(f"expected integers, slices, `...` or a mask, got {entry!r}.")


def _integers(entry: Any, length: int) -> np.ndarray:
    index = np.asarray(entry)
    if index.shape == (length,) and index.dtype == bool:
        return np.flatnonzero(index)
    if index.ndim != 1 or index.size and index.dtype.kind not in "iu":
        raise IndexError(
            f"expected a list of integers or a mask of length {length}, "
            f"got {index.dtype} with shape {index.shape}."
        )
    return _in_range(index.astype(np.int64), length)


def _in_range(index: np.ndarray, length: int) -> np.ndarray:
    outside = index[(index < -length) | (index >= length)]
    if outside.size:
        raise IndexError(f"index {outside[0]} is out of range for an axis of length {length}.")
    return np.where(index < 0, index + length, index)


def _length(entry: slice | np.ndarray) -> int:
    if isinstance(entry, slice):
        return len(range(entry.start, entry.stop, entry.step))
    return len(entry)
