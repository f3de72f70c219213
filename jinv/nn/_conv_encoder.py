"""Values on a grid as a vector: convolutions, then fully connected layers."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._branch import AbstractBranch
from ._channels import at_least_one, num_weights, with_channels
from ._mlp import MLP, SMOOTH, Smooth
from ._multigrid import Kernel, Maker
from ._potential import in_dtype


def _convolved(grid, kernel, stride):
    """The grid after a convolution without values around it."""
    return tuple((n - kernel) // stride + 1 for n in grid)


class ConvEncoder(AbstractBranch):
    r"""A feature vector of values on a grid: convolutions with a stride, without values around the
    grid, each with the activation, and then fully connected layers.

    It is the encoder of [`jinv.nn.MultiONet`][] for inputs with jumps, such as media of two phases:
    the same stencils look everywhere, where fully connected layers have a weight for every pair
    of a point and a feature. It knows one grid only. A convolution costs $O(m k^d c c')$ for $m$
    points of its output.

    **Arguments:**

    - `grid`: its shape, of 1 to 3 axes.
    - `channels`: of the input and of every convolution.
    - `widths`: of the fully connected layers, the last one that of the vector.
    - `kernel`, `stride`: of all convolutions: $n$ points become $\lfloor (n - k) / s \rfloor + 1$.
    - `activation`: see [`jinv.nn.MLP`][].
    - `last`: whether the last layer has the activation too.
    - `key`: for the initial weights, uniform in $\pm 1/\sqrt n$ for $n$ inputs of a number.

    **Attributes:**

    - `widths`: of the fully connected layers; `all_layers` gives what each of them returns.
    - `num_weights`: the number of trained numbers.

    **Returns:** when called with `u` of shape `(*grid, channels)`, a vector. A single channel needs
    no axis. Batches are `jax.vmap`.

    **Raises:** `ValueError` for a `grid` that is too small or has more than 3 axes, sizes below 1,
    no `widths`, an unknown activation, and inputs of another grid or other channels.

    !!! example
        The published encoder for two-phase Darcy flow:
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> sizes = (29, 29), (1, 64, 64, 64), (128, 128, 128)
        >>> encoder = jinv.nn.ConvEncoder(*sizes, key=jax.random.key(0))
        >>> encoder(jnp.ones((29, 29))).shape, encoder.num_weights
        ((128,), 140416)

        ```

    ??? cite "Source"
        The code of Zang, Koutsourelakis, DGenNO, 2025. Deviation: channels last, so that the vector
        between the two parts is in another order.
    """

    convolutions: tuple[Kernel, ...]
    dense: MLP
    grid: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Sequence[int],
        channels: Sequence[int],
        widths: Sequence[int],
        *,
        kernel: int = 3,
        stride: int = 2,
        activation: Smooth = "relu",
        last: bool = False,
        key: PRNGKeyArray,
    ):
        self.grid, channels, widths = tuple(grid), tuple(channels), tuple(widths)
        at_least_one(channels=channels, widths=widths, kernel=kernel, stride=stride)
        if len(self.grid) not in (1, 2, 3):
            raise ValueError(f"`grid` must have 1, 2 or 3 axes, got {grid}")
        if len(channels) < 2 or not widths:
            raise ValueError(
                "`channels` must be those of the input and of one or more convolutions, and "
                f"`widths` one or more, got {channels} and {widths}"
            )
        left = self.grid
        for _ in channels[1:]:
            left = _convolved(left, kernel, stride)
        if min(left) < 1:
            raise ValueError(
                f"`grid` must leave points after {len(channels) - 1} convolutions of {kernel} "
                f"points with stride {stride}, got {grid}"
            )
        first, second = jax.random.split(key)
        make, size = Maker(len(self.grid), first), channels[-1] * math.prod(left)
        self.convolutions = tuple(
            make.kernel("", kernel, before, after, bias=True)
            for before, after in zip(channels[:-1], channels[1:], strict=True)
        )
        self.dense = MLP((size, *widths), activation, last=last, key=second)
        self.in_channels, self.stride = channels[0], stride

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, " m"]:
        return self.all_layers(u)[-1]

    def all_layers(self, u: Float[Array, "..."]) -> list[Float[Array, " _"]]:
        self, x = in_dtype(self, u.dtype), with_channels(u, self.in_channels, len(self.grid))
        if x.shape[:-1] != self.grid:
            raise ValueError(f"`u` must be on the grid {self.grid}, got the shape {u.shape}")
        for convolution in self.convolutions:
            left = _convolved(x.shape[:-1], convolution.weight.shape[0], self.stride)
            x = convolution(x, "zero", stride=self.stride, before=0, out=left)
            x = SMOOTH[self.dense.activation](x)
        return self.dense.all_layers(x.reshape(-1))

    @property
    def widths(self) -> tuple[int, ...]:
        return self.dense.widths

    @property
    def num_weights(self) -> int:
        return num_weights(self)
