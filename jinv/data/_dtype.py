"""Which dtype data arrive in, and a hint for the optional packages that hold or decode them."""

import importlib
from types import ModuleType
from typing import Any

import jax.numpy as jnp


def float_dtype(dtype: Any) -> Any:
    """`dtype`, or JAX's default float; anything that is not real floating point is refused."""
    if dtype is None:
        return jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"`dtype` must be a real floating-point type, because images are scaled to [0, 1]; "
            f"got {dtype!r}."
        )
    return dtype


def optional_import(module: str, package: str, purpose: str) -> ModuleType:
    """Imports `module`, or says which package to install for `purpose`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose} needs {package}, which is not installed: pip install "jinv[images]"'
        ) from error
