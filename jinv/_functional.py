"""The interface of proximable functionals, shared by `jinv.prox` and the engine."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real


class AbstractFunctional(eqx.Module):
    r"""A closed function $g$ on PyTrees of arrays, with its value and its proximal map.

    `g(x)` is the value: a real scalar, `inf` outside the domain of an indicator, `nan` where
    a functional is only known through its prox (a plug-in denoiser). For complex arrays every
    inner product is the real part of the usual one.

    Splitting solvers use nothing else, so whatever has this interface can be plugged in.
    """

    @abc.abstractmethod
    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        """The value $g(x)$."""

    @abc.abstractmethod
    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        r"""The proximal map $\arg\min_u g(u) + \frac{1}{2 t}\|u - v\|^2$.

        **Arguments:**

        - `v`: the point, of the structure on which `g` is defined.
        - `step_size`: $t > 0$, a scalar. Separable functionals also take an array that
            broadcasts against `v` (diagonal preconditioning).

        **Returns:** a PyTree like `v`.
        """

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        r"""The prox of the convex conjugate, $\mathrm{prox}_{s g^*}(z) = z - s\,
        \mathrm{prox}_{g/s}(z/s)$ (Moreau's identity)."""
        scaled = map_step(lambda x, s: x / s, z, step_size)
        inverse = jax.tree.map(lambda s: 1 / s, step_size)
        inner = self.prox(scaled, inverse)
        return map_step(lambda x, s, p: x - s * p, z, step_size, inner)

    def has_fast_prox(self) -> bool:
        """Whether the prox costs no more than a gradient (a closed form or a fast transform)."""
        return False

    def natural_step(self) -> Real[Array, ""] | None:
        """The step size at which the prox is cheapest; `None` if all cost the same."""
        return None

    def weak_convexity(self) -> Real[Array, ""] | float:
        r"""A number $w \ge 0$ such that $g + \tfrac w2\|\cdot\|^2$ is convex: 0 for a convex
        functional, `inf` if there may be none, `nan` if it is not known whether the prox is one.
        The certificates of the splitting solvers rest on it."""
        return 0.0

    def init_prox(self, v: PyTree[Array]) -> Any:
        """What a warm-started prox carries from call to call; `None` for a closed form."""
        return None

    def warm_prox(
        self, v: PyTree[Array], step_size: PyTree[ArrayLike], carry: Any
    ) -> tuple[PyTree[Array], Any]:
        """`prox`, started from `carry` (see `init_prox`); returns the prox and the new carry."""
        return self.prox(v, step_size), carry


def map_step(fn, tree, step_size, *rest):
    """Maps `fn(leaf, step, ...)`, where `step_size` is one scalar/array or a tree like `tree`."""
    if jax.tree.structure(step_size) == jax.tree.structure(tree):
        return jax.tree.map(lambda x, s, *r: fn(x, _like(s, x), *r), tree, step_size, *rest)
    return jax.tree.map(lambda x, *r: fn(x, _like(step_size, x), *r), tree, *rest)


def _like(step, x):
    """Casts a step size to the dtype of `x`: dtype promotion never widens the data."""
    return jnp.asarray(step, dtype=x.dtype)
