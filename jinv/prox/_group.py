"""Sums of Euclidean norms of groups: group sparsity and isotropic total variation."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import all_true, indicator, leafwise, parameter, safe_sqrt, slack, squares, times, total


# Reducing a short axis by slices keeps the whole prox one fused, vectorised loop. On CPU
# `jnp.sum` over an axis of length 2 does not fuse and makes the prox about 20 times slower.
_SHORT_AXIS = 4


class GroupL2(AbstractFunctional):
    r"""The sum of group norms, $g(x) = \sum_j w_j \|x_{:,j}\|_2$ with the norm along `axis` (the
    $\ell_{2,1}$ norm).

    The prox shortens each group by $t w_j$, the prox of the conjugate pulls each group into the
    ball of radius $w_j$. On the output of `FiniteDifference`, of shape `(ndim, *image)`,
    `GroupL2(w, axis=0)` is isotropic total variation. Cost: one pass over the data.

    **Arguments:**

    - `weight`: $w \ge 0$; a scalar or an array that broadcasts against `x` with a length of 1
        along `axis`.
    - `axis`: the axis (or axes) along which one group lies.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> x = jnp.array([[3.0, 0.3], [4.0, 0.4]])
        >>> jinv.prox.GroupL2(2.5, axis=0).prox(x, 1.0)
        Array([[1.5, 0. ],
               [2. , 0. ]], dtype=float32)

        ```

    Source: M. Yuan and Y. Lin, "Model Selection and Estimation in Regression with Grouped
    Variables", J. R. Stat. Soc. B, 2006.
    """

    weight: PyTree[Array]
    axis: int | tuple[int, ...] = eqx.field(static=True)

    def __init__(self, weight: PyTree[ArrayLike] = 1.0, axis: int | tuple[int, ...] = 0):
        self.weight = parameter("weight", weight, least=0.0)
        self.axis = axis

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(lambda u, w: w * safe_sqrt(self._group_squares(u)), x, self.weight)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        def leaf(u, t, w):
            return times(u, 1 - self._ratio(u, t * w))

        return leafwise(leaf, v, step_size, self.weight)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(lambda u, w: times(u, self._ratio(u, w)), z, self.weight)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where every group norm is at most $w_j$, else infinite."""

        def leaf(u, w):
            return safe_sqrt(self._group_squares(u)) <= w + slack(u, w)

        return indicator(all_true(leaf, z, self.weight), z)

    def _ratio(self, u, w):
        # min(1, w / |u|): exactly 1 for short groups, so that they become exact zeros. The floor
        # lies inside that region; it keeps derivatives finite at zero groups without a `where`,
        # which would double the time.
        floor = jnp.maximum(w * w / 4, jnp.finfo(u.dtype).tiny)
        return jnp.minimum(w / jnp.sqrt(jnp.maximum(self._group_squares(u), floor)), 1)

    def _group_squares(self, u):
        axes = (self.axis,) if isinstance(self.axis, int) else self.axis
        if any(not -u.ndim <= a < u.ndim for a in axes):
            raise ValueError(f"`axis` {self.axis} is not an axis of an array of shape {u.shape}")
        s = squares(u)
        if math.prod(u.shape[a] for a in axes) > _SHORT_AXIS:
            return jnp.sum(s, axis=axes, keepdims=True)
        for a in axes:
            index = [slice(None)] * u.ndim
            index[a] = slice(0, 1)
            acc = s[tuple(index)]
            for k in range(1, u.shape[a]):
                index[a] = slice(k, k + 1)
                acc = acc + s[tuple(index)]
            s = acc
        return s
