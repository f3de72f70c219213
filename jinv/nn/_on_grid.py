"""An operator of sensors and points as one between functions on a grid."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from ._channels import num_weights


class OnGrid(eqx.Module):
    r"""An operator of sensors and points, such as a [`jinv.nn.MultiONet`][], as one between
    functions on a grid: on any grid of the unit cube whose first and last nodes are on the
    boundary.

    **Arguments:**

    - `operator`: `operator(values, points)`, the values at the sensors in their shape, and points
        of the unit cube in the last axis.
    - `sensors`: how many sensors there are along each axis: equidistant, the first and last ones
        on the boundary. Values between nodes are interpolated linearly.

    **Raises:** `ValueError` for fewer than two sensors along an axis, and for values on a grid of
    another dimension.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> model = jinv.nn.MultiONet([81, 20, 20], [2, 20, 20], key=jax.random.key(0))
        >>> on_grid = jinv.nn.OnGrid(model, (9, 9))
        >>> on_grid(jnp.ones((33, 33))).shape, on_grid(jnp.ones((20, 30))).shape
        ((33, 33), (20, 30))

        ```
    """

    operator: Callable[[Array, Array], Array]
    sensors: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, operator: Callable[[Array, Array], Array], sensors: Sequence[int]):
        if min(sensors, default=0) < 2:
            raise ValueError(f"`sensors` must be at least 2 along each axis, got {sensors}")
        self.operator, self.sensors = operator, tuple(sensors)

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The values at the nodes for those of `u` at the nodes."""
        if u.ndim != len(self.sensors):
            raise ValueError(f"`u` must have {len(self.sensors)} axes, got shape {u.shape}")
        places = [
            jnp.linspace(0, n - 1, count, dtype=u.dtype)
            for n, count in zip(u.shape, self.sensors, strict=True)
        ]
        values = map_coordinates(u, jnp.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
        nodes = [jnp.linspace(0, 1, n, dtype=u.dtype) for n in u.shape]
        return self.operator(values, jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), -1))

    @property
    def num_weights(self) -> int:
        return num_weights(self)
