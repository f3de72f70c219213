"""One JAX primitive for every ray transform, so that each derivative uses the fast kernels."""

import abc
import dataclasses
import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from ._base import AbstractOperator
from ._checks import as_inexact, as_shape, check_vector


@dataclasses.dataclass(frozen=True)
class AbstractRayGeometry:
    """What a scanner measures: a pair of kernels, hashable so that it can be a static argument.

    Row `a` of `forward(angles, image)` depends on `angles[a]` only, and `backward` is the exact
    transpose of `forward` in its second argument; the derivative rules below rest on both.
    """

    shape: tuple[int, int]
    num_detectors: int
    detector_spacing: float
    pixel_size: float

    @abc.abstractmethod
    def forward(
        self, angles: Float[Array, " a"], image: Float[Array, "h w"]
    ) -> Float[Array, "a d"]:
        """Line integrals."""

    @abc.abstractmethod
    def backward(
        self, angles: Float[Array, " a"], sinogram: Float[Array, "a d"]
    ) -> Float[Array, "h w"]:
        """The transpose of `forward`."""

    @abc.abstractmethod
    def lines(self, angles: Float[Array, " a"]) -> tuple[Float[Array, "a d"], Float[Array, "a d"]]:
        """The normal angle and the signed distance of each measured line."""

    @abc.abstractmethod
    def detector_weights(self, dtype) -> tuple[Float[Array, " d"], float]:
        """What filtered back-projection multiplies the data by, and the spacing it filters at."""

    @abc.abstractmethod
    def locate(self, angle: Float[Array, ""]) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
        """The fractional detector index of each pixel and its back-projection weight."""

    def detectors(self, dtype) -> Float[Array, " d"]:
        index = jnp.arange(self.num_detectors, dtype=dtype) - self.num_detectors // 2
        return index * self.detector_spacing

    def pixels(self, dtype) -> tuple[Float[Array, "h 1"], Float[Array, "1 w"]]:
        height, width = self.shape
        rows = jnp.arange(height, dtype=dtype) - height // 2
        columns = jnp.arange(width, dtype=dtype) - width // 2
        return rows[:, None] * self.pixel_size, columns[None, :] * self.pixel_size


class AbstractRayTransform(AbstractOperator):
    """What every scanner's operator is: angles (differentiable) and a geometry (static)."""

    angles: Float[Array, " num_angles"]
    geometry: AbstractRayGeometry = eqx.field(static=True)

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure(), type(self).__name__)
        return ray_transform(self.geometry, self.angles, vector, adjoint=False)

    def adjoint_mv(self, vector: Array) -> Array:
        check_vector(vector, self.out_structure(), f"the adjoint of {type(self).__name__}")
        return ray_transform(self.geometry, self.angles, vector, adjoint=True)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.geometry.shape, self.angles.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        shape = (self.angles.shape[0], self.geometry.num_detectors)
        return jax.ShapeDtypeStruct(shape, self.angles.dtype)


def ray_transform(
    geometry: AbstractRayGeometry,
    angles: Float[Array, " a"],
    x: Float[Array, "m n"],
    *,
    adjoint: bool,
) -> Float[Array, "p q"]:
    """`geometry.forward` or `geometry.backward` as a linear primitive."""
    return _transform_p.bind(angles, x[None], geometry=geometry, order=0, adjoint=adjoint)[0]


# `_transform_p` maps a batch (b, h, w) -> (b, a, d), or back when `adjoint`. With `order = k` it
# is the k-th derivative of the operator along a common shift of all angles. As view `a` sees
# `angles[a]` only, that one direction contains every partial derivative:
#     d(A x)   = A dx + dtheta[:, None] * (A' x)
#     d(A^T y) = A^T dy + A'^T (dtheta[:, None] * y)
# so both modes of differentiation, at any order, stay inside this family of operators.
_transform_p = Primitive("jinv_ray_transform")


def _evaluate(angles, x, *, geometry, order, adjoint):
    fn = geometry.backward if adjoint else geometry.forward
    for _ in range(order):
        fn = _along_angles(fn)
    if x.shape[0] == 1:
        return fn(angles, x[0])[None]
    # On a CPU one image fits the cache and a batch does not: half the time, one image at a time.
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: jax.lax.map(lambda image: fn(angles, image), x),
        default=lambda x: jax.vmap(lambda image: fn(angles, image))(x),
    )


def _along_angles(fn):
    def derivative(angles, x):
        return jax.jvp(lambda angles: fn(angles, x), (angles,), (jnp.ones_like(angles),))[1]

    return derivative


@_transform_p.def_abstract_eval
def _(angles, x, *, geometry, order, adjoint):
    del order
    out = geometry.shape if adjoint else (angles.shape[0], geometry.num_detectors)
    return x.update(shape=(x.shape[0], *out))


_transform_p.def_impl(jax.jit(_evaluate, static_argnames=("geometry", "order", "adjoint")))
mlir.register_lowering(_transform_p, mlir.lower_fun(_evaluate, multiple_results=False))


def _jvp(primals, tangents, *, geometry, order, adjoint):
    angles, x = primals
    d_angles, dx = tangents
    bind = ft.partial(_transform_p.bind, geometry=geometry, adjoint=adjoint)
    terms = []
    if type(dx) is not ad.Zero:
        terms.append(bind(angles, dx, order=order))
    if type(d_angles) is not ad.Zero:
        scale = d_angles[None, :, None]
        if adjoint:
            terms.append(bind(angles, scale * x, order=order + 1))
        else:
            terms.append(scale * bind(angles, x, order=order + 1))
    return bind(angles, x, order=order), sum(terms[1:], terms[0])


def _transpose(ct, angles, x, *, geometry, order, adjoint):
    assert ad.is_undefined_primal(x) and not ad.is_undefined_primal(angles)
    if type(ct) is ad.Zero:
        return None, ad.Zero(x.aval)
    ct_x = _transform_p.bind(angles, ct, geometry=geometry, order=order, adjoint=not adjoint)
    return None, ct_x


def _batch(args, dims, **params):
    angles, x = args
    angles_dim, x_dim = dims
    if x_dim is not None:
        x = jnp.moveaxis(x, x_dim, 0)
    if angles_dim is None:
        out = _transform_p.bind(angles, x.reshape(-1, *x.shape[2:]), **params)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    # One set of angles after the other: a batched driving axis would compute both branches.
    angles = jnp.moveaxis(angles, angles_dim, 0)
    if x_dim is None:
        return jax.lax.map(lambda t: _transform_p.bind(t, x, **params), angles), 0
    return jax.lax.map(lambda tx: _transform_p.bind(*tx, **params), (angles, x)), 0


ad.primitive_jvps[_transform_p] = _jvp
ad.primitive_transposes[_transform_p] = _transpose
batching.primitive_batchers[_transform_p] = _batch


def hat(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The linear interpolation kernel."""
    return jnp.maximum(1 - jnp.abs(x), 0)


def zeros_like_data(shape, data):
    """Zeros that vary over the same mesh axes as `data`, to start a loop inside `shard_map`."""
    zero = jnp.where(False, data.reshape(-1)[0], jnp.zeros((), data.dtype))
    return jnp.broadcast_to(zero, shape)


def check_geometry(shape, angles, dtype, num_detectors, **lengths):
    """Shape and angles as the operator keeps them, once everything static has been checked."""
    shape = as_shape(shape)
    if len(shape) != 2:
        raise ValueError(f"shape must be (height, width), got {shape}.")
    if jnp.ndim(angles) != 1 or jnp.size(angles) == 0:
        raise ValueError(
            f"angles must be a non-empty vector of radians, got shape {jnp.shape(angles)}."
        )
    if dtype is None and jnp.issubdtype(jnp.result_type(angles), jnp.floating):
        dtype = jnp.result_type(angles)
    dtype = as_inexact(dtype)
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}.")
    if num_detectors is not None:
        as_shape(num_detectors, "num_detectors")
    for name, length in lengths.items():
        if not 0 < length < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {length}.")
    return shape, jnp.asarray(angles, dtype=dtype)
