r"""Convolutions of images, of which every derivative is again a fast convolution on CPUs.

A convolution and its two derivatives are the parts of one trilinear form

$$t(x, w, z) = \sum z[o]\, x[s\,o + t - b]\, w[t],$$

so that three primitives, one for each argument, contain derivatives of every order. XLA has one
program for all of them, which on CPUs is several times slower for the transposes than for the
convolution itself, inside of loops some forty times. Here these are convolutions and matrix
products, for 3 x 3 kernels of many channels with fewer multiplications (Winograd). Other devices
get XLA's.
"""

import functools as ft
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from ._apart import apart
from ._winograd import FACTORS, contract, grid_of, interleave, winograd_forward, winograd_kernel


def convolve(
    x: Float[Array, "h w channels"],
    weight: Float[Array, "k k channels out"],
    stride: int,
    *,
    before: int | None = None,
    out: tuple[int, ...] | None = None,
) -> Float[Array, "..."]:
    """The convolution of `x`, which zeros continue: from `before` pixels outside on, `out` times.

    By default `(k - 1) // 2` before, and as many places as there are strides in the image.
    """
    before = (len(weight) - 1) // 2 if before is None else before
    out = tuple(-(-n // stride) for n in x.shape[:2]) if out is None else out
    return _forward_p.bind(
        x[None],
        weight,
        stride=stride,
        shape=x.shape[:2],
        kernel=len(weight),
        before=before,
        out=out,
    )[0]


def convolve_transposed(
    z: Float[Array, "h w channels"],
    weight: Float[Array, "k k out channels"],
    stride: int,
    shape: tuple[int, ...],
    *,
    before: int | None = None,
) -> Float[Array, "..."]:
    """The transpose of `convolve` from images of `shape`."""
    before = (len(weight) - 1) // 2 if before is None else before
    kernel, out = len(weight), z.shape[:2]
    return _input_p.bind(
        z[None], weight, stride=stride, shape=shape, kernel=kernel, before=before, out=out
    )[0]


def pointwise(
    x: Float[Array, "... channels"], weight: Float[Array, "channels out"]
) -> Float[Array, "..."]:
    """`x @ weight`, in batches as one product: with several axes XLA contracts more slowly, and
    for a single output with a matrix in place of a vector."""
    if x.ndim == 1:
        return x @ weight
    if weight.shape[1] == 1:
        return (x.reshape(-1, x.shape[-1]) @ weight[:, 0]).reshape(*x.shape[:-1], 1)
    found = convolve(x.reshape(-1, 1, x.shape[-1]), weight[None, None], 1)
    return found.reshape(*x.shape[:-1], weight.shape[1])


def _plain_forward(x, w, *, stride, shape, kernel, before, out):
    pads = [
        (before, stride * (m - 1) + kernel - before - n) for m, n in zip(out, shape, strict=True)
    ]
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride,) * 2, pads, dimension_numbers=layout)


def _plain_input(z, w, *, shape, **params):
    like = jax.ShapeDtypeStruct((len(z), *shape, w.shape[2]), z.dtype)
    fn = lambda x: _plain_forward(x, w, shape=shape, **params)
    return jax.linear_transpose(fn, like)(z)[0]


def _plain_kernel(x, z, *, kernel, **params):
    like = jax.ShapeDtypeStruct((kernel, kernel, x.shape[3], z.shape[3]), x.dtype)
    fn = lambda w: _plain_forward(x, w, kernel=kernel, **params)
    return jax.linear_transpose(fn, like)(z)[0]


def _flipped(z, w, *, stride, shape, kernel, before, out):
    """The transpose for stride 1, a convolution itself."""
    w = jnp.swapaxes(w[::-1, ::-1], 2, 3)
    fast = kernel == 3 and w.shape[2] >= _MANY
    forward = winograd_forward if fast else _plain_forward
    before = kernel - 1 - before
    return forward(z, w, stride=1, shape=out, kernel=kernel, before=before, out=shape)


def _subpixel(z, w, *, stride, shape, kernel, before, out):
    """The transpose for larger strides: a convolution for each place of a pixel in a block."""
    size = tuple(-(-n // stride) for n in shape)

    def taps(phase):
        """Which weights, and where the first of their pixels is."""
        found = [t for t in range(kernel) if (t - before - phase) % stride == 0][::-1]
        return found, [(found[0] - before - phase) // stride] if found else []

    def phase(i, j):
        (rows, above), (columns, left) = taps(i), taps(j)
        if not rows or not columns:
            return jnp.zeros((len(z), *size, w.shape[2]), z.dtype)
        part = jnp.swapaxes(w[np.array(rows)][:, np.array(columns)], 2, 3)
        pads = [
            (low, n - 1 + len(chosen) - low - m)
            for low, n, chosen, m in zip(
                (*above, *left), size, (rows, columns), z.shape[1:3], strict=True
            )
        ]
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(z, part, (1, 1), pads, dimension_numbers=layout)

    return interleave([[phase(i, j) for j in range(stride)] for i in range(stride)], shape)


def _folded(z, w, *, stride, shape, kernel, before, out):
    """The transpose for few channels as one product, whose results are put where they belong."""
    y, k = jnp.einsum("ijco,nhwo->ijcnhw", w, z), kernel
    y = [[jnp.moveaxis(y[i, j], 0, -1) for j in range(k)] for i in range(k)]
    fold = lambda parts, size, axis: _fold(list(parts), stride, size, axis, before)
    rows = [fold(column, shape[0], 1) for column in zip(*y, strict=True)]
    grid = [fold(row, shape[1], 2) for row in zip(*rows, strict=True)]
    return interleave(grid, shape)


def _fold(parts, stride, size, axis, before):
    """Along one axis: `x[stride * o + t - before] += parts[t][o]`, as interleaved arrays."""
    count, length = parts[0].shape[axis], -(-size // stride)
    found = []
    for phase in range(stride):
        terms = []
        for t, part in enumerate(parts):
            if (t - before - phase) % stride == 0:
                low = (t - before - phase) // stride
                config = [(0, 0, 0)] * 4
                config[axis] = (low, length - low - count, 0)
                terms.append(jax.lax.pad(part, jnp.zeros((), part.dtype), config))
        like = list(parts[0].shape)
        like[axis] = length
        found.append(sum(terms[1:], terms[0]) if terms else jnp.zeros(like, parts[0].dtype))
    return found


def _patches(x, stride, kernel, before, out):
    grid = grid_of(x, kernel, stride, out, before)
    return jnp.concatenate([part for row in grid for part in row], 3)


def _patched_forward(x, w, *, stride, shape, kernel, before, out):
    return _patches(x, stride, kernel, before, out) @ w.reshape(-1, w.shape[3])


def _shifted_kernel(x, z, *, stride, shape, kernel, before, out):
    """One matrix product, of images moved along the rows and measurements moved along the columns:
    for few channels the fastest."""
    (n, channels), blocks = (x.shape[::3], -(-kernel // stride))
    width = out[1] + blocks - 1
    pads = [
        (before, stride * (out[0] - 1) + kernel - before - shape[0], 0),
        (before, stride * width - before - shape[1], 0),
    ]
    zero = jnp.zeros((), x.dtype)
    x = jax.lax.pad(x, zero, [(0, 0, 0), *pads, (0, 0, 0)])
    # Columns in a block of one stride are further channels.
    x = x.reshape(n, x.shape[1], width, stride * channels)
    row = lambda i: jax.lax.slice_in_dim(x, i, i + stride * (out[0] - 1) + 1, stride, 1)
    shift = lambda m: jax.lax.pad(z, zero, [(0, 0, 0)] * 2 + [(m, blocks - 1 - m, 0), (0, 0, 0)])
    found = contract(
        jnp.concatenate([row(i) for i in range(kernel)], 3),
        jnp.concatenate([shift(m) for m in range(blocks)], 3),
    )
    found = found.reshape(kernel, stride, channels, blocks, z.shape[3])
    found = jnp.moveaxis(found, 3, 1).reshape(kernel, -1, channels, z.shape[3])
    return found[:, :kernel]


def _canonical_kernel(x, z, *, stride, shape, kernel, before, out):
    """A convolution of images whose channels are the batch, written in the one layout that XLA has
    a fast program for inside of loops too."""
    pads = [
        (before, stride * (m - 1) + kernel - before - n) for m, n in zip(out, shape, strict=True)
    ]
    images, kernels = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(z, (1, 2, 0, 3))
    layout = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(
        images, kernels, (1, 1), pads, rhs_dilation=(stride,) * 2, dimension_numbers=layout
    )
    return jnp.transpose(found, (1, 2, 0, 3))


# Channels from which fewer multiplications pay; they take a second each to compile.
_MANY = 40
# Channels, and numbers, from which XLA's gradient of a kernel pays.
_SOME, _LARGE = 16, 2**17


def _fast(name, channels, stride, kernel, size):
    """The implementation for CPUs, by measurement."""
    few = kernel == 3 and stride in FACTORS and channels >= _MANY
    if name == "kernel":
        some = channels >= _SOME and size > _LARGE
        return winograd_kernel if few else _canonical_kernel if some else _shifted_kernel
    if channels < 8:
        return _patched_forward if name == "forward" else _folded
    if name == "forward":
        return winograd_forward if few else _plain_forward
    return _flipped if stride == 1 else _subpixel


# Numbers of an image times images: what is computed at once should stay in the caches, and is
# more where the operands are not copied.
_AT_ONCE, _UNCOPIED = 2**19, 3 * 2**18


def _on_cpu(name, first, second, **params):
    channels = first.shape[3] if name == "kernel" else second.shape[2]
    width = max(channels, second.shape[3])
    size = math.prod(params["shape"]) * width
    chosen = _fast(name, channels, params["stride"], params["kernel"], len(first) * size)
    fn = ft.partial(chosen, **params)
    count = max(1, (_UNCOPIED if chosen is _canonical_kernel else _AT_ONCE) // size)
    if len(first) <= count or chosen in (_plain_forward, _subpixel):
        return fn(first, second)
    if name != "kernel":
        return jax.lax.map(lambda image: fn(image[None], second)[0], first, batch_size=count)
    whole = len(first) // count * count
    parts = [a[:whole].reshape(-1, count, *a.shape[1:]) for a in (first, second)]
    like = jax.eval_shape(fn, first, second)
    add = lambda total, part: (total + fn(*part), None)
    found = jax.lax.scan(add, jnp.zeros(like.shape, like.dtype), tuple(parts))[0]
    return found if whole == len(first) else found + fn(first[whole:], second[whole:])


_PLAIN = {"forward": _plain_forward, "input": _plain_input, "kernel": _plain_kernel}


def _rows_times(x, matrix):
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])


# Those of kernels of one pixel, on all devices.
_PRODUCT = {
    "forward": lambda x, w: _rows_times(x, w[0, 0]),
    "input": lambda z, w: _rows_times(z, w[0, 0].T),
    "kernel": lambda x, z: contract(x, z)[None, None],
}


def _is_product(*, stride, shape, kernel, before, out):
    return kernel == stride == 1 and before == 0 and shape == out


def _evaluate(first, second, *, name, **params):
    if _is_product(**params):
        return _PRODUCT[name](first, second)
    on_cpu = _kernel_on_cpu(**params) if name == "kernel" else ft.partial(_on_cpu, name, **params)
    default = ft.partial(_PLAIN[name], **params)
    return jax.lax.platform_dependent(first, second, cpu=on_cpu, default=default)


@ft.cache
def _kernel_on_cpu(**params):
    """Apart, because it needs copies of the images, which otherwise are made in the forward pass;
    one function for equal parameters, which is traced once."""
    return apart(ft.partial(_on_cpu, "kernel", **params))


def _primitive(name: str) -> Primitive:
    primitive = Primitive(f"jinv_convolution_{name}")
    evaluate = ft.partial(_evaluate, name=name)
    primitive.def_impl(
        jax.jit(evaluate, static_argnames=("stride", "shape", "kernel", "before", "out"))
    )
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=False))

    @primitive.def_abstract_eval
    def _(first, second, **params):
        like = jax.eval_shape(ft.partial(_PLAIN[name], **params), *map(_struct, (first, second)))
        return first.update(shape=like.shape, dtype=like.dtype)

    def batch(args, dims, **params):
        first, second = args
        if dims[1] is None and name != "kernel":
            first = jnp.moveaxis(first, dims[0], 0)
            found = primitive.bind(first.reshape(-1, *first.shape[2:]), second, **params)
            return found.reshape(*first.shape[:2], *found.shape[1:]), 0
        # Kernels that differ from image to image.
        product = _is_product(**params)
        fn = _PRODUCT[name] if product else ft.partial(_PLAIN[name], **params)
        return jax.vmap(fn, dims)(first, second), 0

    batching.primitive_batchers[primitive] = batch
    return primitive


def _struct(aval):
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


_forward_p, _input_p, _kernel_p = map(_primitive, ("forward", "input", "kernel"))

# Each primitive is linear in both arguments, and its transposes are the other two.
ad.defbilinear(
    _forward_p,
    lambda z, x, w, **params: _input_p.bind(z, w, **params),
    lambda z, x, w, **params: _kernel_p.bind(x, z, **params),
)
ad.defbilinear(
    _input_p,
    lambda x, z, w, **params: _forward_p.bind(x, w, **params),
    lambda x, z, w, **params: _kernel_p.bind(x, z, **params),
)
ad.defbilinear(
    _kernel_p,
    lambda w, x, z, **params: _input_p.bind(z, w, **params),
    lambda w, x, z, **params: _forward_p.bind(x, w, **params),
)
