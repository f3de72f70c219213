r"""How $A^* A$ is diagonalised, which makes quadratic subproblems closed-form."""

import functools as ft
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact, PyTree, Real

from ._base import _Derived
from ._checks import weigh
from ._transforms import cosine_multiply, fourier_multiply


class Spectrum(eqx.Module):
    r"""A self-adjoint operator $G = U^* \Lambda U$ with a known fast transform $U$.

    Spectra with the same transform add up, scalars and multiples of the identity add to any,
    and all of them scale, so that $\rho I + A^* A + \tau K^* K$ is written as it stands and then
    inverted: `(rho + gram_spectrum(A) + tau * gram_spectrum(K)).solve(rhs)` costs one forward and
    one inverse transform.

    **Arguments:**

    - `eigenvalues`: $\Lambda$, real; a scalar, or an array of the rank of the image that
        broadcasts over the axes which are not transformed.
    - `kind`: the transform $U$: none for `"identity"` (one scalar) and `"diagonal"` (pixels);
        `"fft"` is the discrete Fourier transform of complex images, `"rfft"` its half spectrum
        for real ones (the last axis of `axes` is halved), `"dct"` the DCT-II.
    - `axes`: the transformed axes, ascending; `()` for no transform.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> K = jinv.operators.FiniteDifference((4,))
        >>> gram = 1.0 + jinv.operators.gram_spectrum(K)
        >>> gram.kind
        'dct'
        >>> b = jnp.array([1.0, 2.0, 3.0, 4.0])
        >>> x = gram.solve(b)
        >>> bool(jnp.allclose(x + K.T.mv(K.mv(x)), b, atol=1e-5))
        True

        ```
    """

    eigenvalues: Real[Array, "..."]
    kind: Literal["identity", "diagonal", "fft", "rfft", "dct"] = eqx.field(static=True)
    axes: tuple[int, ...] = eqx.field(static=True, default=())

    def apply(self, x: PyTree[Inexact[Array, "..."]]) -> PyTree[Inexact[Array, "..."]]:
        r"""$G x$, for `x` of the shape of the image (any PyTree for the identity kind)."""
        return jax.tree.map(lambda leaf: self._multiply(self.eigenvalues, leaf), x)

    def solve(self, rhs: PyTree[Inexact[Array, "..."]]) -> PyTree[Inexact[Array, "..."]]:
        r"""$G^{-1}\,$`rhs`; not finite where an eigenvalue is zero."""
        return jax.tree.map(lambda leaf: self._multiply(1 / self.eigenvalues, leaf), rhs)

    def compatible(self, other: "Spectrum") -> bool:
        """Whether the two can be added: one transform, or one is a multiple of the identity."""
        same = (self.kind, self.axes) == (other.kind, other.axes)
        return same or "identity" in (self.kind, other.kind)

    def __add__(self, other) -> "Spectrum":
        dtype = self.eigenvalues.dtype
        if not isinstance(other, Spectrum):
            value = self.eigenvalues + jnp.asarray(other, dtype=dtype)
            return Spectrum(value, self.kind, self.axes)
        if not self.compatible(other):
            raise ValueError(
                f"spectra add up when they share one transform, got {self.kind} over {self.axes} "
                f"and {other.kind} over {other.axes}."
            )
        if self.kind == "identity":
            dtype, self, other = other.eigenvalues.dtype, other, self
        value = self.eigenvalues + other.eigenvalues.astype(dtype)
        return Spectrum(value, self.kind, self.axes)

    def __radd__(self, other) -> "Spectrum":
        return self + other

    def __mul__(self, other) -> "Spectrum":
        factor = jnp.asarray(other, dtype=self.eigenvalues.dtype)
        if factor.ndim > 0:
            raise ValueError(f"a spectrum scales by a scalar, got an array of {factor.shape}.")
        return Spectrum(factor * self.eigenvalues, self.kind, self.axes)

    def __rmul__(self, other) -> "Spectrum":
        return self * other

    def _multiply(self, values, x):
        values = values.astype(jnp.finfo(x.dtype).dtype)
        if self.kind in ("identity", "diagonal"):
            return weigh(values, x)
        if self.kind == "fft":
            if not jnp.iscomplexobj(x):
                raise ValueError(f"a spectrum of kind 'fft' acts on complex arrays, got {x.dtype}.")
            return fourier_multiply(x, values, self.axes, half=False)
        if jnp.iscomplexobj(x):
            parts = (self._multiply(values, x.real), self._multiply(values, x.imag))
            return jax.lax.complex(*parts)
        if self.kind == "rfft":
            return fourier_multiply(x, values, self.axes, half=True)
        return cosine_multiply(x, values, self.axes)


@ft.singledispatch
def gram_spectrum(operator: lx.AbstractLinearOperator | None) -> Spectrum | None:
    r"""How $A^* A$ is diagonalised, or `None` where no fast transform is known.

    Known are circular [`jinv.operators.Convolution`][] and [`jinv.operators.FiniteDifference`][]
    (Fourier), Neumann [`jinv.operators.FiniteDifference`][] (cosine), single-coil
    [`jinv.operators.FourierSampling`][], [`jinv.operators.Mask`][],
    [`jinv.operators.Diagonal`][] and plain decimation (pixels), identities, scalar multiples, and
    a [`jinv.operators.Stack`][] of operators which share one transform. A new operator registers
    itself: `gram_spectrum.register(MyClass)`.

    **Arguments:**

    - `operator`: any lineax operator, or `None` for the identity.

    **Returns:** a [`jinv.operators.Spectrum`][] or `None`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.operators.Mask(jnp.array([1.0, 0.0, 1.0]))
        >>> (0.5 + jinv.operators.gram_spectrum(A)).solve(jnp.ones(3))
        Array([0.6666667, 2.       , 0.6666667], dtype=float32)

        ```
    """
    return None


@gram_spectrum.register
def _(operator: None):
    return Spectrum(jnp.ones(()), "identity")


@gram_spectrum.register
def _(operator: lx.IdentityLinearOperator):
    structure = operator.in_structure()
    same = jax.tree.structure(structure) == jax.tree.structure(operator.out_structure())
    leaves = jax.tree.leaves(structure)
    if not same or [x.shape for x in leaves] != [
        x.shape for x in jax.tree.leaves(operator.out_structure())
    ]:
        return None
    dtype = jnp.finfo(jnp.result_type(*(x.dtype for x in leaves))).dtype
    return Spectrum(jnp.ones((), dtype=dtype), "identity")


@gram_spectrum.register
def _(operator: lx.MulLinearOperator):
    inner = gram_spectrum(operator.operator)
    return None if inner is None else jnp.abs(operator.scalar) ** 2 * inner


@gram_spectrum.register
def _(operator: lx.DivLinearOperator):
    inner = gram_spectrum(operator.operator)
    return None if inner is None else (1 / jnp.abs(operator.scalar) ** 2) * inner


@gram_spectrum.register(lx.NegLinearOperator)
@gram_spectrum.register(lx.TaggedLinearOperator)
def _(operator):
    return gram_spectrum(operator.operator)


@gram_spectrum.register
def _(operator: lx.ComposedLinearOperator):
    outer, inner = gram_spectrum(operator.operator1), gram_spectrum(operator.operator2)
    if outer is None or inner is None or outer.kind != "identity":
        return None
    return outer.eigenvalues * inner


@gram_spectrum.register
def _(operator: _Derived):
    leaves = jax.tree.leaves(operator.in_structure())
    real = not any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in leaves)
    return gram_spectrum(operator.operator) if real and not operator.transposed else None
