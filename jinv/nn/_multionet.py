"""Operators as sums of products of two networks: DeepONet and MultiONet."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._branch import AbstractBranch
from ._channels import num_weights
from ._mlp import MLP, Smooth
from ._potential import in_dtype


Weighting = Literal["per_layer", "global", "none"]


class MultiONet(eqx.Module):
    r"""The multi-layer deep operator network: at a point $x$, for a function $u$ given by its
    values at fixed sensors (or by any vector),

    $$G(u)(x) = \frac1l \sum_{k=1}^l \big(w_k \langle b^{(k)}(u), t^{(k)}(x)\rangle + c_k\big)$$

    over the last $l$ layers of the branch network $b$ and of the trunk network $t$. A DeepONet has
    only the last pair. If one network is deeper, its first layers have no partner.

    **Arguments:**

    - `branch`, `trunk`: the widths of the networks, inputs included. The layers that are paired
        must have equal widths. All layers have the activation, the last ones too. In place of
        the widths, `branch` may be a network with a feature vector from each layer, a
        [`jinv.nn.AbstractBranch`][]: it gets $u$ as it is, such as on a grid.
    - `encoder`: what makes of $u$ the vector that goes into the branch, such as a
        [`jinv.nn.ConvEncoder`][] for values on a grid.
    - `sum_layers`: $l$; by default all layers but the first of the shallower network.
    - `weighting`: `"global"` (published 2025: $w_k$, which are 0 at first, and one $c$),
        `"per_layer"` (before: $w_k$, 1 at first, and all $c_k$) or `"none"` ($w_k = 1$, $c_k = 0$).
    - `initial`: of the $w_k$, in place of those values: with 0 only $w$ and $c$ learn at first.
    - `out_channels`: several outputs: the branch network takes one entry of the input vector at a
        time (its first width is 1), which gives as many values as there are entries
        (`in_size`), and a linear map takes these to the outputs. Its `weighting` must be `"none"`.
    - `in_size`: the size of the input vector then; otherwise the branch's first width.
    - `branch_activation`, `trunk_activation`: see [`jinv.nn.MLP`][]; the first is that of a
        `branch` of given widths.
    - `key`: for the initial weights.

    **Raises:** `ValueError` for widths that do not fit, a `sum_layers` that is not between 1 and
    the number of layers less one (of a single layer: 1), or a `weighting` or a `branch` that
    does not go with several outputs.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> widths = [100] * 6
        >>> model = jinv.nn.MultiONet([128, *widths], [2, *widths], key=jax.random.key(0))
        >>> points = jnp.zeros((29, 29, 2))
        >>> model(jnp.ones(128), points).shape, model.num_weights
        ((29, 29), 114206)

        ```
        The published network for two-phase media, with values on a grid as input:
        ```python
        >>> sizes, keys = [128] * 4, jax.random.split(jax.random.key(0))
        >>> options = {"kernel": 5, "key": keys[0]}
        >>> encoder = jinv.nn.ConvEncoder((29, 29), (1, 64, 128), (128,), **options)
        >>> options = {"weighting": "per_layer", "encoder": encoder, "key": keys[1]}
        >>> options |= {"branch_activation": "relu", "trunk_activation": "relu"}
        >>> model = jinv.nn.MultiONet([128, *sizes], [2, *sizes], **options)
        >>> model(jnp.ones((29, 29)), points).shape, model.num_weights
        ((29, 29), 732294)

        ```

    ??? cite "Source"
        Zang, Koutsourelakis, DGenNO: a novel physics-aware neural operator for solving forward and
        inverse PDE problems based on deep, generative probabilistic modeling, 2025, and its code;
        Lu, Jin, Pang, Zhang, Karniadakis, Learning nonlinear operators via DeepONet, 2021.
    """

    branch: AbstractBranch
    trunk: MLP
    encoder: Callable[[Array], Array] | None
    weights: Float[Array, " l"] | None
    biases: Float[Array, " _"] | None
    mix: MLP | None
    sum_layers: int = eqx.field(static=True)

    def __init__(
        self,
        branch: Sequence[int] | AbstractBranch,
        trunk: Sequence[int],
        *,
        encoder: Callable[[Array], Array] | None = None,
        sum_layers: int | None = None,
        weighting: Weighting = "global",
        initial: float | None = None,
        out_channels: int = 1,
        in_size: int | None = None,
        branch_activation: Smooth = "tanh_sin",
        trunk_activation: Smooth = "tanh_sin",
        key: PRNGKeyArray,
    ):
        keys, self.encoder = jax.random.split(key, 3), encoder
        if not isinstance(branch, AbstractBranch):
            branch = MLP(branch, branch_activation, last=True, key=keys[0])
        self.branch = branch
        self.trunk = MLP(trunk, trunk_activation, last=True, key=keys[1])
        ours, theirs = tuple(branch.widths), self.trunk.widths
        most = max(min(len(ours), len(theirs)) - 1, 1)
        self.sum_layers = most if sum_layers is None else sum_layers
        if not 1 <= self.sum_layers <= most:
            raise ValueError(
                f"`sum_layers` must be from 1 to {most} for these widths, got {sum_layers}"
            )
        if ours[-self.sum_layers :] != theirs[-self.sum_layers :]:
            raise ValueError(
                f"the last {self.sum_layers} widths of `branch` and `trunk` must agree, "
                f"got {ours} and {theirs}"
            )
        if weighting not in get_args(Weighting):
            raise ValueError(f"`weighting` must be one of {get_args(Weighting)}, got {weighting!r}")
        self.weights = self.biases = self.mix = None
        if weighting != "none":
            start = float(weighting == "per_layer") if initial is None else initial
            self.weights = jnp.full(self.sum_layers, start)
            self.biases = jnp.zeros(self.sum_layers if weighting == "per_layer" else 1)
        elif initial is not None:
            raise ValueError("`initial` must be None if `weighting` is 'none'")
        if in_size is not None or out_channels != 1:
            single = isinstance(branch, MLP) and len(branch.weights[0]) == 1
            if weighting != "none" or not single or in_size is None:
                raise ValueError(
                    "`out_channels` other than 1 must go with `weighting='none'`, an `in_size` "
                    "and a `branch` whose first width is 1"
                )
            self.mix = MLP((in_size, out_channels), key=keys[2])

    def __call__(
        self, u: Float[Array, "..."], points: Float[Array, "... dim"]
    ) -> Float[Array, "..."]:
        """The values at `points` for the entries of `u`, in any shape; several ones last."""
        self, u = in_dtype(self, points.dtype), u.astype(points.dtype)
        u = u if self.encoder is None else self.encoder(u)
        u = u.reshape(-1) if isinstance(self.branch, MLP) else u
        branch = self.branch.all_layers(u if self.mix is None else u[:, None])
        trunk = self.trunk.all_layers(points)
        products = [
            t @ jnp.moveaxis(b, -1, 0)
            for t, b in zip(trunk[-self.sum_layers :], branch[-self.sum_layers :], strict=True)
        ]
        if self.weights is None:
            found = sum(products[1:], products[0]) / self.sum_layers
            return found if self.mix is None else self.mix(found)
        weighted = [w * product for w, product in zip(self.weights, products, strict=True)]
        return (sum(weighted[1:], weighted[0]) / self.sum_layers) + jnp.mean(self.biases)

    @property
    def num_weights(self) -> int:
        return num_weights(self)


def deeponet(
    branch: Sequence[int] | AbstractBranch,
    trunk: Sequence[int],
    *,
    encoder: Callable[[Array], Array] | None = None,
    branch_activation: Smooth = "tanh_sin",
    trunk_activation: Smooth = "tanh_sin",
    key: PRNGKeyArray,
) -> MultiONet:
    r"""A deep operator network, $G(u)(x) = w \langle b(u), t(x) \rangle + c$: the
    [`jinv.nn.MultiONet`][] of the last layers alone, with $w = 1$ at first. All layers have the
    activation.

    **Arguments**, **Raises:** as for `MultiONet`.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> model = jinv.nn.deeponet([128, 64, 64], [1, 64, 64], key=jax.random.key(0))
        >>> model(jnp.ones(128), jnp.zeros((50, 1))).shape
        (50,)

        ```
    """
    return MultiONet(
        branch,
        trunk,
        encoder=encoder,
        sum_layers=1,
        weighting="per_layer",
        branch_activation=branch_activation,
        trunk_activation=trunk_activation,
        key=key,
    )
