"""Iterative refinement: the accuracy of a wide dtype at the cost of a narrow one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from .. import _tree
from .._loop import match_varying
from ..operators._checks import as_inexact
from ._checks import AbstractSymmetricSolver, check_operator, check_tolerances


class Refinement(AbstractSymmetricSolver):
    r"""Solves in a narrow dtype, and corrects with residuals in the operator's own:
    $x \leftarrow x + \|r\|\, d$ with $A d \approx r / \|r\|$, $r = b - A x$.

    For float64 systems whose solver is much faster in float32 (GPUs, memory-bound CPUs). A grid
    function stored in float32 has a residual of about $\varepsilon \|A\| \|x\|$, which on large
    grids is more than 1e-4 of the right-hand side: only a wider solution gets below that. Each
    round gains what `solver` solves to; a loose `rtol`, such as 1e-3, is best.

    **Arguments:**

    - `solver`: a lineax solver for the narrow system, such as [`jinv.linear.PCG`][].
    - `rtol`, `atol`: stops when $\|b - A x\|_2 \le \max(\texttt{atol}, \texttt{rtol}\,\|b\|_2)$.
    - `dtype`: the narrow dtype.
    - `max_rounds`: the largest number of solves.

    **Returns** (through `lineax.linear_solve`): `stats` has `num_steps` (of the inner solver, all
    rounds together), `num_rounds`, `max_steps` and `residual` (relative). Results besides success:
    `max_steps_reached`; `stagnation`, where a round halves the residual no more (the system
    is too ill-conditioned for the narrow dtype); `nonfinite_input`.

    Raises `ValueError` for an operator that is not tagged semi-definite, or that is no PyTree of
    arrays which can be cast (a function, for instance).

    Source: J. H. Wilkinson, *Rounding Errors in Algebraic Processes*, 1963; A. Buttari et al.,
    *Mixed precision iterative refinement techniques*, 2007.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, lineax as lx, jinv
        >>> inner = jinv.linear.PCG(1e-3, 0.0, preconditioner=jinv.linear.Multigrid())
        >>> solver = jinv.linear.Refinement(inner, 1e-10, 0.0)
        >>> with jax.enable_x64(True):
        ...     A = jinv.linear.poisson((64, 64), dtype=jnp.float64)
        ...     solution = lx.linear_solve(A, jnp.ones((64, 64)), solver)
        ...     print(solution.stats["residual"] < 1e-10)
        True

        ```
    """

    solver: lx.AbstractLinearSolver
    rtol: Any
    atol: Any
    dtype: Any = eqx.field(static=True, kw_only=True, default=jnp.float32)
    max_rounds: int = eqx.field(static=True, kw_only=True, default=20)

    def __check_init__(self):
        check_tolerances(self.rtol, self.atol)
        as_inexact(self.dtype)
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds must be at least 1, got {self.max_rounds}.")

    def init(self, operator, options):
        check_operator(operator, "Refinement")
        narrow = _cast(operator, self.dtype)
        structure = narrow.in_structure()
        if any(leaf.dtype != jnp.dtype(self.dtype) for leaf in jax.tree.leaves(structure)):
            raise ValueError(
                f"Refinement cannot cast a {type(operator).__name__} to {jnp.dtype(self.dtype)}: "
                "it needs an operator made of arrays, such as jinv.linear.Diffusion."
            )
        return operator, self.solver.init(narrow, {})

    def compute(self, state, vector, options):
        operator, inner = state
        vector = match_varying(vector, (operator, vector))
        size = _tree.norm(vector)
        finite = _tree.all_finite((vector, options.get("y0")))
        goal = jnp.maximum(jnp.asarray(self.atol, size.dtype), self.rtol * size)
        value = options.get("y0", jax.tree.map(jnp.zeros_like, vector))
        residual = _tree.subtract(vector, operator.mv(value)) if "y0" in options else vector
        norm = _tree.norm(residual)

        def body(carry):
            value, residual, norm, steps, rounds, _ = carry
            scaled = _cast(_tree.scale(1 / jnp.where(norm > 0, norm, 1), residual), self.dtype)
            change, _, stats = self.solver.compute(inner, scaled, {})
            change = jax.tree.map(lambda d, x: d.astype(x.dtype), change, value)
            value = _tree.add_scaled(value, norm, change)
            residual = _tree.subtract(vector, operator.mv(value))
            new = _tree.norm(residual)
            # Not-a-number counts as stuck, too.
            stuck = ~(new < 0.5 * norm)
            steps = steps + jnp.asarray(stats["num_steps"], jnp.int32)
            return value, residual, new, steps, rounds + 1, stuck

        def going(carry):
            *_, norm, _, rounds, stuck = carry
            return finite & (norm > goal) & ~stuck & (rounds < self.max_rounds)

        zero = jnp.zeros((), jnp.int32)
        start = value, residual, norm, zero, zero, jnp.zeros((), bool)
        start = match_varying(start, (operator, vector))
        value, _, norm, steps, rounds, stuck = jax.lax.while_loop(going, body, start)
        where = lx.RESULTS.where
        result = where(stuck, lx.RESULTS.stagnation, lx.RESULTS.max_steps_reached)
        result = where(norm <= goal, lx.RESULTS.successful, result)
        result = where(finite, result, lx.RESULTS.nonfinite_input)
        residual = norm / jnp.where(size == 0, 1, size)
        stats = {"num_steps": steps, "num_rounds": rounds, "max_steps": None, "residual": residual}
        return value, result, stats

    def assume_full_rank(self):
        return self.solver.assume_full_rank()


def _cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)
