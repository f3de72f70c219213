"""The arrays of `.npy`, `.npz`, MATLAB and HDF5 files as fields that read when they are asked."""

import functools
import importlib
import math
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ._field import DAMAGE, Block, Field
from ._mat5 import mat5_variables
from ._read import _MATLAB_NUMBERS, _complex_pair, _listed, _matlab_dtype


# The arrays of a file, and in words what else is in it, both by name.
Content = tuple[dict[str, Field], dict[str, str]]


def open_npy(path: Path, stack: ExitStack) -> Content:
    with open(path, "rb") as stream:
        shape, fortran_order, dtype = _npy_header(path, stream)
        start = stream.tell()
    if not is_number(dtype):
        raise ValueError(f"{path}: expected an array of numbers; it is {_other(dtype)}.")
    size, end = path.stat().st_size, start + dtype.itemsize * math.prod(shape)
    if size < end:
        raise ValueError(f"{path}: cut short, the array ends at byte {end} and the file at {size}.")
    order = "F" if fortran_order else "C"
    read = _whole(functools.partial(np.memmap, path, dtype, "r", start, shape, order))
    return {path.stem: Field(path, path.stem, shape, dtype, read)}, {}


def open_npz(path: Path, stack: ExitStack) -> Content:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: cut short or damaged, the list of arrays at the end is missing ({error})."
        ) from error
    members = [name for name in archive.namelist() if name.endswith(".npy")]
    if archive.namelist() and not members:
        raise ValueError(
            f"{path}: expected the arrays of a .npz file; the zip archive holds "
            f"{_listed(archive.namelist())}. Unpack it, or convert it if it is of PyTorch."
        )
    arrays, others = {}, {}
    for member in members:
        name = member.removesuffix(".npy")
        shape, _, dtype = _member_header(path, archive, member)
        if is_number(dtype):
            read = _whole(functools.partial(_read_member, archive, member))
            arrays[name] = Field(path, name, shape, dtype, read)
        else:
            others[name] = _other(dtype)
    return arrays, others


def _member_header(path: Path, archive: zipfile.ZipFile, member: str):
    try:
        with archive.open(member) as stream:
            return _npy_header(path, stream)
    except DAMAGE as error:
        raise ValueError(f"{path}: {member} is damaged or cut short ({error}).") from error


def _read_member(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _npy_header(path: Path, stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        if version in readers:
            return readers[version](stream)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged or cut short in a .npy header ({error}).") from error
    raise ValueError(f"{path}: expected a .npy array of numbers; its format is {version}.")


def open_mat5(path: Path, stack: ExitStack) -> Content:
    arrays, others = {}, {}
    for name, shape, kind, is_complex in mat5_variables(path):
        if kind not in _MATLAB_NUMBERS:
            others[name] = f"a MATLAB {kind}"
            continue
        stored = np.dtype(bool if kind == "logical" else kind)
        dtype = np.result_type(stored, np.complex64) if is_complex else stored
        read = _whole(functools.partial(_load_mat5, path, name, kind))
        arrays[name] = Field(path, name, shape, dtype, read)
    return arrays, others


def _load_mat5(path: Path, name: str, kind: str) -> np.ndarray:
    import scipy.io  # a fifth of a second, for those who need it

    array = scipy.io.loadmat(path, variable_names=[name], appendmat=False)[name]
    return array if array.dtype == kind else _matlab_dtype(array, kind)


def _whole(load: Callable[[], np.ndarray]) -> Callable[[Block], np.ndarray]:
    """The first call loads (or maps into memory) the array, all calls copy their part of it."""
    load = functools.cache(load)
    return lambda block: np.array(load()[block])


def open_hdf5(path: Path, stack: ExitStack) -> Content:
    h5py = _h5py(path)
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        what = "cut short" if "truncated" in str(error) else "damaged or cut short"
        raise ValueError(f"{path}: an HDF5 file that is {what} ({error}).") from error
    arrays: dict[str, Field] = {}
    others: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        # MATLAB keeps what its cells and structs point to under #refs#.
        if name.startswith("#"):
            return
        kind = _matlab_class(item)
        if isinstance(item, h5py.Dataset) and _holds_numbers(item, kind):
            arrays[name] = _dataset(path, name, item, kind)
        elif kind is not None:
            others[name] = f"a MATLAB {kind}"
        elif isinstance(item, h5py.Dataset):
            others[name] = _other(item.dtype)

    try:
        file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: an HDF5 file that is damaged ({error}).") from error
    return arrays, others


def _matlab_class(item: Any) -> str | None:
    kind = item.attrs.get("MATLAB_class")
    return kind.decode() if isinstance(kind, bytes) else kind


def _holds_numbers(item: Any, kind: str | None) -> bool:
    if item.shape is None or kind not in (None, *_MATLAB_NUMBERS):
        return False
    return is_number(_complex_pair(np.empty(0, item.dtype)).dtype)


def _dataset(path: Path, name: str, item: Any, kind: str | None) -> Field:
    shape = item.shape if kind is None else item.shape[::-1]
    dtype = _native(np.empty(0, item.dtype), kind).dtype
    if kind is not None and item.attrs.get("MATLAB_empty", 0):
        # An empty array is stored as the list of its lengths.
        shape = [int(length) for length in np.ravel(item[()])]
        dtype = _native(np.empty(0), kind).dtype
    return Field(path, name, shape, dtype, functools.partial(_read_dataset, item, kind))


def _read_dataset(item: Any, kind: str | None, block: Block) -> np.ndarray:
    stored = block if kind is None else block[::-1]
    spans = [_span(entry) for entry in stored]
    array = np.asarray(item[tuple(entry for entry, _ in spans)])
    array = _native(np.asarray(array[tuple(rest for _, rest in spans)]), kind)
    return array if kind is None else array.T


def _span(entry: slice | np.ndarray) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """HDF5 is slow at lists of integers: a dense one is read as a slice, and indexed in memory."""
    if isinstance(entry, slice):
        return entry, slice(None)
    first, last = int(entry[0]), int(entry[-1])
    if 4 * len(entry) > last - first:
        return slice(first, last + 1), entry - first
    return entry, slice(None)


def _native(array: np.ndarray, kind: str | None) -> np.ndarray:
    array = _complex_pair(array)
    return array if kind is None or array.dtype == kind else _matlab_dtype(array, kind)


def _h5py(path: Path) -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            f"{path}: reading an HDF5 file needs h5py, which is not installed: "
            'pip install "jinv[files]"'
        ) from error


def is_number(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc" and dtype.char not in "gG"


def _other(dtype: np.dtype) -> str:
    if dtype.kind == "O":
        return "an array of Python objects or references, which is never unpickled"
    return f"an array of dtype {dtype}"


OPENERS = {"npy": open_npy, "zip": open_npz, "mat5": open_mat5, "hdf5": open_hdf5}
