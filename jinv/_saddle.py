"""A preconditioner for the derivative of a saddle point: the constant-coefficient problem."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree, Real

from . import _tree
from .operators import AbstractOperator, Spectrum, adjoint


class SaddlePreconditioner(AbstractOperator):
    r"""The inverse of the saddle point Jacobian with constant coefficients.

    The derivative of $x - \mathrm{prox}_g(x - \nabla f - K^* z)$,
    $z - \mathrm{prox}_{h^*}(z + K x)$ has the blocks $H, K^*; -D K, I - D$, where $H$ is the
    Hessian and $0 \le D \le I$ the derivative of the dual prox, a different matrix at every
    pixel. With $D$ replaced by $\rho / (1 + \rho)$ a fast transform inverts it, through
    $S = H + \rho K^* K$. With `implicit`, $f$ enters through its prox and the first row carries
    a factor $(I + H)^{-1}$.

    GMRES needs some hundred products with it, whatever the contrast of $D$; without it the
    system has the conditioning of a diffusion problem with jumps in the coefficient.
    """

    operator: lx.AbstractLinearOperator | None
    curvature: Spectrum
    schur: Spectrum
    ratio: Real[Array, ""]
    point: PyTree[Array]
    implicit: bool

    def mv(self, vector):
        rho = self.ratio
        r, s = vector.primal, vector.dual
        if self.implicit:
            r = (self.curvature + 1.0).apply(r)
        a = self.schur.solve(_tree.add_scaled(r, -(1 + rho), self._back(s)))
        b = _tree.add_scaled(_tree.scale(1 + rho, s), rho, self._forward(a))
        return type(vector)(a, b)

    def adjoint_mv(self, vector):
        rho = self.ratio
        a = self.schur.solve(_tree.add_scaled(vector.primal, rho, self._back(vector.dual)))
        b = _tree.scale(1 + rho, _tree.subtract(vector.dual, self._forward(a)))
        if self.implicit:
            a = (self.curvature + 1.0).apply(a)
        return type(vector)(a, b)

    def _forward(self, x):
        return x if self.operator is None else self.operator.mv(x)

    def _back(self, z):
        return z if self.operator is None else adjoint(self.operator).mv(z)

    def in_structure(self):
        return jax.eval_shape(lambda: self.point)

    def out_structure(self):
        return jax.eval_shape(lambda: self.point)


class Preconditioned(lx.AbstractLinearSolver):
    """A lineax solver with a fixed preconditioner, transposed with it in reverse mode."""

    solver: lx.AbstractLinearSolver
    preconditioner: lx.AbstractLinearOperator

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"preconditioner": self.preconditioner, **options}

    def init(self, operator, options):
        return self.solver.init(operator, self._with(options))

    def compute(self, state, vector, options):
        return self.solver.compute(state, vector, self._with(options))

    def transpose(self, state, options):
        return self.solver.transpose(state, self._with(options))

    def conj(self, state, options):
        return self.solver.conj(state, self._with(options))

    def assume_full_rank(self):
        return self.solver.assume_full_rank()


def mean_eigenvalue(apply: Any, like: PyTree[Array]) -> Real[Array, ""]:
    """The mean eigenvalue of a symmetric positive semidefinite operator, from one product with a
    random vector (Hutchinson's estimate of the trace)."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    signs = [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    v = jax.tree.unflatten(treedef, signs)
    return jnp.abs(_tree.dot(v, apply(v))) / _tree.sum_squares(v)
