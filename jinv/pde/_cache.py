"""Data sets on disk: one file per set of arguments, checked when it is read."""

import hashlib
import inspect
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._data import OperatorData


_FORMAT = 1  # Raise it when a recipe changes, and old files are not found any more.
_NO_INFLUENCE = ("workers", "batch_size", "progress")


def cached(
    folder: str | os.PathLike[str], make: Callable, *args, overwrite: bool = False, **kwargs
) -> OperatorData:
    """`make(*args, **kwargs)`, read from a file in `folder` if it was made there before.

    The file's name has the function's name and a hash of the arguments, defaults included, and
    of JAX's default float; not of the function's code, so change its name with its meaning.
    In the file are the arrays, the arguments and a SHA-256 over both; nothing is pickled.
    `workers`, `batch_size` and `progress` are no part of it: they change nothing but the last
    digits.

    **Arguments:**

    - `folder`: where the files are; it is made if missing.
    - `make`: a function that returns an [`jinv.pde.OperatorData`][], such as
        `jinv.pde.darcy_rough` or one of your own that can be imported.
    - `args`, `kwargs`: for `make`: numbers, strings, keys, arrays, fields, functions that can be
        imported, and tuples, lists or dictionaries of these.
    - `overwrite`: make the data anew, and replace the file.

    **Returns:** what `make` returns.

    Raises `ValueError` for an argument that cannot be written down, and for a file that is
    damaged or holds something else than its name says; it is left as it is.

    !!! example
        ```python
        >>> import tempfile, jax, jinv
        >>> options = dict(key=jax.random.key(0), progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = jinv.pde.cached(folder, jinv.pde.darcy_rough, 2, 17, **options)
        ...     again = jinv.pde.cached(folder, jinv.pde.darcy_rough, 2, 17, **options)
        >>> bool((first.outputs == again.outputs).all())
        True

        ```
    """
    record = _record(make, args, kwargs)
    label = hashlib.sha256(record.encode()).hexdigest()
    path = Path(folder) / f"{make.__name__}-{label[:16]}.npz"
    if path.exists() and not overwrite:
        return _read(path, record)
    data = make(*args, **kwargs)
    if not isinstance(data, OperatorData):
        raise ValueError(f"`make` must return an OperatorData, got {type(data).__name__}.")
    _write(path, record, data)
    return data


def _record(make, args, kwargs) -> str:
    if not _importable(make):
        raise ValueError(f"`make` must be a function that can be imported, got {make!r}.")
    bound = inspect.signature(make).bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = {
        name: _plain(name, value)
        for name, value in bound.arguments.items()
        if name not in _NO_INFLUENCE
    }
    record = {
        "format": _FORMAT,
        "make": f"{make.__module__}.{make.__qualname__}",
        "float": str(jnp.result_type(float)),
        "arguments": arguments,
    }
    return json.dumps(record, sort_keys=True)


def _plain(name, value):
    """An argument as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(name, v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_plain(name, k), _plain(name, v)] for k, v in value.items()]}
    if isinstance(value, eqx.Module):
        return {
            "type": type(value).__name__,
            **{k: _plain(name, v) for k, v in vars(value).items()},
        }
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        bits = np.asarray(jax.random.key_data(value)).tolist()
        return {"key": bits, "impl": str(jax.random.key_impl(value))}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        value = np.asarray(value)
        return {"array": _digest(value), "shape": value.shape, "dtype": str(value.dtype)}
    if callable(value) and _importable(value):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    raise ValueError(f"`{name}` cannot be a part of a cached data set, got {value!r}.")


def _importable(function):
    name = getattr(function, "__qualname__", "<")
    return "<" not in name and inspect.isroutine(function) and not inspect.ismethod(function)


def _digest(*parts):
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype.str}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        total.update(part)
    return total.hexdigest()


def _write(path, record, data):
    arrays = [np.asarray(x) for x in (data.inputs, data.outputs, *data.coordinates)]
    text = np.frombuffer(record.encode(), np.uint8)
    digest = np.frombuffer(_digest(text, *arrays).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed: an interrupted run leaves no half file under the name.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, *arrays, allow_pickle=False, record=text, sha256=digest)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _read(path, record) -> OperatorData:
    advice = "pass `overwrite=True` to make it again"
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            text, digest = archive["record"], archive["sha256"].tobytes().decode()
            arrays = [archive[f"arr_{i}"] for i in range(len(archive.files) - 2)]
        sound = digest == _digest(text, *arrays) and len(arrays) >= 2
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable data set ({reason}); {advice}.") from error
    if not sound:
        raise ValueError(f"{path}: damaged, its content does not have its SHA-256; {advice}.")
    found = text.tobytes().decode()
    if found != record:
        raise ValueError(f"{path}: exchanged, it holds {found} and not {record}; {advice}.")
    inputs, outputs, *coordinates = map(jnp.asarray, arrays)
    return OperatorData(inputs, outputs, tuple(coordinates))
