"""Functionals known by their prox only, and the Moreau envelope of any functional."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional

from ._util import indicator, leafwise, like, over, squares, total


class PlugIn(AbstractFunctional):
    r"""A functional known by its prox only, $\mathrm{prox}_{t g}(v) = D(v, t)$: plug-and-play.

    Whether a functional `g` with this prox exists is up to `D` (it does when `D` is the gradient
    of a convex function; see the learned proximal networks). The value is `nan`. A projection
    onto a convex set $C$ is the case $D(v, t) = P_C(v)$.

    **Arguments:**

    - `denoiser`: a function `(v, step_size) -> array like v`; an `eqx.Module` keeps its weights
        visible to transformations.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> prior = jinv.prox.PlugIn(lambda v, step_size: v / (1 + step_size))
        >>> prior.prox(jnp.array([2.0, 4.0]), 1.0)
        Array([1., 2.], dtype=float32)

        ```

    Source: S. V. Venkatakrishnan, C. A. Bouman and B. Wohlberg, "Plug-and-Play Priors for Model
    Based Reconstruction", GlobalSIP 2013.
    """

    denoiser: Callable[..., Any]

    def weak_convexity(self):
        return jnp.nan

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return jnp.nan + indicator(jnp.asarray(True), x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.denoiser(v, step_size)


def moreau_envelope(
    functional: AbstractFunctional, x: PyTree[Array], step_size: Real[ArrayLike, ""]
) -> Real[Array, ""]:
    r"""The Moreau envelope $\min_u g(u) + \tfrac{1}{2t}\|u - x\|^2$, a smooth form of `g`.

    It is differentiable even where `g` is not; `jax.grad` of it equals `moreau_gradient`, which
    is cheaper. Costs one prox and one value.

    **Arguments:**

    - `functional`: $g$, with a value.
    - `x`: the point.
    - `step_size`: $t > 0$, a scalar.

    **Returns:** a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.moreau_envelope(jinv.prox.L1(), jnp.array([3.0, 0.5]), 1.0)
        Array(2.625, dtype=float32)

        ```

    Source: J.-J. Moreau, "Proximité et dualité dans un espace hilbertien", Bull. Soc. Math.
    France, 1965.
    """
    p = functional.prox(x, step_size)
    distance = total(squares, jax.tree.map(lambda a, b: a - b, p, x))
    return functional(p) + distance / (2 * like(step_size, distance))


def moreau_gradient(
    functional: AbstractFunctional, x: PyTree[Array], step_size: Real[ArrayLike, ""]
) -> PyTree[Array]:
    r"""The gradient of the Moreau envelope, $(x - \mathrm{prox}_{t g}(x)) / t$.

    **Arguments:** as for `moreau_envelope`; the value of `functional` is not needed.

    **Returns:** a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.moreau_gradient(jinv.prox.L1(), jnp.array([3.0, 0.5]), 1.0)
        Array([1. , 0.5], dtype=float32)

        ```
    """
    p = functional.prox(x, step_size)
    gap = jax.tree.map(lambda a, b: a - b, x, p)
    return leafwise(lambda d, t: over(d, t), gap, step_size)
