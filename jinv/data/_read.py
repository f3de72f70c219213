"""The reader of arrays that somebody saved: NumPy, MATLAB and HDF5 files."""

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._dtype import optional_import


_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# MATLAB writes a 512 byte text header in front of the HDF5 part of a v7.3 file.
_MATLAB_USER_BLOCK = 512


def read_array(path: str | os.PathLike[str], *, variable: str | None = None) -> Array:
    """Reads one array from a `.npy`, `.npz`, `.mat`, `.h5` or `.hdf5` file.

    The array keeps its shape and its dtype (in JAX's canonical form: without x64, doubles
    arrive as float32). Nothing is ever unpickled, so an untrusted file cannot run code.
    NaN and infinity are kept as they are: in measured data they often mark missing values.

    MATLAB stores arrays column by column. In `.mat` files of both kinds (up to v7 through
    SciPy, v7.3 = HDF5 through h5py) `A(i, j)` of MATLAB is `A[i - 1, j - 1]` here: v7.3 arrays
    are transposed on the way in. Plain `.h5` files are taken as they are stored, so an array
    written there by MATLAB's `h5write` arrives with its axes reversed. MATLAB has no vectors:
    they have shape `(n, 1)` or `(1, n)`.

    **Arguments:**

    - `path`: the file. Its suffix says the format.
    - `variable`: which array of a file that holds several; in HDF5 files `group/name` works.
        May be left out if the file holds exactly one.

    **Returns:** a JAX array.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError`, naming the file and
    what was expected, for a directory, an empty or damaged file, an unknown suffix or variable
    (the known ones are listed), for text, objects, structs, cells and sparse matrices, and for
    numbers that do not fit in JAX's dtype; `ImportError` if HDF5 is to be read without h5py.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import numpy as np
        >>> import jinv.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "run.npz")
        ...     np.savez(path, kernel=np.ones(3, "f"), blurred=np.zeros((2, 2), "f"))
        ...     jinv.data.read_array(path, variable="kernel")
        Array([1., 1., 1.], dtype=float32)

        ```
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(
            f"{path}: expected one of the suffixes {', '.join(_READERS)}; got {path.suffix!r}."
        )
    content = read_content(path)
    try:
        array = read(path, content, variable)
    except _Refused as refused:
        raise ValueError(f"{path}: {refused}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    except (TypeError, IndexError, NotImplementedError, OverflowError, MemoryError) as error:
        # SciPy's parser meets damaged MATLAB files with whatever its internals raise.
        raise _damaged(path, error) from error
    return _to_jax(path, array)


def read_content(path: Path) -> bytes:
    """The bytes of a file, after the checks that do not depend on the format."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file; got a directory.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path}: expected {path.suffix} data; the file is empty (0 bytes).")
    return content


class _Refused(Exception):
    """A file that is sound but holds something else; the message lacks only the path."""


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(f"{path}: not a readable {path.suffix} file, or a truncated one ({reason}).")


def _read_npy(path: Path, content: bytes, variable: str | None) -> np.ndarray:
    if variable is not None:
        raise _Refused(f"a .npy file holds one array without a name; got variable={variable!r}.")
    return _numpy_array(BytesIO(content))


def _read_npz(path: Path, content: bytes, variable: str | None) -> np.ndarray:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        name = _choose([member.removesuffix(".npy") for member in members], variable)
        return _numpy_array(BytesIO(archive.read(f"{name}.npy")))


def _numpy_array(stream: BytesIO) -> np.ndarray:
    try:
        return np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" in str(error):
            raise _Refused(
                "expected an array of numbers; got an array of Python objects, which would have "
                "to be unpickled and is never read."
            ) from None
        raise


def _read_mat(path: Path, content: bytes, variable: str | None) -> np.ndarray:
    if _HDF5_SIGNATURE in (content[:8], content[_MATLAB_USER_BLOCK : _MATLAB_USER_BLOCK + 8]):
        return _read_hdf5(path, content, variable)
    import scipy.io  # a fifth of a second, for those who need it

    kinds = {name: kind for name, _, kind in scipy.io.whosmat(BytesIO(content))}
    name = _choose(list(kinds), variable)
    if kinds[name] not in _MATLAB_NUMBERS:
        raise _Refused(f"expected {name!r} to be an array of numbers; it is a {kinds[name]}.")
    array = scipy.io.loadmat(BytesIO(content), variable_names=[name])[name]
    return _matlab_dtype(array, kinds[name])


def _matlab_dtype(array: np.ndarray, kind: str) -> np.ndarray:
    # MATLAB packs whole-numbered doubles as small integers, and logicals as bytes.
    if kind == "logical":
        return array.astype(bool)
    if kind in ("double", "single"):
        real = np.dtype(kind)
        return array.astype(np.result_type(real, np.complex64) if array.dtype.kind == "c" else real)
    return array


_MATLAB_NUMBERS = ("double", "single", "logical") + tuple(
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
)


def _read_hdf5(path: Path, content: bytes, variable: str | None) -> np.ndarray:
    h5py: Any = optional_import("h5py", "h5py", f"{path}: reading an HDF5 file")
    matlab = path.suffix.lower() == ".mat"
    with h5py.File(BytesIO(content), "r") as file:
        names = []

        def note(name, item):
            # MATLAB keeps what its cells and structs point to under #refs#.
            if isinstance(item, h5py.Dataset) and not name.startswith("#"):
                names.append(name)

        file.visititems(note)
        if variable is not None and isinstance(file.get(variable), h5py.Group):
            raise _Refused(
                f"expected {variable!r} to be an array; it is a group (a MATLAB struct or sparse "
                f"matrix), with {_listed(list(file[variable]))}."
            )
        name = _choose(names, None if variable is None else variable.strip("/"))
        dataset = file[name]
        if matlab:
            return _matlab_dataset(dataset, name)
        return _complex_pair(np.asarray(dataset[()]))


def _matlab_dataset(dataset, name: str) -> np.ndarray:
    kind = dataset.attrs.get("MATLAB_class", b"double")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in _MATLAB_NUMBERS:
        raise _Refused(f"expected {name!r} to be an array of numbers; it is a {kind}.")
    array = np.asarray(dataset[()])
    if dataset.attrs.get("MATLAB_empty", 0):
        # An empty array is stored as the list of its lengths.
        return _matlab_dtype(np.zeros([int(length) for length in array.ravel()]), kind)
    return _matlab_dtype(_complex_pair(array).T, kind)


def _complex_pair(array: np.ndarray) -> np.ndarray:
    """MATLAB writes complex numbers as records `(real, imag)`; h5py knows only `(r, i)`."""
    if array.dtype.names != ("real", "imag"):
        return array
    real, imag = array["real"], array["imag"]
    pair = np.empty(array.shape, np.result_type(real.dtype, np.complex64))
    pair.real, pair.imag = real, imag
    return pair


_READERS: dict[str, Callable[[Path, bytes, str | None], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}


def _choose(names: Sequence[str], variable: str | None) -> str:
    if not names:
        raise _Refused("expected at least one array; the file holds none.")
    if variable is None and len(names) > 1:
        raise _Refused(f"expected `variable`, because the file holds {_listed(names)}.")
    if variable is not None and variable not in names:
        raise _Refused(f"there is no variable {variable!r}; the file holds {_listed(names)}.")
    return names[0] if variable is None else variable


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def _to_jax(path: Path, array: np.ndarray) -> Array:
    """Canonical dtype and byte order; a number that does not survive is an error, not a wrap."""
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16 or array.dtype == np.longdouble:
        raise ValueError(
            f"{path}: expected real or complex numbers, integers or booleans; "
            f"got dtype {array.dtype}."
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    target = jax.dtypes.canonicalize_dtype(array.dtype)
    with np.errstate(over="ignore"):
        narrow = array.astype(target)
    if narrow.dtype != array.dtype:
        if array.dtype.kind in "iu":
            fits = np.array_equal(narrow, array)
        else:
            fits = np.array_equal(np.isfinite(narrow), np.isfinite(array))
        if not fits:
            raise ValueError(
                f"{path}: the {array.dtype} numbers do not fit in {target}; call "
                'jax.config.update("jax_enable_x64", True) first.'
            )
    return jnp.asarray(narrow)
