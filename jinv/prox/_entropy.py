"""Functionals of positive numbers: entropy, logarithmic barrier, Poisson likelihood."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from ._separable import AbstractSeparable
from ._util import leafwise, parameter, require_real, safe_sqrt, spread, total


@jax.custom_jvp
def wright_omega(z):
    """The real omega with omega + log(omega) = z (Lambert's W of exp(z)), for every real z."""
    dtype = z.dtype
    # Below log(eps) the second term of omega = e^z - e^2z + ... is lost in rounding.
    low = z < jnp.log(jnp.finfo(dtype).eps)
    y = jnp.where(low, jnp.zeros_like(z), z)
    start = jnp.where(y > 1, y - jnp.log(jnp.maximum(y, 1)), jnp.exp(jnp.minimum(y, 0)))
    w = jnp.where(y > 1, start, start / (1 + start))
    for _ in range(3):
        # One step of fourth order; three from these starts are exact to rounding.
        # The products are kept as ratios, which do not overflow.
        r, s = y - w - jnp.log(w), 1 + w
        q = 2 * (s + 2 * r / 3)
        w = w * (1 + (r / s) * (q - r / s) / (q - 2 * (r / s)))
    return jnp.where(low, jnp.exp(z), w)


@wright_omega.defjvp
def _(primals, tangents):
    (z,), (dz,) = primals, tangents
    w = wright_omega(z)
    return w, dz * (w / (1 + w))


class Entropy(AbstractSeparable):
    r"""The negative entropy, $g(x) = w \sum_i x_i \log x_i$ on $x \ge 0$ (with $0\log 0 = 0$).

    The prox is $u = t w\, \omega(v / (t w) - 1 - \log (t w))$ with Wright's $\omega$, solved in
    the log domain: nothing overflows for large arguments, and very negative ones go to zero.

    **Arguments:**

    - `weight`: $w > 0$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Entropy().prox(jnp.array([2.0, -4.0]), 1.0).round(4)
        Array([1.    , 0.0067], dtype=float32)

        ```

    Source: F. N. Fritsch, R. E. Shafer and W. P. Crowley, "Solution of the Transcendental
    Equation w e^w = x", Comm. ACM, 1973 (the iteration for omega).
    """

    weight: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, above=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        require_real("Entropy", x)

        def entry(u, w):
            value = u * jnp.log(jnp.where(u > 0, u, 1))
            return jnp.where(u < 0, jnp.inf, w * value)

        return total(entry, x, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        require_real("Entropy", v)

        def entry(u, t, w):
            c = t * w
            return c * wright_omega(u / c - 1 - jnp.log(c))

        return leafwise(entry, v, step_size, self.weight)


class LogBarrier(AbstractSeparable):
    r"""The logarithmic barrier, $g(x) = -w \sum_i \log x_i$ on $x > 0$.

    The prox is the positive root of $u^2 - v u - t w = 0$, written without cancellation for
    negative `v`.

    **Arguments:**

    - `weight`: $w > 0$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.LogBarrier(2.0).prox(jnp.array([1.0, -1.0]), 1.0)
        Array([2., 1.], dtype=float32)

        ```
    """

    weight: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, above=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        require_real("LogBarrier", x)

        def entry(u, w):
            return jnp.where(u > 0, -w * jnp.log(jnp.where(u > 0, u, 1)), jnp.inf)

        return total(entry, x, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        require_real("LogBarrier", v)
        return leafwise(lambda u, t, w: _positive_root(u, t * w), v, step_size, self.weight)


class KullbackLeibler(AbstractSeparable):
    r"""The Poisson data term $g(x) = \sum_i (x_i + b_i) - d_i \log(x_i + b_i)$.

    It is the Kullback-Leibler divergence of $x + b$ from the counts $d$, up to a constant of the
    data, on $x + b \ge 0$; where $d_i = 0$ the entry is $x_i + b_i$. The prox is closed. For
    $x \ge 0$ besides, wrap it in `Restricted`.

    **Arguments:**

    - `data`: the counts $d \ge 0$, like `x`.
    - `background`: $b \ge 0$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.KullbackLeibler(jnp.array([2.0, 0.0]))
        >>> g.prox(jnp.array([2.0, 3.0]), 1.0)
        Array([2., 2.], dtype=float32)

        ```
    """

    data: PyTree[Array]
    background: PyTree[Array]

    def __init__(self, data: PyTree[ArrayLike], background: PyTree[ArrayLike] = 0.0):
        self.data = parameter("data", data, least=0.0)
        self.background = parameter("background", background, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        require_real("KullbackLeibler", x)

        def entry(u, d, b):
            rate = u + b
            inside = (rate > 0) | ((rate == 0) & (d == 0))
            return jnp.where(inside, rate - d * jnp.log(jnp.where(rate > 0, rate, 1)), jnp.inf)

        return total(entry, x, self.data, self.background)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        require_real("KullbackLeibler", v)

        def entry(u, t, d, b):
            return _positive_root(u + b - t, t * d) - b

        return leafwise(entry, v, step_size, spread(self.data, v), spread(self.background, v))


def _positive_root(a, c):
    """The root u >= 0 of u^2 - a u - c = 0, c >= 0, without cancellation."""
    size = jnp.where(a >= 0, a, -a)
    large = (size + safe_sqrt(a * a + 4 * c)) / 2
    return jnp.where(a >= 0, large, c / jnp.where(large > 0, large, 1))
