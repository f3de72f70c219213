"""Magnetic resonance imaging: subsampled unitary Fourier transforms, one or many coils."""

import jax
import jax.numpy as jnp
from equinox import field
from jaxtyping import Array, Inexact, Shaped

from ._base import AbstractOperator
from ._checks import as_complex, as_inexact, as_weights, check_vector, weigh
from ._norm import norm_bound
from ._spectrum import Spectrum, gram_spectrum


class FourierSampling(AbstractOperator):
    r"""Samples the unitary Fourier transform, $A x = m \odot F (c_j \odot x)$ for each coil $j$.

    The transform is over all axes of the mask, scaled to be unitary. Frequencies that are not
    sampled are set to zero, not removed. Images and samples are complex. One FFT per coil.

    **Arguments:**

    - `mask`: booleans or real weights, of the shape of the image. Frequency zero is its first
        entry, or entry $\lfloor n/2 \rfloor$ with `centred`.
    - `coils`: complex sensitivity maps of shape `(coils, *mask.shape)`, or `None`.
    - `centred`: puts the origin of both image and frequencies at $\lfloor n/2 \rfloor$, as
        stored MRI data do.
    - `dtype`: complex; by default that of `coils`, or the one which goes with `mask`.

    **Returns** (of `mv`): an array like the image, or of shape `(coils, *mask.shape)`.

    Raises `ValueError` for a complex mask, a real dtype, or maps that do not fit the mask.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.FourierSampling(jnp.array([True, False, False, False]))
        >>> jnp.abs(A.mv(jnp.array([1.0, 2.0, 3.0, 4.0], dtype=jnp.complex64)))
        Array([5., 0., 0., 0.], dtype=float32)

        ```
    """

    mask: Inexact[Array, "..."]
    coils: Inexact[Array, "coils ..."] | None
    centred: bool = field(static=True)
    dtype: jnp.dtype = field(static=True)

    def __init__(
        self,
        mask: Shaped[Array, "..."],
        *,
        coils: Inexact[Array, "coils ..."] | None = None,
        centred: bool = False,
        dtype=None,
    ):
        if jnp.iscomplexobj(mask) or mask.ndim == 0:
            raise ValueError(f"mask must be a real or boolean array, got {mask.dtype}{mask.shape}.")
        if coils is not None and coils.shape[1:] != mask.shape:
            raise ValueError(
                f"coils must have shape (coils, *mask.shape) with mask.shape {mask.shape}, "
                f"got {coils.shape}."
            )
        if dtype is None:
            source = mask if coils is None else coils
            real = source.dtype if jnp.issubdtype(source.dtype, jnp.inexact) else None
            dtype = as_complex(as_inexact(real))
        if not jnp.issubdtype(as_inexact(dtype), jnp.complexfloating):
            raise ValueError(f"dtype must be complex, got {dtype}.")
        self.dtype, self.mask = as_weights(mask, dtype, "mask")
        self.coils = None if coils is None else coils.astype(self.dtype)
        self.centred = centred

    def mv(self, vector):
        check_vector(vector, self.in_structure(), "FourierSampling")
        x = vector if self.coils is None else self.coils * vector[None]
        mask = self.mask if self.coils is None else self.mask[None]
        return weigh(mask, self._transform(x, jnp.fft.fftn))

    def adjoint_mv(self, vector):
        check_vector(vector, self.out_structure(), "FourierSampling (adjoint)")
        mask = self.mask if self.coils is None else self.mask[None]
        x = self._transform(weigh(mask, vector), jnp.fft.ifftn)
        return x if self.coils is None else jnp.sum(self.coils.conj() * x, axis=0)

    def _transform(self, x, fft):
        axes = tuple(range(-self.mask.ndim, 0))
        if not self.centred:
            return fft(x, axes=axes, norm="ortho")
        x = fft(jnp.fft.ifftshift(x, axes), axes=axes, norm="ortho")
        return jnp.fft.fftshift(x, axes)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.mask.shape, self.dtype)

    def out_structure(self):
        count = () if self.coils is None else self.coils.shape[:1]
        return jax.ShapeDtypeStruct((*count, *self.mask.shape), self.dtype)


@gram_spectrum.register
def _(operator: FourierSampling):
    if operator.coils is not None:
        return None
    mask = jnp.fft.ifftshift(operator.mask) if operator.centred else operator.mask
    return Spectrum(mask**2, "fft", tuple(range(mask.ndim)))


@norm_bound.register
def _(operator: FourierSampling):
    return None if operator.coils is not None else jnp.max(jnp.abs(operator.mask))
