"""Penalties for sparsity that are not convex: counting, and the ones between it and l1."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import leafwise, over, parameter, shrink, sign, times, total


class L0(AbstractFunctional):
    r"""The weighted number of non-zero entries, $g(x) = \sum_i w_i [x_i \ne 0]$ (not convex).

    The prox is hard thresholding: an entry survives, unchanged, where $|v_i|^2 > 2 t w_i$. It
    jumps there, so the gradient with respect to `weight` is zero almost everywhere.

    **Arguments:**

    - `weight`: $w \ge 0$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.L0(0.5).prox(jnp.array([2.0, 0.5]), 1.0)
        Array([2., 0.], dtype=float32)

        ```

    Source: T. Blumensath and M. E. Davies, "Iterative Thresholding for Sparse Approximations",
    J. Fourier Anal. Appl., 2008.
    """

    weight: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)

    def weak_convexity(self):
        return jnp.inf

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w: jnp.where(u != 0, w, 0), x, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, w):
            return jnp.where(jnp.abs(u) > jnp.sqrt(2 * t * w), u, jnp.zeros_like(u))

        return leafwise(entry, v, step_size, self.weight)


class MCP(AbstractFunctional):
    r"""The minimax concave penalty, $\sum_i p(|x_i|)$ with $p(r) = w r - \tfrac{r^2}{2a}$ for
    $r \le a w$ and $\tfrac12 a w^2$ beyond (weakly convex).

    Like `L1` near zero, without its bias on large entries. The prox is unique for $t < a$; a
    larger step gives hard thresholding, which is then the exact minimiser.

    **Arguments:**

    - `weight`: $w > 0$.
    - `shape`: $a > 0$; the penalty is $1/a$-weakly convex.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.MCP(1.0, 2.0).prox(jnp.array([0.5, 1.5, 3.0]), 1.0)
        Array([0., 1., 3.], dtype=float32)

        ```

    Source: C.-H. Zhang, "Nearly Unbiased Variable Selection under Minimax Concave Penalty",
    Ann. Stat., 2010.
    """

    weight: PyTree[Array]
    shape: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0, shape: PyTree[ArrayLike] = 3.0):
        self.weight = parameter("weight", weight, above=0.0)
        self.shape = parameter("shape", shape, above=0.0)

    def weak_convexity(self):
        return jnp.inf

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        def entry(u, w, a):
            r = jnp.minimum(jnp.abs(u), a * w)
            return w * r - r * r / (2 * a)

        return total(entry, x, self.weight, self.shape)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, w, a):
            size = jnp.abs(u)
            convex = t < a
            firm = over(shrink(u, t * w), jnp.where(convex, 1 - t / a, 1))
            firm = jnp.where(size <= a * w, firm, u)
            # With a concave model the value at v, a w^2 / 2, competes with the one at zero.
            hard = jnp.where(size > w * jnp.sqrt(t * a), u, jnp.zeros_like(u))
            return jnp.where(convex, firm, hard)

        return leafwise(entry, v, step_size, self.weight, self.shape)


class SCAD(AbstractFunctional):
    r"""The smoothly clipped absolute deviation, $\sum_i p(|x_i|)$ with $p'(r) = w$ for
    $r \le w$, $(a w - r)_+ / (a - 1)$ beyond (weakly convex).

    The prox is unique for steps $t < a - 1$; for larger ones the two candidates left, at the ends
    of the concave part, are compared, so it is a global minimiser for every step.

    **Arguments:**

    - `weight`: $w > 0$.
    - `shape`: $a > 2$; 3.7 is the value of the source.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.SCAD(1.0, 3.0).prox(jnp.array([0.5, 1.5, 2.5, 4.0]), 1.0)
        Array([0. , 0.5, 2. , 4. ], dtype=float32)

        ```

    Source: J. Fan and R. Li, "Variable Selection via Nonconcave Penalized Likelihood and its
    Oracle Properties", J. Amer. Stat. Assoc., 2001.
    """

    weight: PyTree[Array]
    shape: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0, shape: PyTree[ArrayLike] = 3.7):
        self.weight = parameter("weight", weight, above=0.0)
        self.shape = parameter("shape", shape, above=2.0)

    def weak_convexity(self):
        return jnp.inf

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w, a: _scad(jnp.abs(u), w, a), x, self.weight, self.shape)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, w, a):
            size = jnp.abs(u)
            convex = t < a - 1
            middle = ((a - 1) * size - t * a * w) / jnp.where(convex, a - 1 - t, 1)
            low = jnp.maximum(size - t * w, 0)
            unique = jnp.where(size <= w * (1 + t), low, jnp.where(size <= a * w, middle, size))
            low, high = jnp.minimum(low, w), jnp.maximum(size, a * w)
            gain = (low - high) * (low + high - 2 * size) / 2
            gain = gain + t * (_scad(low, w, a) - _scad(high, w, a))
            best = jnp.where(convex, unique, jnp.where(gain <= 0, low, high))
            return times(sign(u), best)

        return leafwise(entry, v, step_size, self.weight, self.shape)


def _scad(r, w, a):
    middle = (2 * a * w * r - r * r - w * w) / (2 * (a - 1))
    outer = jnp.where(r <= a * w, middle, w * w * (a + 1) / 2)
    return jnp.where(r <= w, w * r, outer)


class LogSum(AbstractFunctional):
    r"""The log-sum penalty, $g(x) = w \sum_i \log(1 + |x_i| / \epsilon)$ (not convex).

    The prox takes the larger root of a quadratic and compares its value with the one at zero, so
    it is the global minimiser.

    **Arguments:**

    - `weight`: $w \ge 0$.
    - `epsilon`: $\epsilon > 0$; small values count entries, large ones are like `L1`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.LogSum(0.75, 0.5).prox(jnp.array([0.5, 2.0]), 1.0)
        Array([0.       , 1.6513878], dtype=float32)

        ```

    Source: E. J. Candès, M. B. Wakin and S. P. Boyd, "Enhancing Sparsity by Reweighted l1
    Minimization", J. Fourier Anal. Appl., 2008 (the penalty).
    """

    weight: PyTree[Array]
    epsilon: PyTree[Array]

    def __init__(self, weight: PyTree[ArrayLike] = 1.0, epsilon: PyTree[ArrayLike] = 1.0):
        self.weight = parameter("weight", weight, least=0.0)
        self.epsilon = parameter("epsilon", epsilon, above=0.0)

    def weak_convexity(self):
        return jnp.inf

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w, e: w * jnp.log1p(jnp.abs(u) / e), x, self.weight, self.epsilon)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def entry(u, t, w, e):
            size, c = jnp.abs(u), t * w
            square = (size + e) ** 2 - 4 * c
            real = square > 0
            root = (size - e + jnp.sqrt(jnp.where(real, square, 1))) / 2
            root = jnp.where(real, jnp.maximum(root, 0), 0)
            better = root * root / 2 - size * root + c * jnp.log1p(root / e) < 0
            return times(sign(u), jnp.where(better, root, 0))

        return leafwise(entry, v, step_size, self.weight, self.epsilon)
