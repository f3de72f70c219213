"""Bounds on single entries, and the restriction of a separable functional to them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._separable import AbstractSeparable
from ._util import (
    all_true,
    clip_modulus,
    indicator,
    leafwise,
    parameter,
    require_real,
    shrink,
    slack,
    total,
)


class Box(AbstractSeparable):
    r"""The indicator of the box $\{l_i \le x_i \le u_i\}$; the projection is clipping.

    Infinite bounds are allowed. Inside means: up to $\sqrt\varepsilon \max(1, |l|, |u|)$.

    **Arguments:**

    - `lower`, `upper`: scalars, arrays that broadcast against `x`, or PyTrees like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Box(0.0, 1.0).prox(jnp.array([-1.0, 0.5, 3.0]), 1.0)
        Array([0. , 0.5, 1. ], dtype=float32)

        ```
    """

    lower: PyTree[Array]
    upper: PyTree[Array]

    def __init__(self, lower: PyTree[ArrayLike] = 0.0, upper: PyTree[ArrayLike] = 1.0):
        self.lower = parameter("lower", lower)
        self.upper = parameter("upper", upper)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        require_real("Box", x)

        def inside(u, a, b):
            return (u >= a - slack(u, a)) & (u <= b + slack(u, b))

        return indicator(all_true(inside, x, self.lower, self.upper), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        require_real("Box", v)
        return leafwise(jnp.clip, v, self.lower, self.upper)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""The support function $\sum_i \max(l_i z_i, u_i z_i)$."""

        def entry(u, a, b):
            bound = jnp.where(u > 0, b, a)
            return jnp.where(u == 0, 0, u * jnp.where(u == 0, 0, bound))

        return total(entry, z, self.lower, self.upper)


class NonNegative(AbstractSeparable):
    r"""The indicator of $\{x \ge 0\}$; the projection is $\max(v, 0)$.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.NonNegative().prox(jnp.array([-1.0, 0.5]), 1.0)
        Array([0. , 0.5], dtype=float32)

        ```
    """

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        require_real("NonNegative", x)
        return indicator(all_true(lambda u: u >= -slack(u), x), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        require_real("NonNegative", v)
        return jax.tree.map(jax.nn.relu, v)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return jax.tree.map(lambda u: -jax.nn.relu(-u), z)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where $z \le 0$, else infinite."""
        return indicator(all_true(lambda u: u <= slack(u), z), z)


class LInfBall(AbstractSeparable):
    r"""The indicator of $\{|x_i| \le r_i\}$; complex entries keep their phase.

    **Arguments:**

    - `radius`: $r \ge 0$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.LInfBall(5.0).prox(jnp.array([6.0 + 8.0j, 1.0 + 0.0j]), 1.0)
        Array([3.+4.j, 1.+0.j], dtype=complex64)

        ```
    """

    radius: PyTree[Array]

    def __init__(self, radius: PyTree[ArrayLike] = 1.0):
        self.radius = parameter("radius", radius, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return indicator(all_true(lambda u, r: jnp.abs(u) <= r + slack(u, r), x, self.radius), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(clip_modulus, v, self.radius)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return leafwise(lambda u, s, r: shrink(u, s * r), z, step_size, self.radius)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""The support function $\sum_i r_i |z_i|$."""
        return total(lambda u, r: r * jnp.abs(u), z, self.radius)


class Restricted(AbstractSeparable):
    r"""A separable convex functional restricted to a box, $g(x) + \iota_{[l, u]}(x)$.

    The prox is that of `g`, clipped: exact because `g` is convex in each entry on its own (see
    `AbstractSeparable`). `Restricted(L1(w))` is the non-negative lasso, `Restricted(SquaredL2(w))`
    non-negative ridge.

    **Arguments:**

    - `functional`: an `AbstractSeparable` on real arrays; anything else is a `ValueError`.
    - `lower`, `upper`: the bounds, as in `Box`; by default $x \ge 0$. They must leave a point of
        the domain of `functional`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.Restricted(jinv.prox.L1(0.5))
        >>> g.prox(jnp.array([2.0, -3.0]), 1.0)
        Array([1.5, 0. ], dtype=float32)

        ```
    """

    functional: AbstractSeparable
    box: Box

    def __init__(
        self,
        functional: AbstractFunctional,
        lower: PyTree[ArrayLike] = 0.0,
        upper: PyTree[ArrayLike] = jnp.inf,
    ):
        if not isinstance(functional, AbstractSeparable):
            raise ValueError(
                "`functional` must be separable (a jinv.prox.AbstractSeparable), got "
                f"{type(functional).__name__}: clipping its prox would not be the constrained prox"
            )
        self.functional = functional
        self.box = Box(lower, upper)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return self.functional(x) + self.box(x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.box.prox(self.functional.prox(v, step_size), step_size)
