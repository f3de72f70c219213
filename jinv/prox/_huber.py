"""The Huber function."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from ._separable import AbstractSeparable
from ._util import clip_modulus, leafwise, parameter, squares, times, total


class Huber(AbstractSeparable):
    r"""The Huber function, $g(x) = w \sum_i h_\delta(|x_i|)$ with $h_\delta(r) = r^2/2$ for
    $r \le \delta$ and $\delta(r - \delta/2)$ beyond.

    Quadratic for small entries, linear for large ones: a data term that tolerates outliers, and
    the smooth form of `L1`. The prox is $v - \mathrm{clip}(\tfrac{tw}{1+tw} v, \pm tw\delta)$.

    **Arguments:**

    - `delta`: $\delta \ge 0$, where the function turns linear.
    - `weight`: $w \ge 0$. Both may be scalars, arrays or PyTrees like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Huber(1.0).prox(jnp.array([1.0, 5.0]), 1.0)
        Array([0.5, 4. ], dtype=float32)

        ```

    Source: P. J. Huber, "Robust Estimation of a Location Parameter", Ann. Math. Stat., 1964.
    """

    delta: PyTree[Array]
    weight: PyTree[Array]

    def __init__(self, delta: PyTree[ArrayLike] = 1.0, weight: PyTree[ArrayLike] = 1.0):
        self.delta = parameter("delta", delta, least=0.0)
        self.weight = parameter("weight", weight, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        def entry(u, d, w):
            size = jnp.abs(u)
            return w * jnp.where(size <= d, squares(u) / 2, d * (size - d / 2))

        return total(entry, x, self.delta, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, d, w):
            c = t * w
            return u - clip_modulus(times(u, c / (1 + c)), c * d)

        return leafwise(entry, v, step_size, self.delta, self.weight)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, s, d, w):
            return clip_modulus(times(u, w / (w + s)), w * d)

        return leafwise(entry, z, step_size, self.delta, self.weight)
