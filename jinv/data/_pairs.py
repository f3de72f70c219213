"""Inputs and outputs for training, by their names in a file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..pde._checks import check_count
from ._fields import Fields, fields
from ._read import _listed


def pairs(
    source: str | os.PathLike[str] | Mapping[str, Any],
    inputs: str,
    outputs: str,
    *,
    num: int | None = None,
    first: int = 0,
    stride: int | Sequence[int] = 1,
    axis: int = 0,
    dtype: Any = np.float32,
) -> tuple[Float[np.ndarray, "num ..."], Float[np.ndarray, "num ..."]]:
    """Inputs and outputs for training, by their names in a file.

    Reads samples `first`, ..., `first + num - 1` of both arrays on every `stride`-th grid point,
    and puts the samples first. Costs the memory of what is returned, and for `.mat` version 5 and
    `.npz` that of the two whole arrays while reading.

    **Arguments:**

    - `source`: a file for [`jinv.data.fields`][], an open one, or a mapping of names to arrays,
        such as `{"x": x_file["Pipe_X"], "q": q_file["Pipe_Q"]}` for arrays of several files.
    - `inputs`, `outputs`: the names of the two arrays.
    - `num`, `first`: how many samples, and which is the first; all from there on if `num` is left
        out.
    - `stride`: of the grid, an integer, or one for each leading axis of a sample. An integer is for
        the axes that inputs and outputs have in common, so that time frames after them
        are all kept. The coordinates of the grid have to be cut by the caller.
    - `axis`: along which axis the samples are: 0, or -1 for files that have them last.
    - `dtype`: of the results, float32 if left out.

    **Returns:** two NumPy arrays, contiguous, with `num` samples along their first axes.

    **Raises:** what `fields` raises; `ValueError` for an unknown name, complex numbers, different
    numbers of samples, fewer samples than asked for, with a stride a grid that is not the same in
    both, and for values that are not finite in `dtype`, naming the first such sample.

    !!! example
        ```python
        >>> import numpy as np
        >>> import jinv.data
        >>> arrays = {"coeff": np.ones((10, 9, 9)), "sol": np.zeros((10, 9, 9))}
        >>> x, y = jinv.data.pairs(arrays, "coeff", "sol", num=8, stride=2)
        >>> x.shape, y.shape, x.dtype
        ((8, 5, 5), (8, 5, 5), dtype('float32'))

        ```
    """
    if not np.issubdtype(dtype, np.floating):
        raise ValueError(f"`dtype` must be a real floating-point type; got {dtype!r}.")
    options = dict(num=num, first=first, stride=stride, axis=axis, dtype=dtype)
    if isinstance(source, Mapping):
        return _pairs(source, inputs, outputs, **options)
    with fields(source) as opened:
        return _pairs(opened, inputs, outputs, **options)


def _pairs(source, inputs, outputs, *, num, first, stride, axis, dtype):
    arrays = {"inputs": _named(source, "inputs", inputs)}
    arrays["outputs"] = _named(source, "outputs", outputs)
    samples = _check_samples(arrays, axis, num, first)
    strides = _check_stride(stride, [_grid(array, axis) for array in arrays.values()])
    keys = [_key(array, axis, samples, strides) for array in arrays.values()]
    x, y = (
        np.moveaxis(np.asarray(array[key]), axis, 0)
        for array, key in zip(arrays.values(), keys, strict=True)
    )
    return _finite("inputs", x, first, dtype), _finite("outputs", y, first, dtype)


def _named(source: Mapping[str, Any], argument: str, name: str) -> Any:
    if not isinstance(source, Fields) and name not in source:
        raise ValueError(f"`{argument}` must be one of {_listed(list(source))}; got {name!r}.")
    array = source[name]
    if array.dtype.kind == "c":
        raise ValueError(f"`{argument}` must be real; {name!r} is {array.dtype}.")
    return array


def _check_samples(arrays: dict[str, Any], axis: int, num: int | None, first: int) -> slice:
    shapes = [tuple(array.shape) for array in arrays.values()]
    if any(not -len(shape) <= axis < len(shape) for shape in shapes):
        raise ValueError(f"`axis` must be one of {shapes[0]} and {shapes[1]}; got {axis}.")
    length = shapes[0][axis]
    if length != shapes[1][axis]:
        raise ValueError(
            f"`inputs` and `outputs` must have the same number of samples along `axis` {axis}; "
            f"got shapes {shapes[0]} and {shapes[1]}."
        )
    check_count(first, "first", least=0)
    count = length - first if num is None else num
    check_count(count, "num")
    if first + count > length:
        raise ValueError(
            f"`first` + `num` must be at most {length}, the number of samples; "
            f"got {first} + {count}."
        )
    return slice(first, first + count)


def _grid(array: Any, axis: int) -> list[int]:
    return [length for i, length in enumerate(array.shape) if i != axis % array.ndim]


def _check_stride(stride: int | Sequence[int], grids: list[list[int]]) -> list[int]:
    common = min(map(len, grids))
    strides = [stride] * common if isinstance(stride, int) else list(stride)
    for step in strides:
        check_count(step, "stride")
    if len(strides) > common:
        raise ValueError(f"`stride` must have at most {common} entries; got {strides}.")
    x, y = ([n for n, step in zip(grid, strides, strict=False) if step > 1] for grid in grids)
    if x != y:
        raise ValueError(
            "`stride` must be along axes of equal length in `inputs` and `outputs`; got "
            f"{strides} for samples of {grids[0]} and {grids[1]}."
        )
    return strides


def _key(array: Any, axis: int, samples: slice, strides: list[int]) -> tuple[slice, ...]:
    rest = array.ndim - 1 - len(strides)
    key = [slice(None, None, step) for step in strides] + [slice(None)] * rest
    key.insert(axis % array.ndim, samples)
    return tuple(key)


def _finite(argument: str, values: np.ndarray, first: int, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(values, dtype)
    bad = ~np.isfinite(result).reshape(len(result), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"`{argument}` must be finite in {result.dtype}; {bad.sum()} samples are not, the "
            f"first of them is number {first + bad.argmax()}."
        )
    return result
