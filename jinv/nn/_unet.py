"""The U-Net: convolutions at several resolutions."""

import jax
import jax.numpy as jnp
from equinox import Module, field
from jaxtyping import Array, Float, PRNGKeyArray

from ._channels import (
    at_least_one,
    at_most_3d,
    gelu,
    num_weights,
    on_channels,
    with_channels,
    without_channels,
)
from ._convolution import convolve
from ._mlp import MLP
from ._potential import in_dtype


def _convolve(x, kernel, stride):
    """With zeros around the grid, as many points as there are strides in it."""
    if x.ndim == 3:
        return convolve(x, kernel, stride)
    grid = x.shape[:-1]
    pads = [(1, stride * (-(-n // stride) - 1) + 2 - n) for n in grid]
    letters = "XYZ"[: len(grid)]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride,) * len(grid), pads, dimension_numbers=layout
    )[0]


class _Layer(Module):
    """A convolution, the normalisation of groups of channels and GELU."""

    kernel: Float[Array, "*threes channels out"]
    scale: Float[Array, " out"]
    shift: Float[Array, " out"]
    groups: int = field(static=True)
    stride: int = field(static=True)

    def __init__(self, channels, out, groups, ndim, *, stride=1, key):
        shape = (*(3,) * ndim, channels, out)
        self.kernel = (2 / (3**ndim * channels)) ** 0.5 * jax.random.normal(key, shape)
        self.scale, self.shift = jnp.ones(out), jnp.zeros(out)
        self.groups, self.stride = groups, stride

    def __call__(self, x):
        x = _convolve(x, self.kernel, self.stride)
        parts = x.reshape(-1, self.groups, x.shape[-1] // self.groups)
        parts = parts - jnp.mean(parts, (0, 2), keepdims=True)
        parts = parts * jax.lax.rsqrt(jnp.mean(parts**2, (0, 2), keepdims=True) + 1e-5)
        x = parts.reshape(x.shape)
        return gelu(x * on_channels(self.scale, x) + on_channels(self.shift, x))


def _refine(x, pointwise, grid):
    """A transposed convolution with stride 2 and kernels of 2 points along each axis."""
    ndim = len(grid)
    y = pointwise(x)
    y = y.reshape(*x.shape[:-1], *(2,) * ndim, -1)
    y = y.transpose(*(axis for i in range(ndim) for axis in (i, ndim + i)), 2 * ndim)
    y = y.reshape(*(2 * n for n in x.shape[:-1]), -1)
    return y[tuple(slice(n) for n in grid)]


class UNet(Module):
    r"""A convolutional network that halves the resolution `num_levels` times and doubles the
    channels each time, and on the way back joins what it had at each resolution.

    Convolutions have 3 points along each axis and zeros around the grid; each is followed by the
    normalisation of groups of channels (GroupNorm) and GELU. The baseline for regular grids of
    any size: $n$ points become $\lceil n/2 \rceil$, and what is too much on the way back is
    cut. It is tied to the distance of the points: on a finer grid it is another operator. The
    cost is $O(n c^2)$ for $n$ points and $c$ channels, in 2-D about as much at each level.

    **Arguments:**

    - `in_channels`, `out_channels`: of the input and output.
    - `channels`: at the resolution of the input.
    - `num_levels`: how often the resolution is halved.
    - `ndim`: the number of axes of the grid, up to 3.
    - `groups`: of channels that are normalised together, a divisor of `channels`.
    - `key`: for the initial weights.

    **Attributes:**

    - `num_weights`: the number of trained numbers.

    **Returns:** when called with `u` of shape `(*grid, in_channels)`, an array of shape
    `(*grid, out_channels)`. A single channel has no axis in the output, and needs none in the
    input. Batches are `jax.vmap`.

    **Raises:** `ValueError` for sizes below 1, `ndim` other than 1 to 3, `groups` that do not
    divide `channels`, and inputs of another number of axes or channels.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> unet = jinv.nn.UNet(1, 2, 8, 2, groups=4, key=jax.random.key(0))
        >>> unet(jnp.ones((13, 10))).shape
        (13, 10, 2)

        ```

    ??? cite "Source"
        Ronneberger, Fischer, Brox, U-Net: convolutional networks for biomedical image
        segmentation, 2015. Deviations: zeros around the grid, so that it keeps its size;
        convolutions with stride 2 for the pooling; GELU; the group normalisation of Wu and He,
        2018.
    """

    first: tuple[_Layer, _Layer]
    down: tuple[tuple[_Layer, _Layer], ...]
    finer: tuple[MLP, ...]
    up: tuple[tuple[_Layer, _Layer], ...]
    last: MLP
    in_channels: int = field(static=True)
    ndim: int = field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 32,
        num_levels: int = 3,
        *,
        ndim: int = 2,
        groups: int = 8,
        key: PRNGKeyArray,
    ):
        at_least_one(in_channels=in_channels, out_channels=out_channels, channels=channels)
        at_least_one(num_levels=num_levels, groups=groups)
        at_most_3d(ndim)
        if channels % groups:
            raise ValueError(f"`groups` must divide `channels` = {channels}, got {groups}")
        keys = iter(jax.random.split(key, 5 * num_levels + 3))
        layer = lambda size, out, stride=1: _Layer(
            size, out, groups, ndim, stride=stride, key=next(keys)
        )
        sizes = [channels * 2**level for level in range(num_levels + 1)]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.first = layer(in_channels, channels), layer(channels, channels)
        self.down = tuple((layer(fine, coarse, 2), layer(coarse, coarse)) for fine, coarse in pairs)
        self.finer = tuple(MLP([coarse, 2**ndim * fine], key=next(keys)) for fine, coarse in pairs)
        self.up = tuple((layer(2 * fine, fine), layer(fine, fine)) for fine, _ in pairs)
        self.last = MLP([channels, out_channels], key=next(keys))
        self.in_channels, self.ndim = in_channels, ndim

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        self, v = in_dtype(self, u.dtype), with_channels(u, self.in_channels, self.ndim)
        found = []
        for one, two in (self.first, *self.down):
            v = two(one(v))
            found.append(v)
        for level in reversed(range(len(self.up))):
            before, (one, two) = found[level], self.up[level]
            v = _refine(v, self.finer[level], before.shape[:-1])
            v = two(one(jnp.concatenate([before, v], -1)))
        return without_channels(self.last(v))

    @property
    def num_weights(self) -> int:
        return num_weights(self)
