"""The interface of convex potentials, whose gradients are proximal maps."""

import abc

import equinox as eqx
import jax
from equinox import AbstractVar
from jaxtyping import Array, Float


def in_dtype(network, dtype):
    """The network with weights of the dtype of its input: single precision stays single."""
    cast = lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x
    return jax.tree.map(cast, network)


class AbstractConvexPotential(eqx.Module):
    r"""A convex function $\psi$ of an array, twice differentiable whatever its weights are.

    Its gradient is monotone, with a symmetric positive semidefinite Jacobian: the proximal map
    of some functional, which [`jinv.prox.LearnedProximalNetwork`][] makes available.

    **Attributes:**

    - `shape`: of the arrays, or of the patches if it takes arrays of any size.
    - `strong_convexity`: $\alpha \ge 0$, such that $\psi - \tfrac\alpha2\|\cdot\|^2$ is convex.
    """

    shape: AbstractVar[tuple[int, ...]]
    strong_convexity: AbstractVar[float]

    @abc.abstractmethod
    def __call__(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        r"""The value $\psi(y)$."""

    @abc.abstractmethod
    def recession(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        r"""The recession function $\psi_\infty(d) = \lim_{t \to \infty} \psi(t d) / t$, `inf`
        where $\psi$ grows faster. Points $x$ with $\langle x, d \rangle > \psi_\infty(d)$ for
        some $d$ are outside the closure of the range of the gradient."""

    def value_and_gradient(
        self, y: Float[Array, "*shape"]
    ) -> tuple[Float[Array, ""], Float[Array, "*shape"]]:
        r"""$\psi(y)$ and $\nabla\psi(y)$ in one pass."""
        return jax.value_and_grad(self.__call__)(y)

    def gradient(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""$\nabla\psi(y)$."""
        return jax.grad(self.__call__)(y)
