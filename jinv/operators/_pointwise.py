"""Operators that act on each pixel by itself."""

import jax
import jax.numpy as jnp
import lineax as lx
from equinox import field
from jaxtyping import Array, Inexact, Shaped

from ._base import AbstractOperator
from ._checks import as_shape, as_weights, check_vector, weigh
from ._spectrum import Spectrum, gram_spectrum


class Mask(AbstractOperator):
    r"""Keeps or weights pixels, $(A x)_i = m_i x_i$ with real $m$, as in inpainting.

    The shape is preserved: pixels with $m_i = 0$ are set to zero, not removed. One product.

    **Arguments:**

    - `mask`: booleans or real weights of the shape of the image, or of its leading axes.
    - `shape`: the shape of the image if it has more axes (colour) than `mask`.
    - `dtype`: of the image; by default that of `mask`, or the default float for booleans.

    Raises `ValueError` if `mask` does not fit `shape`, or is complex.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([True, False, True]))
        >>> A.mv(jnp.array([1.0, 2.0, 3.0]))
        Array([1., 0., 3.], dtype=float32)

        ```
    """

    mask: Inexact[Array, "..."]
    shape: tuple[int, ...] = field(static=True)
    dtype: jnp.dtype = field(static=True)

    def __init__(
        self,
        mask: Shaped[Array, "..."],
        *,
        shape: tuple[int, ...] | None = None,
        dtype=None,
    ):
        if jnp.iscomplexobj(mask):
            raise ValueError("mask must be real or boolean; for complex weights use Diagonal.")
        self.shape = as_shape(mask.shape if shape is None else shape)
        if mask.shape != self.shape[: mask.ndim]:
            raise ValueError(
                f"mask must have the leading axes of shape {self.shape}, got {mask.shape}."
            )
        self.dtype, mask = as_weights(mask, dtype, "mask")
        self.mask = mask.reshape(mask.shape + (1,) * (len(self.shape) - mask.ndim))

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "Mask")
        return weigh(self.mask, vector)

    def adjoint_mv(self, vector):
        return self.mv(vector)

    def transpose(self):
        return self

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def out_structure(self):
        return self.in_structure()


class Diagonal(AbstractOperator):
    r"""Multiplies each pixel by a number, $(A x)_i = d_i x_i$ with real or complex $d$.

    One product. Unlike `lineax.DiagonalLinearOperator` the array keeps its image shape.

    **Arguments:**

    - `diagonal`: the weights, of the shape of the image.
    - `dtype`: of the image; by default that of `diagonal`.

    Raises `ValueError` if `diagonal` is complex and `dtype` is not.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Diagonal(jnp.array([1.0, 2.0]))
        >>> A.mv(jnp.array([3.0, 4.0]))
        Array([3., 8.], dtype=float32)

        ```
    """

    weights: Inexact[Array, "..."]
    dtype: jnp.dtype = field(static=True)

    def __init__(self, diagonal: Shaped[Array, "..."], *, dtype=None):
        self.dtype, self.weights = as_weights(diagonal, dtype, "diagonal")

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "Diagonal")
        return weigh(self.weights, vector)

    def adjoint_mv(self, vector):
        check_vector(vector, self.in_structure(), "Diagonal")
        return weigh(self.weights.conj(), vector)

    def transpose(self):
        return self

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.weights.shape, self.dtype)

    def out_structure(self):
        return self.in_structure()


def _is_true(operator):
    return True


for _query in (lx.is_symmetric, lx.is_diagonal, lx.is_lower_triangular, lx.is_upper_triangular):
    _query.register(Mask, _is_true)
    _query.register(Diagonal, _is_true)


@lx.diagonal.register
def _(operator: Mask):
    return jnp.broadcast_to(operator.mask, operator.shape).reshape(-1).astype(operator.dtype)


@lx.diagonal.register
def _(operator: Diagonal):
    return operator.weights.reshape(-1).astype(operator.dtype)


@lx.conj.register
def _(operator: Mask):
    return operator


@lx.conj.register
def _(operator: Diagonal):
    return Diagonal(operator.weights.conj(), dtype=operator.dtype)


@gram_spectrum.register
def _(operator: Mask):
    return Spectrum(operator.mask**2, "diagonal")


@gram_spectrum.register
def _(operator: Diagonal):
    return Spectrum((operator.weights * operator.weights.conj()).real, "diagonal")
