"""Conjugate gradients of jax.scipy and lineax, without preconditioner as their users have them."""

import functools as ft
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jsl
import lineax as lx
import numpy as np
from jax.experimental import sparse as jsp

from ._linear_contender import MAX_STEPS, TOLERANCE, LinearContender, on_grid
from ._linear_problems import faces_of, sparse_matrix


VERSIONS = ("jax", "jaxlib", "lineax")


def device():
    kind = jax.devices()[0]
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


def stencil(faces, sink):
    """The 5- or 7-point product as most would write it: a diagonal, and shifted arrays."""
    ndim = sink.ndim
    cut = lambda x, axis, start, stop: x[(slice(None),) * axis + (slice(start, stop),)]
    pad = lambda x, axis, pair: jnp.pad(x, [pair if a == axis else (0, 0) for a in range(ndim)])
    diagonal = sink
    for axis, w in enumerate(faces):
        diagonal = diagonal + cut(w, axis, None, -1) + cut(w, axis, 1, None)

    def product(x):
        y = diagonal * x
        for axis, w in enumerate(faces):
            inner = cut(w, axis, 1, -1)
            y = y - pad(inner * cut(x, axis, 1, None), axis, (0, 1))
            y = y - pad(inner * cut(x, axis, None, -1), axis, (1, 0))
        return y

    return product


class _Compiled(LinearContender):
    """One compiled program of the arrays; a step of CG is one product."""

    def __init__(self, problem, params):
        dtype = params.get("dtype") or problem.data["rhs"].dtype
        as_array = lambda x: jnp.asarray(x, dtype)
        self.rhs = as_array(problem.data["rhs"])
        self.matrix = [as_array(w) for w in faces_of(problem)], as_array(problem.data["sink"])

    def product(self, matrix):
        return stencil(*matrix)

    def program(self, matrix, rhs) -> Any:
        """The solution, and the number of steps if the library tells."""
        found = jsl.cg(self.product(matrix), rhs, tol=TOLERANCE, maxiter=MAX_STEPS)[0]
        return found, None

    def compile(self):
        self.compiled = jax.jit(self.program).lower(self.matrix, self.rhs).compile()

    def solve(self):
        self.value, self.counted = jax.block_until_ready(self.compiled(self.matrix, self.rhs))

    def metrics(self, problem):
        if self.counted is None:
            self.counted = self.advance(self.start())[4]
        self.num_steps = int(self.counted)
        self.matvecs = float(self.num_steps)
        return super().metrics(problem)

    def start(self):
        """jax.scipy's recursion, which keeps no count: solution, residual, direction, its
        squared norm, steps."""
        rhs = self.rhs
        return jnp.zeros_like(rhs), rhs, rhs, jnp.vdot(rhs, rhs), jnp.asarray(0)

    def advance(self, state, limit: int = MAX_STEPS):
        return self._advance(self.matrix, self.rhs, state, limit)

    @ft.partial(jax.jit, static_argnums=0)
    def _advance(self, matrix, rhs, state, limit):
        product, goal = self.product(matrix), TOLERANCE**2 * jnp.vdot(rhs, rhs)

        def going(state):
            return (state[3] > goal) & (state[4] < limit)

        def step(state):
            x, r, p, gamma, count = state
            q = product(p)
            alpha = gamma / jnp.vdot(p, q)
            r = r - alpha * q
            new = jnp.vdot(r, r)
            return x + alpha * p, r, r + new / gamma * p, new, count + 1

        return jax.lax.while_loop(going, step, state)

    def history(self, problem):
        last = self.num_steps or 0
        if last < 1:
            return {}
        state, residuals = self.start(), [1.0]
        counts = np.unique(np.linspace(0, last, 60).round().astype(int)).tolist()
        for count in counts[1:]:
            state = self.advance(state, count)
            residuals.append(problem.objective(on_grid(problem, state[0])))
        work = (self.matvecs or 0.0) / last
        return {
            "num_steps": counts,
            "matvecs": [work * count for count in counts],
            "relative_residual": residuals,
        }


class _Sparse(_Compiled):
    """With the matrix in JAX's BCOO format, over the unknowns only."""

    def __init__(self, problem, params):
        super().__init__(problem, params)
        matrix = sparse_matrix(problem).astype(self.rhs.dtype)
        self.matrix: Any = jsp.BCOO.from_scipy_sparse(matrix)
        self.rhs = self.rhs[jnp.asarray(problem.data["unknown"])]

    def product(self, matrix):
        return lambda x: matrix @ x


class _Lineax(_Compiled):
    """lineax's CG. Its rule is per entry and also on the step, so it stops elsewhere: with
    `steps` "given" it does as many steps as CG needs for the common rule (the same work), else
    it has rtol = atol = 1e-6, what a user writes first."""

    def __init__(self, problem, params):
        super().__init__(problem, params)
        self.steps = None
        if params["steps"] == "given":
            self.steps = int(self.advance(self.start())[4])

    def program(self, matrix, rhs):
        tag = lx.positive_semidefinite_tag
        operator = lx.FunctionLinearOperator(self.product(matrix), jax.eval_shape(lambda: rhs), tag)
        if self.steps is None:
            solver = lx.CG(TOLERANCE, TOLERANCE, max_steps=MAX_STEPS)
        else:
            solver = lx.CG(0.0, 0.0, max_steps=self.steps)
        solution = lx.linear_solve(operator, rhs, solver, throw=False)
        return solution.value, solution.stats["num_steps"]

    def metrics(self, problem):
        found = super().metrics(problem)
        # The first residual, and every tenth step computes it anew.
        self.matvecs = 1 + found["num_steps"] + found["num_steps"] // 10
        return {**found, "matvecs": self.matvecs}

    def history(self, problem):
        return {}


METHODS = {"jax.scipy CG": _Compiled, "jax.scipy CG BCOO": _Sparse, "lineax CG": _Lineax}
