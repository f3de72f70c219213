"""The Galerkin transformer: attention without softmax between the points of a grid."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._channels import (
    at_least_one,
    at_most_3d,
    coordinates,
    num_weights,
    with_channels,
    without_channels,
)
from ._mlp import MLP
from ._potential import in_dtype


class GalerkinAttention(eqx.Module):
    r"""$Q (\tilde K^T \tilde V) / n$ for each head, with layer norms of keys and values and the
    coordinates of the points beside all three, and an affine map of all heads."""

    weight: Float[Array, "3 channels heads size"]
    bias: Float[Array, "3 heads size"]
    # Of the layer norms, for keys and values.
    scale: Float[Array, "2 heads size"]
    shift: Float[Array, "2 heads size"]
    last: MLP

    def __init__(self, channels: int, heads: int, ndim: int, *, key: PRNGKeyArray):
        key, last = jax.random.split(key)
        size = channels // heads
        # Of Glorot, small, and close to a small multiple of the identity.
        bound = (3 / channels) ** 0.5
        draw = jax.random.uniform(key, (3, channels, channels), minval=-bound, maxval=bound)
        self.weight = (0.01 * draw + 0.01 * jnp.eye(channels)[None]).reshape(3, -1, heads, size)
        self.bias = jnp.zeros((3, heads, size))
        self.scale, self.shift = jnp.ones((2, heads, size)), jnp.zeros((2, heads, size))
        self.last = MLP([heads * (size + ndim), channels], key=last)

    def __call__(
        self, x: Float[Array, "n channels"], points: Float[Array, "n ndim"]
    ) -> Float[Array, "n channels"]:
        n, heads = len(x), self.bias.shape[1]
        found = jnp.einsum("nc,schd->snhd", x, self.weight) + self.bias[:, None]
        pair = found[1:] - jnp.mean(found[1:], -1, keepdims=True)
        pair = pair * jax.lax.rsqrt(jnp.mean(pair**2, -1, keepdims=True) + 1e-5)
        pair = pair * self.scale[:, None] + self.shift[:, None]
        points = jnp.broadcast_to(points[:, None], (n, heads, points.shape[1]))
        q, k, v = (jnp.concatenate([points, a], -1) for a in (found[0], *pair))
        products = jnp.einsum("nhd,nhe->hde", k, v) / n
        return self.last(jnp.einsum("nhd,hde->nhe", q, products).reshape(n, -1))


class GalerkinTransformer(eqx.Module):
    r"""A transformer whose attention has no softmax: layers

    $$y = x + \big(Q (\tilde K^T \tilde V) / n\big) W, \qquad x \leftarrow y + g(y)$$

    of the $n$ points, with $Q$, $K$ and $V$ linear in $x$, a layer norm in $\tilde K$ and
    $\tilde V$, the coordinates of the points concatenated to all three in every head, and a
    network $g$ at each point.

    Each entry of $\tilde K^T \tilde V / n$ approximates an integral over the domain, as in a
    Petrov-Galerkin projection, so that the same weights work on grids of any size. The cost is
    $O(n c^2)$ for $n$ points and $c$ channels: linear in the number of points.

    **Arguments:**

    - `in_channels`, `out_channels`: of the input and output.
    - `channels`, `num_layers`: of the layers.
    - `heads`: of the attention, a divisor of `channels`.
    - `ndim`: the number of axes of the grid, up to 3.
    - `hidden`: the width of $g$; twice `channels` if not given.
    - `projection`: the widths of the hidden layers of the network for the output at each point.
    - `key`: for the initial weights.

    **Attributes:**

    - `num_weights`: the number of trained numbers.

    **Returns:** when called with `u` of shape `(*grid, in_channels)`, an array of shape
    `(*grid, out_channels)`. A single channel has no axis in the output, and needs none in the
    input. Batches are `jax.vmap`.

    **Raises:** `ValueError` for sizes below 1, `ndim` other than 1 to 3, `heads` that do not
    divide `channels`, and inputs of another number of axes or channels.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> model = jinv.nn.GalerkinTransformer(1, 1, 16, 2, heads=2, key=jax.random.key(0))
        >>> model(jnp.ones((9, 12))).shape
        (9, 12)

        ```

    ??? cite "Source"
        Cao, Choose a transformer: Fourier or Galerkin, 2021, section 3. Deviations: GELU; no
        dropout; a network at each point for the output, in place of the convolutions before
        and the spectral layers after the attention that the paper uses in 2-D.
    """

    lifting: MLP
    attention: tuple[GalerkinAttention, ...]
    forward: tuple[MLP, ...]
    projection: MLP
    in_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 64,
        num_layers: int = 4,
        *,
        heads: int = 4,
        ndim: int = 2,
        hidden: int | None = None,
        projection: Sequence[int] = (128,),
        key: PRNGKeyArray,
    ):
        hidden = 2 * channels if hidden is None else hidden
        at_least_one(in_channels=in_channels, out_channels=out_channels, channels=channels)
        at_least_one(num_layers=num_layers, heads=heads, hidden=hidden, projection=projection)
        at_most_3d(ndim)
        if channels % heads:
            raise ValueError(f"`heads` must divide `channels` = {channels}, got {heads}")
        keys = jax.random.split(key, 2 * num_layers + 2)
        self.lifting = MLP([in_channels + ndim, channels], key=keys[0])
        self.projection = MLP([channels, *projection, out_channels], key=keys[1])
        self.attention = tuple(
            GalerkinAttention(channels, heads, ndim, key=key) for key in keys[2::2]
        )
        self.forward = tuple(MLP([channels, hidden, channels], key=key) for key in keys[3::2])
        self.in_channels, self.ndim = in_channels, ndim

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        self, v = in_dtype(self, u.dtype), with_channels(u, self.in_channels, self.ndim)
        points = coordinates(v.shape[:-1], v.dtype).reshape(-1, self.ndim)
        x = self.lifting(jnp.concatenate([v.reshape(len(points), -1), points], -1))
        for attention, forward in zip(self.attention, self.forward, strict=True):
            x = x + attention(x, points)
            x = x + forward(x)
        return without_channels(self.projection(x).reshape(*v.shape[:-1], -1))

    @property
    def num_weights(self) -> int:
        return num_weights(self)
