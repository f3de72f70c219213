"""Weights as an `.npz` file without pickle, with a `.json` record of their origin beside it."""

import hashlib
import importlib.metadata
import json
import os
import platform
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._leaves import difference, layout, named_arrays, replace_arrays


WEIGHTS = Path(__file__).parent / "weights"

_LIMIT = 5_000_000
_SUFFIXES = (".npz", ".json")
_ORIGIN = ("script", "seed", "steps", "commit", "accuracy")
_STORED = ("sha256", "bytes", "leaves")
_PACKAGES = ("jinv", "jax", "jaxlib", "equinox", "optax", "numpy")


def save(path: str | os.PathLike[str], model: PyTree, record: Mapping[str, Any]) -> Path:
    """Stores the arrays of a model in `path.npz` and where they come from in `path.json`.

    Everything in the model that is not an array (sizes, activations, Python numbers) is not
    stored: the code that makes the skeleton for `load` keeps it. The same arrays give the same
    bytes. A file that is there already is replaced.

    **Arguments:**

    - `path`: where to; the suffix may be left out.
    - `model`: a PyTree with arrays.
    - `record`: what JSON can hold, with at least `script` (what trains this model), `seed`,
        `steps`, `commit` and `accuracy` (as it was measured). The versions of the packages,
        the names, shapes and dtypes of the arrays and the SHA-256 of the `.npz` file are added.

    **Returns:** the path of the `.npz` file.

    **Raises:** `ValueError` if `record` lacks something or is no JSON, if the model has no
    arrays or numbers in it that are not finite, or if the file would be larger than 5 MB.

    !!! example
        ```python
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp, jinv
        >>> record = {"script": "fit.py", "seed": 0, "steps": 9, "commit": "-", "accuracy": 1e-3}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jinv.pretrained.save(f"{folder}/line", {"w": jnp.ones(2)}, record)
        ...     sorted(file.name for file in pathlib.Path(folder).iterdir())
        ['line.json', 'line.npz']

        ```
    """
    missing = [name for name in _ORIGIN if name not in record]
    if missing:
        raise ValueError(f"`record` must say {', '.join(_ORIGIN)}; it lacks {', '.join(missing)}")
    arrays = {name: np.asarray(leaf) for name, leaf in named_arrays(model).items()}
    if not arrays:
        raise ValueError("`model` must have arrays, there is none")
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.all(np.isfinite(array)):
            raise ValueError(f"`model` must have finite weights, {name} of it has not")
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    content = stream.getvalue()
    if len(content) > _LIMIT:
        raise ValueError(
            f"`model` is too large: its file would have {len(content)} bytes, the limit is {_LIMIT}"
        )
    stored = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "leaves": layout(arrays),
    }
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions = {"python": platform.python_version(), **versions}
    try:
        text = json.dumps({"versions": versions, **record, **stored}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`record` must be what JSON can hold: {error}") from error
    weights, beside = _files(Path(path))
    weights.write_bytes(content)
    beside.write_text(f"{text}\n", encoding="utf-8")
    return weights


def load(name_or_path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """The model `like` with stored weights for its arrays.

    Nothing is unpickled, and the file is checked against the SHA-256 in its record.

    **Arguments:**

    - `name_or_path`: one of `names()`, or the path that `save` got. A string without a folder
        and without `.npz` is a name.
    - `like`: a model of the same structure, such as a fresh one. One made by
        `eqx.filter_eval_shape` costs nothing.

    **Returns:** the model. Its arrays have the dtypes of `like`: float32 weights are widened for
    a model in float64.

    **Raises:** `FileNotFoundError` if one of the two files is missing; `ValueError`, with the
    file and what is wrong, for an unknown name, a damaged or exchanged file, and arrays that
    `like` does not have, has in other shapes, or in dtypes that would lose digits.

    !!! example
        ```python
        >>> import tempfile
        >>> import equinox as eqx, jax, jinv
        >>> model = eqx.nn.Linear(2, 1, key=jax.random.key(0))
        >>> record = {"script": "fit.py", "seed": 0, "steps": 9, "commit": "-", "accuracy": 1e-3}
        >>> like = eqx.filter_eval_shape(eqx.nn.Linear, 2, 1, key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jinv.pretrained.save(f"{folder}/line", model, record)
        ...     bool(eqx.tree_equal(jinv.pretrained.load(path, like), model))
        True

        ```
    """
    weights, _ = _files(_resolve(name_or_path))
    record = read_record(name_or_path)
    content = _bytes(weights)
    if len(content) != record["bytes"]:
        raise ValueError(
            f"{weights}: truncated or exchanged, it has {len(content)} bytes instead of "
            f"{record['bytes']}"
        )
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise ValueError(f"{weights}: damaged or exchanged, its SHA-256 is not that of its record")
    wrong = difference(layout(named_arrays(like)), record["leaves"], widen=True)
    if wrong:
        raise ValueError(f"{weights} does not fit `like`: {wrong}")
    return replace_arrays(like, _arrays(weights, content, record["leaves"]))


def read_record(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of stored weights: how they were trained, and their measured accuracy.

    **Arguments:**

    - `name_or_path`: see `load`.

    **Returns:** what was given to `save`, with `versions`, `sha256`, `bytes` and `leaves`.

    **Raises:** as `load`.

    !!! example
        ```python
        >>> import tempfile
        >>> import jax.numpy as jnp, jinv
        >>> record = {"script": "fit.py", "seed": 0, "steps": 9, "commit": "-", "accuracy": 1e-3}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jinv.pretrained.save(f"{folder}/line", {"w": jnp.ones(2)}, record)
        ...     found = jinv.pretrained.read_record(path)
        >>> found["accuracy"], found["leaves"]
        (0.001, {"['w']": {'shape': [2], 'dtype': 'float32'}})

        ```
    """
    _, beside = _files(_resolve(name_or_path))
    try:
        record = json.loads(_bytes(beside))
        missing = [name for name in (*_ORIGIN, *_STORED) if name not in record]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{beside}: not a readable record ({error})") from error
    if missing:
        raise ValueError(f"{beside}: not a record of weights, it lacks {', '.join(missing)}")
    return record


def names() -> list[str]:
    """The names of the shipped weights, for `load`.

    !!! example
        ```python
        >>> import jinv
        >>> all("seed" in jinv.pretrained.read_record(name) for name in jinv.pretrained.names())
        True

        ```
    """
    return sorted(path.stem for path in WEIGHTS.glob("*.npz"))


def _resolve(name_or_path) -> Path:
    path = Path(name_or_path)
    is_name = isinstance(name_or_path, str) and path.name == name_or_path
    if not is_name or path.suffix in _SUFFIXES:
        return path
    if name_or_path not in names():
        known = ", ".join(names()) or "none"
        raise ValueError(
            f"`name_or_path` {name_or_path!r} is not among the shipped weights ({known}); "
            f"a path needs a folder or the suffix .npz"
        )
    return WEIGHTS / name_or_path


def _files(path: Path) -> tuple[Path, Path]:
    base = path.with_suffix("") if path.suffix in _SUFFIXES else path
    return base.with_name(f"{base.name}.npz"), base.with_name(f"{base.name}.json")


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    return path.read_bytes()


def _arrays(path: Path, content: bytes, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz file without pickle ({error})") from error
    for name, array in arrays.items():
        if array.dtype.kind == "V" and name in leaves:  # bfloat16, unknown to NumPy's format
            arrays[name] = array.view(jnp.dtype(leaves[name]["dtype"]))
    if wrong := difference(leaves, layout(arrays), widen=False):
        raise ValueError(f"{path} is not what its record says: {wrong}")
    return arrays
