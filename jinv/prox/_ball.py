"""The Euclidean ball and sphere."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import indicator, inner, like, like_data, norm, parameter, slack, spread, times


class L2Ball(AbstractFunctional):
    r"""The indicator of the ball $\{\|x - c\|_2 \le r\}$ of the whole PyTree.

    With $c = y$ and $r$ the noise norm it is the constraint $\|x - y\| \le \sigma\sqrt n$ of
    basis pursuit denoising. Inside means: up to $\sqrt\varepsilon\max(1, r, |c|)$.

    **Arguments:**

    - `radius`: $r \ge 0$, a scalar.
    - `centre`: $c$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.L2Ball(5.0).prox(jnp.array([6.0, 8.0]), 1.0)
        Array([3., 4.], dtype=float32)

        ```
    """

    radius: Real[Array, ""]
    centre: PyTree[Array]

    def __init__(self, radius: Real[ArrayLike, ""] = 1.0, centre: PyTree[ArrayLike] = 0.0):
        self.radius = parameter("radius", radius, least=0.0)
        self.centre = parameter("centre", centre)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        size = norm(_shifted(x, self.centre))
        r = like(self.radius, size)
        return indicator(size <= r + slack(size, r, *jax.tree.leaves(self.centre)), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        moved = _shifted(v, self.centre)
        size = norm(moved)
        r = like(self.radius, size)
        out = size > r
        factor = jnp.where(out, r / jnp.where(out, size, 1), 1)
        # Points inside come back unchanged to the last bit.
        return jax.tree.map(
            lambda x, d: jnp.where(out, x + times(d, like(factor, x) - 1), x), v, moved
        )

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""The support function $r\|z\| + \langle c, z\rangle$."""
        size = norm(z)
        return like(self.radius, size) * size + inner(self.centre, z)


class L2Sphere(AbstractFunctional):
    r"""The indicator of the sphere $\{\|x - c\|_2 = r\}$ (not convex).

    The projection moves `v` radially. At the centre, where every point of the sphere is equally
    near, it goes along $(1, \dots, 1)$, so that the result is always feasible and never NaN.

    **Arguments:**

    - `radius`: $r > 0$, a scalar.
    - `centre`: $c$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.L2Sphere(1.0).prox(jnp.array([0.0, 0.5]), 1.0)
        Array([0., 1.], dtype=float32)

        ```
    """

    radius: Real[Array, ""]
    centre: PyTree[Array]

    def __init__(self, radius: Real[ArrayLike, ""] = 1.0, centre: PyTree[ArrayLike] = 0.0):
        self.radius = parameter("radius", radius, above=0.0)
        self.centre = parameter("centre", centre)

    def weak_convexity(self):
        return jnp.inf

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        size = norm(_shifted(x, self.centre))
        r = like(self.radius, size)
        return indicator(jnp.abs(size - r) <= slack(size, r, *jax.tree.leaves(self.centre)), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        moved = _shifted(v, self.centre)
        at_centre = norm(moved) == 0
        moved = jax.tree.map(lambda d: jnp.where(at_centre, jnp.ones_like(d), d), moved)
        size = norm(moved)
        factor = like(self.radius, size) / size
        return jax.tree.map(
            lambda c, d: like_data(c, d) + times(d, like(factor, d)), spread(self.centre, v), moved
        )


def _shifted(x, centre):
    return jax.tree.map(lambda u, c: u - like_data(c, u), x, spread(centre, x))
