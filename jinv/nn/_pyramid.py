"""A potential of several scales, from potentials on small patches."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._potential import AbstractConvexPotential
from ._tiled import Tiling


class Pyramid(AbstractConvexPotential):
    r"""The potential $\Psi_0$ of images of any size with

    $$\Psi_l(y) = \tfrac1c \sum_i \psi_l(P_i y) + (1 - \alpha)\, \Psi_{l+1}(M y), \quad
    \Psi_L(y) = \tfrac12 \|y\|^2,$$

    where $P_i y$ are the patches of [`jinv.nn.Tiling`][] and $M y$ is the image of their means,
    smaller by the stride and scaled such that $\|M y\|^2$ is the share of the means in $\|y\|^2$.
    Potentials of patches have to treat what differs from the mean, the next level treats the
    means: noise of low frequency is removed there, which patches of a level alone cannot see, at
    a third more work for strides of two.

    **Arguments:**

    - `levels`: the $\psi_l$, from fine to coarse, for patches of one shape: of
        [`jinv.nn.dense_icnn`][] with `quadratic=True, mean=False` and one strong convexity.
    - `stride`: of the patches, a divisor of their sides.
    - `chunk`: how many patches to evaluate at a time.

    **Raises:** `ValueError` for no levels, or levels that differ in shape or strong convexity.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> options = {"quadratic": True, "mean": False}
        >>> keys = jax.random.split(jax.random.key(0))
        >>> levels = [jinv.nn.dense_icnn((4, 4), (8,), key=key, **options) for key in keys]
        >>> jinv.nn.Pyramid(levels, stride=2).gradient(jnp.zeros((9, 6))).shape
        (9, 6)

        ```
    """

    levels: tuple[AbstractConvexPotential, ...]
    tiling: Tiling
    chunk: int | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    strong_convexity: float = eqx.field(static=True)

    def __init__(
        self,
        levels: Sequence[AbstractConvexPotential],
        stride: int,
        chunk: int | None = None,
    ):
        self.levels, self.chunk = tuple(levels), chunk
        kinds = {(level.shape, level.strong_convexity) for level in levels}
        if len(kinds) != 1:
            raise ValueError(f"`levels` must have one shape and strong convexity, got {kinds}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, got {chunk}")
        ((self.shape, self.strong_convexity),) = kinds
        height, width = self.shape
        self.tiling = Tiling((height, width), stride)

    def _means(self, patches, shape):
        height, width = self.tiling.patch
        scale = (height * width / self.tiling.cover) ** 0.5
        return scale * jnp.mean(patches, (1, 2)).reshape(self.tiling.grid(shape))

    def _over_patches(self, fn, patches):
        if self.chunk is None:
            return jax.vmap(fn)(patches)
        return jax.lax.map(fn, patches, batch_size=self.chunk)

    def __call__(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        return self.value_and_gradient(y)[0]

    def recession(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        total, weight = jnp.zeros((), direction.dtype), 1.0
        for level in self.levels:
            patches = self.tiling.patches(direction)
            total = total + weight * jnp.sum(self._over_patches(level.recession, patches))
            direction = self._means(patches, direction.shape)
            weight = weight * (1 - self.strong_convexity)
        return jnp.where(jnp.any(direction != 0), jnp.inf, total / self.tiling.cover)

    def value_and_gradient(self, y):
        if y.ndim != 2:
            raise ValueError(f"`y` must be an image with two axes, got shape {y.shape}")
        return self._from_level(y, 0)

    def _from_level(self, y, index):
        if index == len(self.levels):
            return 0.5 * jnp.sum(y * y), y
        patches = self.tiling.patches(y)
        values, slopes = self._over_patches(self.levels[index].value_and_gradient, patches)
        coarse, back = jax.vjp(lambda patches: self._means(patches, y.shape), patches)
        value, slope = self._from_level(coarse, index + 1)
        rest, cover = 1 - self.strong_convexity, self.tiling.cover
        (means,) = back(rest * cover * slope)
        return jnp.sum(values) / cover + rest * value, self.tiling.mean(slopes + means, y.shape)

    def gradient(self, y):
        return self.value_and_gradient(y)[1]
