"""The intersection of a box and a hyperplane."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Real

from jinv._functional import AbstractFunctional

from ._util import indicator, like, parameter, slack


class BoxSection(AbstractFunctional):
    r"""The indicator of $\{x : l \le x \le u,\ \langle a, x\rangle = b\}$, a slice of a box.

    The projection is $\mathrm{clip}(v - \theta a, l, u)$, with $\theta$ the root of a monotone,
    piecewise linear function: its $2n$ kinks are sorted, the piece with the root is found by
    bisection over them, and the root of that piece is exact. Cost: one sort and
    $\log_2 2n$ passes. Where the set is empty the result is the point of the box nearest to the
    hyperplane, and its value is infinite. The capped simplex is `BoxSection(0, 1, 1, k)`.

    **Arguments:**

    - `lower`, `upper`: bounds, scalars or arrays like `x`; infinite ones are allowed.
    - `a`: the normal, a scalar or an array like `x`, of any sign.
    - `b`: a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> x = jinv.prox.BoxSection(0.0, 1.0, 1.0, 2.0).prox(jnp.array([3.0, 0.5, 0.3]), 1.0)
        >>> [round(float(value), 3) for value in x]
        [1.0, 0.6, 0.4]

        ```
    """

    lower: Array
    upper: Array
    a: Array
    b: Real[Array, ""]

    def __init__(self, lower: ArrayLike, upper: ArrayLike, a: ArrayLike, b: Real[ArrayLike, ""]):
        self.lower = parameter("lower", lower)
        self.upper = parameter("upper", upper)
        self.a = parameter("a", a)
        self.b = parameter("b", b)

    def __call__(self, x: Real[Array, "..."]) -> Real[Array, ""]:
        low, up, a, b = self._bounds(x)
        tol = slack(x, b, a)
        inside = jnp.all((x >= low - slack(x, low)) & (x <= up + slack(x, up)))
        return indicator(inside & (jnp.abs(jnp.sum(a * x) - b) <= tol), x)

    def prox(self, v: Real[Array, "..."], step_size: Real[ArrayLike, ""]) -> Array:
        low, up, a, b = self._bounds(v)
        free, middle = lax.stop_gradient(_active(*lax.stop_gradient((v, low, up, a, b))))
        fixed = jnp.where(free, 0, a * jnp.clip(v - middle * a, low, up))
        slope = jnp.sum(jnp.where(free, a * a, 0))
        rest = jnp.sum(jnp.where(free, a * v, 0) + fixed) - b
        theta = jnp.where(slope > 0, rest / jnp.where(slope > 0, slope, 1), middle)
        return jnp.clip(v - theta * a, low, up)

    def _bounds(self, x):
        arrays = (jnp.broadcast_to(like(p, x), x.shape) for p in (self.lower, self.upper, self.a))
        return (*arrays, like(self.b, x))


def _active(v, low, up, a, b):
    """Which entries are strictly between their bounds, and a theta in the root's piece."""

    def excess(theta):
        return jnp.sum(a * jnp.clip(v - theta * a, low, up)) - b

    divisor = jnp.where(a == 0, 1, a)
    kinks = jnp.concatenate([((v - bound) / divisor).ravel() for bound in (low, up)])
    real = jnp.isfinite(kinks) & (jnp.concatenate([a.ravel()] * 2) != 0)
    kinks = jnp.sort(jnp.where(real, kinks, jnp.max(jnp.where(real, kinks, -jnp.inf))))
    kinks = jnp.where(jnp.isfinite(kinks), kinks, 0)

    def halve(_, bracket):
        lo, hi = bracket
        mid = (lo + hi) // 2
        right = excess(kinks[mid]) > 0
        split = hi - lo > 1
        return jnp.where(split & right, mid, lo), jnp.where(split & ~right, mid, hi)

    size = kinks.size
    lo, hi = lax.fori_loop(0, size.bit_length() + 1, halve, (jnp.asarray(-1), jnp.asarray(size)))
    far = 1 + jnp.maximum(jnp.abs(kinks[0]), jnp.abs(kinks[-1]))
    left = jnp.where(lo < 0, kinks[0] - far, kinks[jnp.maximum(lo, 0)])
    right = jnp.where(hi >= size, kinks[-1] + far, kinks[jnp.minimum(hi, size - 1)])
    middle = (left + right) / 2
    inner = v - middle * a
    return (inner > low) & (inner < up) & (a != 0), middle
