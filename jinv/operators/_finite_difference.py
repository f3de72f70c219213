"""Forward differences in any number of dimensions, and their adjoint, the negative divergence."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from equinox import field
from jax import lax

from ._base import AbstractOperator
from ._checks import as_axes, as_inexact, as_shape, check_choice, check_vector
from ._norm import norm_bound
from ._spectrum import Spectrum, gram_spectrum


class FiniteDifference(AbstractOperator):
    r"""Forward differences $(K x)_{a, i} = x_{i + e_a} - x_i$, stacked over the axes $a$.

    The discrete gradient of total variation. The boundary says what $x_n$ is: `"neumann"` the
    last pixel (so the last difference is 0), `"circular"` the first pixel, `"zero"` nothing.
    The adjoint is the negative divergence. Each is one pass over the image, written as
    concatenations, which XLA fuses with its surroundings: both together take about 0.03 ms
    for 256 x 256 float32 on one CPU core.

    **Arguments:**

    - `shape`: of the image.
    - `axes`: the axes to difference; by default all.
    - `boundary`: `"neumann"`, `"circular"` or `"zero"`.
    - `dtype`: of the image; by default the default float.

    **Returns** (of `mv`): an array of shape `(len(axes), *shape)`.

    Raises `ValueError` for a bad shape, axis, boundary or dtype.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> K = jinv.operators.FiniteDifference((3,))
        >>> K.mv(jnp.array([1.0, 4.0, 9.0]))
        Array([[3., 5., 0.]], dtype=float32)
        >>> K.T.mv(jnp.array([[1.0, 1.0, 1.0]]))
        Array([-1.,  0.,  1.], dtype=float32)

        ```
    """

    shape: tuple[int, ...] = field(static=True)
    axes: tuple[int, ...] = field(static=True)
    boundary: str = field(static=True)
    dtype: jnp.dtype = field(static=True)

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        axes: int | Sequence[int] | None = None,
        boundary: str = "neumann",
        dtype=None,
    ):
        check_choice(boundary, ("neumann", "circular", "zero"), "boundary")
        self.shape = as_shape(shape)
        self.axes = as_axes(axes, len(self.shape), range(len(self.shape)))
        self.boundary = boundary
        self.dtype = as_inexact(dtype)

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "FiniteDifference")
        merged, widths = self._merged()
        x = vector.reshape(merged)
        parts = [self._difference(x, a, w) for a, w in zip(self.axes, widths, strict=True)]
        return jnp.stack(parts).reshape(len(parts), *self.shape)

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "FiniteDifference (adjoint)")
        merged, widths = self._merged()
        y = vector.reshape(len(self.axes), *merged)
        pairs = enumerate(zip(self.axes, widths, strict=True))
        parts = [self._negative_divergence(y[i], a, w) for i, (a, w) in pairs]
        return sum(parts[1:], start=parts[0]).reshape(self.shape)

    def _merged(self):
        """The shape with colour axes merged into the last differenced one, where a step is then
        one pixel of `width` numbers: XLA's CPU loops are slow over short last axes."""
        last = max(self.axes)
        post = math.prod(self.shape[last + 1 :])
        merged = (*self.shape[:last], self.shape[last] * post)
        return merged, [post if axis == last else 1 for axis in self.axes]

    def _difference(self, x, axis, width):
        n = x.shape[axis]
        steps = _cut(x, width, n, axis) - _cut(x, 0, n - width, axis)
        first, last = _cut(x, 0, width, axis), _cut(x, n - width, n, axis)
        if self.boundary == "neumann":
            edge = jnp.zeros_like(first)
        else:
            edge = first - last if self.boundary == "circular" else -last
        return jnp.concatenate([steps, edge], axis=axis)

    def _negative_divergence(self, d, axis, width):
        n = d.shape[axis]
        first, last = _cut(d, 0, width, axis), _cut(d, n - width, n, axis)
        if self.boundary == "neumann":
            if n == width:
                return jnp.zeros_like(d)
            inner = _cut(d, 0, n - 2 * width, axis) - _cut(d, width, n - width, axis)
            before = _cut(d, n - 2 * width, n - width, axis)
            return jnp.concatenate([-first, inner, before], axis=axis)
        edge = last - first if self.boundary == "circular" else -first
        steps = _cut(d, 0, n - width, axis) - _cut(d, width, n, axis)
        return jnp.concatenate([edge, steps], axis=axis)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def out_structure(self):
        return jax.ShapeDtypeStruct((len(self.axes), *self.shape), self.dtype)


def _cut(x, start, stop, axis):
    return lax.slice_in_dim(x, start, stop, axis=axis)


@gram_spectrum.register
def _(operator: FiniteDifference):
    if operator.boundary == "zero":
        return None
    axes = tuple(sorted(operator.axes))
    real = not jnp.issubdtype(operator.dtype, jnp.complexfloating)
    kind = "dct" if operator.boundary == "neumann" else "rfft" if real else "fft"
    total = np.zeros((1,) * len(operator.shape))
    for axis in axes:
        n = operator.shape[axis]
        period = 2 * n if kind == "dct" else n
        k = np.arange(n // 2 + 1 if kind == "rfft" and axis == axes[-1] else n)
        symbol = 4 * np.sin(np.pi * k / period) ** 2
        total = total + symbol.reshape([-1 if a == axis else 1 for a in range(total.ndim)])
    return Spectrum(jnp.asarray(total, dtype=jnp.finfo(operator.dtype).dtype), kind, axes)


@norm_bound.register
def _(operator: FiniteDifference):
    def along(n):
        if operator.boundary == "neumann":
            return 2 * np.sin(np.pi * (n - 1) / (2 * n))
        if operator.boundary == "circular":
            return 2 * np.sin(np.pi * (n // 2) / n)
        return 2 * np.cos(np.pi / (2 * n + 1))

    norm = np.sqrt(sum(along(operator.shape[axis]) ** 2 for axis in operator.axes))
    return jnp.asarray(norm, dtype=jnp.finfo(operator.dtype).dtype)
