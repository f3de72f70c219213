"""A potential on small patches, made one on images of any size."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._potential import AbstractConvexPotential


class Tiling(eqx.Module):
    r"""The patches of an image, `stride` apart, such that every pixel is in equally many.

    The image is continued by zeros: by `patch - stride` pixels on every side, after its size was
    rounded up to a multiple of `stride`. Then $\sum_i P_i^* P_i = c I$ with
    $c = (\mathtt{patch}/\mathtt{stride})^2$, so that means of what is done on patches keep
    gradients gradients, firmly non-expansive maps firmly non-expansive, and so on; without the
    border they do not.

    **Arguments:**

    - `patch`: height and width of a patch in pixels.
    - `stride`: a divisor of both.

    **Raises:** `ValueError` if it is not one.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> tiling = jinv.nn.Tiling((4, 4), 2)
        >>> image = jnp.ones((5, 7))
        >>> tiling.patches(image).shape
        (20, 4, 4)
        >>> mean = tiling.mean(tiling.patches(image), image.shape)
        >>> bool(jnp.all(mean == image))
        True

        ```
    """

    patch: tuple[int, int] = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __check_init__(self):
        if self.stride < 1 or any(n % self.stride for n in self.patch):
            raise ValueError(f"`stride` must divide the patch {self.patch}, got {self.stride}")

    @property
    def cover(self) -> int:
        """$c$, the number of patches that a pixel is in."""
        return math.prod(n // self.stride for n in self.patch)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """How many patches there are below each other and beside each other."""
        s = self.stride
        pairs = zip(self.patch, shape[:2], strict=True)
        down, across = ((n - s + size + -size % s) // s for n, size in pairs)
        return down, across

    def patches(self, image: Float[Array, "H W *channels"]) -> Float[Array, "n h w *channels"]:
        """All patches, row by row."""
        s, (h, w) = self.stride, self.patch
        down, across = self.grid(image.shape)
        sides = zip(self.patch, image.shape[:2], strict=True)
        border = [(n - s, n - s + -size % s) for n, size in sides]
        image = jnp.pad(image, (*border, *((0, 0),) * (image.ndim - 2)))
        rows, columns = (size // s for size in image.shape[:2])
        blocks = image.reshape(rows, s, columns, s, *image.shape[2:])
        # A patch is a few neighbouring blocks.
        parts = [
            jnp.stack([blocks[i : i + down, :, j : j + across] for j in range(w // s)], 3)
            for i in range(h // s)
        ]
        found = jnp.stack(parts, 1)  # down, block, row, across, block, column
        found = jnp.moveaxis(found, 3, 1)
        return found.reshape(down * across, h, w, *image.shape[2:])

    def mean(
        self, patches: Float[Array, "n h w *channels"], shape: tuple[int, ...]
    ) -> Float[Array, "..."]:
        r"""The mean $\frac1c \sum_i P_i^* p_i$, an image of the given shape."""
        like = jax.ShapeDtypeStruct(shape, patches.dtype)
        return jax.linear_transpose(self.patches, like)(patches / self.cover)[0]


class Tiled(AbstractConvexPotential):
    r"""The potential $\Psi(y) = \frac1c \sum_i \psi(P_i y)$ on images of any size, from one on
    patches: its gradient averages those on patches, with equal weights for every pixel.

    With `stride=1` and a small [`jinv.nn.dense_icnn`][] this is a convolutional network whose
    work is all in matrix products; larger strides suit larger patches. The zeros around the
    image are seen by the network, so train it with them: on crops that are tiled like whole
    images. Memory is that of all patches at once, unless `chunk` is given.

    **Arguments:**

    - `potential`: $\psi$, on patches of shape `(h, w)` or `(h, w, channels)`.
    - `stride`: of the patches, a divisor of `h` and `w`.
    - `chunk`: how many patches to evaluate at a time.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> patch = jinv.nn.dense_icnn((4, 4), (8,), quadratic=True, key=jax.random.key(0))
        >>> jinv.nn.Tiled(patch, stride=2).gradient(jnp.zeros((9, 6))).shape
        (9, 6)

        ```

    ??? cite "Source"
        The border of zeros as in the code of Hertrich et al., Learning regularization
        functionals for inverse problems: a comparative study, 2025. Without it, as in the code
        of the learned proximal networks, the average is not a gradient.
    """

    potential: AbstractConvexPotential
    tiling: Tiling
    chunk: int | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    strong_convexity: float = eqx.field(static=True)

    def __init__(self, potential: AbstractConvexPotential, stride: int, chunk: int | None = None):
        if chunk is not None and chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, got {chunk}")
        height, width, *_ = potential.shape
        self.potential, self.chunk = potential, chunk
        self.tiling = Tiling((height, width), stride)
        self.shape, self.strong_convexity = potential.shape, potential.strong_convexity

    def _over_patches(self, fn, image):
        if image.ndim != len(self.shape) or image.shape[2:] != self.shape[2:]:
            raise ValueError(
                f"`y` must be an image with the axes of the patches {self.shape}, got {image.shape}"
            )
        patches = self.tiling.patches(image)
        if self.chunk is None:
            return jax.vmap(fn)(patches)
        return jax.lax.map(fn, patches, batch_size=self.chunk)

    def __call__(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.sum(self._over_patches(self.potential, y)) / self.tiling.cover

    def recession(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.sum(self._over_patches(self.potential.recession, direction)) / self.tiling.cover

    def value_and_gradient(self, y):
        values, gradients = self._over_patches(self.potential.value_and_gradient, y)
        return jnp.sum(values) / self.tiling.cover, self.tiling.mean(gradients, y.shape)

    def gradient(self, y):
        return self.value_and_gradient(y)[1]
