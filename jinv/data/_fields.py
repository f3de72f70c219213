"""The arrays of a file by name, read when they are asked for."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ._content import data_format
from ._field import Field
from ._field_files import OPENERS
from ._read import _listed


class Fields(Mapping[str, Field]):
    """The arrays of a file by name, as [`jinv.data.fields`][] opens it; a read-only mapping.

    Printed, it is a table of names, shapes and dtypes. Use it in a `with` statement, or call
    `close`; arrays that were read before stay as they are.

    **Raises:** for a name that the file does not have an error that is both a `KeyError` and a
    `ValueError`, and lists the names that there are.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import numpy as np
        >>> import jinv.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "flow.npz")
        ...     np.savez(path, a=np.zeros((5, 8, 8), "f"), t=np.arange(3.0))
        ...     with jinv.data.fields(path) as file:
        ...         {name: array.shape for name, array in file.items()}
        {'a': (5, 8, 8), 't': (3,)}

        ```
    """

    def __init__(
        self, path: Path, arrays: dict[str, Field], others: dict[str, str], stack: ExitStack
    ):
        self.path = path
        self._arrays = arrays
        self._others = others
        self._stack = stack

    def __getitem__(self, name: str) -> Field:
        if name in self._arrays:
            return self._arrays[name]
        if name in self._others:
            raise _NoSuchArray(
                f"{self.path}: expected {name!r} to be an array of numbers; it is "
                f"{self._others[name]}."
            )
        holds = f"the file holds {_listed(list(self))}" if self else "the file holds none"
        raise _NoSuchArray(f"{self.path}: there is no array {name!r}; {holds}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = [f"  {field.name}  {field.shape}  {field.dtype}" for field in self.values()]
        return "\n".join([f"Fields({str(self.path)!r})", *rows])

    def __enter__(self) -> "Fields":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and lets go of what was kept of it; reading is an error from then on."""
        for field in self.values():
            field._close()
        self._stack.close()


class _NoSuchArray(KeyError, ValueError):
    """A `KeyError` for the methods of mappings, whose message is shown as it is."""

    def __str__(self) -> str:
        return self.args[0]


def fields(path: str | os.PathLike[str]) -> Fields:
    """Opens a `.mat`, `.h5`, `.hdf5`, `.npy` or `.npz` file whose arrays are read when asked for.

    The files in which data sets of operator learning are published hold several arrays of some
    gigabytes. Opening reads names, shapes and dtypes; `file["coeff"][:1000]` reads 1000 samples,
    where the format allows it ([`jinv.data.Field`][] says where). Arrays stay on the host, as
    NumPy arrays with the dtype of the file. Nothing is ever unpickled.

    **Order of axes.** `A(i, j)` of MATLAB is `A[i - 1, j - 1]` here, whichever version its file
    has: version 7.3 (HDF5) stores axes in reversed order, and they are turned back. Arrays of
    HDF5 files without MATLAB's mark on them (the attribute `MATLAB_class`) are taken as they are
    stored, also if the file is called `.mat`, because then h5py wrote it. (In that case alone
    [`jinv.data.read_array`][] goes by the suffix, and reverses.) MATLAB has no vectors: they have
    shape `(n, 1)` or `(1, n)`.

    **Names.** The array of a `.npy` file has the name of the file, without suffix. Arrays in groups
    of HDF5 files and in MATLAB 7.3 structs are called `group/name`. Text, cells, structs and
    sparse matrices are not listed.

    **Arguments:**

    - `path`: the file. Its suffix says the format.

    **Returns:** a [`jinv.data.Fields`][].

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError`, naming the file and
    what is wrong, for a directory, an empty file, one that was cut short, a damaged one, another
    format than the suffix says, a web page, a Git LFS pointer, and for `.pt` and other pickles
    (with the command that converts them); `ImportError` if HDF5 is to be read without h5py.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import numpy as np, scipy.io
        >>> import jinv.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "burgers.mat")
        ...     scipy.io.savemat(path, {"a": np.zeros((9, 64)), "u": np.ones((9, 64))})
        ...     with jinv.data.fields(path) as file:
        ...         list(file), file["u"].shape, file["u"][[7, 2], ::16].sum()
        (['a', 'u'], (9, 64), np.float64(8.0))

        ```
    """
    path = Path(path)
    with ExitStack() as stack:
        arrays, others = OPENERS[data_format(path)](path, stack)
        return Fields(path, arrays, others, stack.pop_all())
