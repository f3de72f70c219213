"""Fully connected layers."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._branch import AbstractBranch
from ._channels import gelu, num_weights, on_channels
from ._convolution import pointwise
from ._potential import in_dtype


Smooth = Literal["tanh_sin", "silu_sin", "silu_id", "silu", "gelu", "tanh", "relu"]

_wave = lambda x: jnp.sin(math.pi * (x + 1))
SMOOTH: dict[str, Callable[[Array], Array]] = {
    "tanh_sin": lambda x: x + jnp.tanh(_wave(x)),
    "silu_sin": lambda x: x + jax.nn.silu(_wave(x)),
    "silu_id": lambda x: x + jax.nn.silu(x),
    "silu": jax.nn.silu,
    "gelu": gelu,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
}


class MLP(AbstractBranch):
    r"""Fully connected layers of any widths, on the last axis of the input.

    **Arguments:**

    - `widths`: of the input and of every layer.
    - `activation`: `"tanh_sin"` ($x + \tanh \sin(\pi (x + 1))$), `"silu_sin"` (the same with SiLU),
        `"silu_id"` ($x$ + SiLU), or one of JAX's: `"silu"`, `"gelu"`, `"tanh"`, `"relu"`.
    - `last`: whether the last layer has the activation too.
    - `key`: for the initial weights, uniform in $\pm 1/\sqrt n$ for $n$ inputs of a layer.

    **Attributes:**

    - `widths`: of the layers, without that of the input.
    - `num_weights`: the number of trained numbers.

    **Raises:** `ValueError` for fewer than two widths or one below 1, or an unknown activation.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> encoder = jinv.nn.MLP((841, 512, 256, 128), "silu", key=jax.random.key(0))
        >>> encoder(jnp.zeros(841)).shape, encoder.num_weights
        ((128,), 595328)

        ```
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    activation: Smooth = eqx.field(static=True)
    last: bool = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        activation: Smooth = "gelu",
        *,
        last: bool = False,
        key: PRNGKeyArray,
    ):
        widths = tuple(widths)
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"`widths` must be two or more positive numbers, got {widths}")
        if activation not in get_args(Smooth):
            raise ValueError(f"`activation` must be one of {get_args(Smooth)}, got {activation!r}")
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        keys = jax.random.split(key, 2 * len(pairs))
        uniform = lambda key, shape, n: jax.random.uniform(
            key, shape, minval=-(n**-0.5), maxval=n**-0.5
        )
        self.weights = tuple(
            uniform(k, pair, pair[0]) for k, pair in zip(keys[::2], pairs, strict=True)
        )
        self.biases = tuple(
            uniform(k, (m,), n) for k, (n, m) in zip(keys[1::2], pairs, strict=True)
        )
        self.activation, self.last = activation, last

    def __call__(self, x: Float[Array, "... n"]) -> Float[Array, "... m"]:
        return self.all_layers(x)[-1]

    def all_layers(self, x: Float[Array, "... n"]) -> list[Float[Array, "..."]]:
        """What each layer returns."""
        self, found = in_dtype(self, x.dtype), []
        if x.shape[-1] != len(self.weights[0]):
            raise ValueError(
                f"`x` must have {len(self.weights[0])} entries along its last axis, got {x.shape}"
            )
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = pointwise(x, weight)
            x = x + on_channels(bias, x)
            if self.last or index < len(self.weights) - 1:
                x = SMOOTH[self.activation](x)
            found.append(x)
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(weight.shape[1] for weight in self.weights)

    @property
    def num_weights(self) -> int:
        return num_weights(self)
