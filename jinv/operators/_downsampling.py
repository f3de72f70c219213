"""Super-resolution: decimation, optionally after an anti-aliasing average."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from equinox import field
from jax import lax
from jaxtyping import Array, Inexact

from ._base import AbstractOperator
from ._checks import as_axes, as_inexact, as_shape, check_vector
from ._convolution import Convolution
from ._norm import norm_bound
from ._spectrum import Spectrum, gram_spectrum


class Downsampling(AbstractOperator):
    r"""Keeps every $f$-th pixel, $(A x)_i = (k * x)_{f i}$, starting with the first.

    Without `kernel` it is plain decimation (one strided slice). With `"box"` each output is the
    mean of its block of $f$ pixels per axis. With an array it is a circular
    [`jinv.operators.Convolution`][] (the kernel centred on the kept pixel) followed by decimation.

    **Arguments:**

    - `shape`: of the fine image.
    - `factor`: $f$, one for all axes or one per axis.
    - `kernel`: `None`, `"box"` or an array with one axis per decimated axis.
    - `axes`: the decimated axes; by default the first `len(factor)`, or all for one factor.
    - `dtype`: of the image; by default that of `kernel`, or the default float.

    Raises `ValueError` if a factor does not divide its axis.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Downsampling((4,), 2, kernel="box")
        >>> A.mv(jnp.array([1.0, 3.0, 5.0, 9.0]))
        Array([2., 7.], dtype=float32)

        ```
    """

    blur: Convolution | None
    shape: tuple[int, ...] = field(static=True)
    factors: tuple[int, ...] = field(static=True)
    box: bool = field(static=True)
    dtype: jnp.dtype = field(static=True)

    def __init__(
        self,
        shape: int | Sequence[int],
        factor: int | Sequence[int],
        *,
        kernel: str | Inexact[Array, "..."] | None = None,
        axes: int | Sequence[int] | None = None,
        dtype=None,
    ):
        if isinstance(kernel, str) and kernel != "box":
            raise ValueError(f"kernel must be None, 'box' or an array, got {kernel!r}.")
        self.shape = as_shape(shape)
        ndim = len(self.shape)
        single = isinstance(factor, int)
        given = as_shape(factor, "factor")
        where = as_axes(axes, ndim, range(ndim if single else len(given)))
        given = given * len(where) if single else given
        if len(given) != len(where):
            raise ValueError(f"factor must have one entry per axis of {where}, got {given}.")
        by_axis = dict(zip(where, given, strict=True))
        self.factors = tuple(by_axis.get(axis, 1) for axis in range(ndim))
        if any(n % f for n, f in zip(self.shape, self.factors, strict=True)):
            raise ValueError(
                f"factor must divide the image: shape {self.shape}, factors {self.factors} "
                "(crop or pad the image, or choose the axes)."
            )
        if dtype is None and not (kernel is None or isinstance(kernel, str)):
            dtype = kernel.dtype
        self.dtype = as_inexact(dtype)
        self.box = isinstance(kernel, str)
        self.blur = (
            None
            if kernel is None or isinstance(kernel, str)
            else Convolution(kernel, self.shape, axes=where, dtype=self.dtype)
        )

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "Downsampling")
        if self.box:
            blocks = vector.reshape(self._block_shape())
            return jnp.mean(blocks, axis=tuple(range(1, blocks.ndim, 2)))
        x = vector if self.blur is None else self.blur.mv(vector)
        return lax.slice(x, (0,) * x.ndim, x.shape, self.factors)

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "Downsampling (adjoint)")
        if self.box:
            scaled = vector / np.prod(self.factors).item()
            interleaved = jnp.expand_dims(scaled, tuple(range(1, 2 * vector.ndim, 2)))
            return jnp.broadcast_to(interleaved, self._block_shape()).reshape(self.shape)
        zero = jnp.zeros((), dtype=vector.dtype)
        x = lax.pad(vector, zero, [(0, f - 1, f - 1) for f in self.factors])
        return x if self.blur is None else self.blur.adjoint_mv(x)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def out_structure(self):
        coarse = tuple(n // f for n, f in zip(self.shape, self.factors, strict=True))
        return jax.ShapeDtypeStruct(coarse, self.dtype)

    def _block_shape(self):
        pairs = zip(self.shape, self.factors, strict=True)
        return tuple(size for n, f in pairs for size in (n // f, f))


@gram_spectrum.register
def _(operator: Downsampling):
    if operator.box or operator.blur is not None:
        return None
    keep = np.ones((1,) * len(operator.shape), bool)
    for axis, (n, f) in enumerate(zip(operator.shape, operator.factors, strict=True)):
        line = np.arange(n) % f == 0 if f > 1 else np.ones(1, bool)
        keep = keep & line.reshape([-1 if a == axis else 1 for a in range(keep.ndim)])
    return Spectrum(jnp.asarray(keep, dtype=jnp.finfo(operator.dtype).dtype), "diagonal")


@norm_bound.register
def _(operator: Downsampling):
    dtype = jnp.finfo(operator.dtype).dtype
    if operator.blur is None:
        scale = np.prod(operator.factors).item() ** -0.5 if operator.box else 1
        return jnp.asarray(scale, dtype=dtype)
    # A A^* is circular on the coarse grid, and its symbol is the mean of |k^|^2 over aliases.
    power = operator.blur.power_spectrum()
    split = [
        size
        for n, f in zip(power.shape, operator.factors, strict=True)
        for size in ((f, n // f) if n > 1 else (1, 1))
    ]
    aliases = jnp.mean(power.reshape(split), axis=tuple(range(0, len(split), 2)))
    return jnp.sqrt(jnp.max(aliases))
