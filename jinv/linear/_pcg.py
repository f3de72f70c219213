"""Preconditioned conjugate gradients."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from .. import _tree
from .._loop import hoist, match_varying
from ._checks import AbstractSymmetricSolver, check_operator, check_tolerances
from ._preconditioner import AbstractPreconditioner, AbstractReduction


class PCG(AbstractSymmetricSolver):
    r"""Conjugate gradients for a symmetric positive definite system $A x = b$, preconditioned.

    Stops when $\|b - A x\|_2 \le \max(\texttt{atol}, \texttt{rtol}\,\|b\|_2)$, or at
    $4 \varepsilon \|A\|_F \|x\|_2 / \sqrt n$ where that is larger: no vector of the dtype does
    better. In float32 that can be 1e-4 of $b$; [`jinv.linear.Refinement`][] goes on.

    The recursion's residual drifts from the true one; before this solver calls a system solved
    it computes $b - A x$, and goes on from there if that is not small enough. In exact
    arithmetic the error's energy norm falls by $(\sqrt\kappa - 1)/(\sqrt\kappa + 1)$ per step,
    with $\kappa$ the condition number of $M^{-1} A$.

    **Arguments:**

    - `rtol`, `atol`: the tolerances; changing them does not compile anew.
    - `preconditioner`: how to approximate the inverse: a
        [`jinv.linear.AbstractPreconditioner`][] such as [`jinv.linear.Multigrid`][], set up
        from the operator in `init`; a positive definite lineax operator; or a function of a
        vector that is symmetric positive definite (or not quite, with `flexible`). lineax's
        `options={"preconditioner": ...}` takes the same and wins.
    - `max_steps`: the largest number of steps; by default ten times the unknowns.
    - `replace_every`: steps after which the recursion's residual is replaced by the true one.
    - `flexible`: Polak and Ribiere's formula, for a preconditioner that changes from step to
        step or is not quite symmetric; one vector more.
    - `null_space`: vectors that span the null space of a singular operator, stacked along a
        first axis (see [`jinv.linear.null_space`][]). The right-hand side is projected onto the
        range, and the solution is the one orthogonal to the null space.
    - `history`: also returns the norms of the residuals; costs `max_steps` numbers. With a
        preconditioner that reduces the system (`Multigrid`), the first is that of the reduced one.

    `options`: `preconditioner`, and `y0`, the first guess (behind a `stop_gradient` where the
    solve is differentiated: it has no influence on the solution).

    **Returns** (through `lineax.linear_solve`): `stats` has `num_steps`, `max_steps`, `residual`
    (the true one, relative to the right-hand side), `incompatible` (the norm of what was
    projected away, relative likewise) and, with `history`, `residuals` (relative; `NaN` after
    the last step). Results besides success: `max_steps_reached`; `stagnation`, where the true
    residual stays above the tolerance although the recursion's does not; `breakdown`, where
    the operator or the preconditioner shows that it is not positive definite, or the operator is
    singular and the right-hand side outside its range (`max_steps_reached` is possible there too);
    `nonfinite_input`. With `vmap`, lanes stop one by one. Inside `jax.shard_map`, lineax needs
    `throw=False`, and for derivatives `check_vma=False`.

    Raises `ValueError` for an operator that is not tagged (negative or positive) semi-definite,
    for a complex one, for a preconditioner that does not fit, and for negative tolerances.

    Source: M. Hestenes and E. Stiefel, *Methods of conjugate gradients for solving linear
    systems*, 1952; Y. Notay, *Flexible conjugate gradients*, 2000; residual replacement after
    H. van der Vorst and Q. Ye, 2000. Deviation: the replacement is at fixed steps.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((64, 64))
        >>> solver = jinv.linear.PCG(1e-5, 0.0, preconditioner=jinv.linear.Multigrid())
        >>> solution = lx.linear_solve(A, jnp.ones((64, 64)), solver)
        >>> bool(solution.stats["num_steps"] < 10)
        True

        ```
    """

    rtol: Any
    atol: Any
    preconditioner: Any = None
    max_steps: int | None = eqx.field(static=True, kw_only=True, default=None)
    replace_every: int = eqx.field(static=True, kw_only=True, default=50)
    flexible: bool = eqx.field(static=True, kw_only=True, default=False)
    null_space: PyTree[Array] | None = eqx.field(kw_only=True, default=None)
    history: bool = eqx.field(static=True, kw_only=True, default=False)

    def __check_init__(self):
        check_tolerances(self.rtol, self.atol)
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}.")
        if self.replace_every < 1:
            raise ValueError(f"replace_every must be at least 1, got {self.replace_every}.")

    def init(self, operator, options):
        negative = lx.is_negative_semidefinite(operator)
        check_operator(operator, "PCG")
        operator = lx.linearise(-operator if negative else operator)
        if negative:
            operator = lx.TaggedLinearOperator(operator, lx.positive_semidefinite_tag)
        given = options.get("preconditioner", self.preconditioner)
        basis = _orthonormal(self.null_space, operator)
        sign = jnp.asarray(-1.0 if negative else 1.0)
        return _system(operator, given), basis, sign

    def compute(self, state, vector, options):
        system, basis, sign = state
        sign = sign.astype(_tree.real_dtype(vector))
        vector = _tree.scale(sign, match_varying(vector, (system, vector)))
        y0 = options.get("y0")
        zeros = jax.tree.map(jnp.zeros_like, vector)
        finite = _tree.all_finite((vector, y0))
        size = _tree.norm(vector)
        given, vector = vector, _project(vector, basis)
        removed = _tree.norm(_tree.subtract(given, vector))
        rhs, guess = system.restrict(vector, y0)
        goal = jnp.maximum(_tree.cast(self.atol, size), _tree.cast(self.rtol, size) * size)
        run = _Run(self, system.operator, system.preconditioner, self._limit(vector))
        out = run(rhs, guess, jnp.where(finite, goal, jnp.inf), size)
        value = _project(system.extend(out.value, vector), basis)
        value = jax.tree.map(lambda x, z: jnp.where(size == 0, z, x), value, zeros)
        scale = jnp.where(size == 0, 1, size)
        stats = {
            "num_steps": jnp.where(size == 0, 0, out.num_steps),
            "max_steps": run.max_steps,
            "residual": jnp.where(size == 0, 0, out.residual / scale),
            "incompatible": removed / scale,
        }
        if self.history:
            stats["residuals"] = out.history / scale
        where = lx.RESULTS.where
        result = where(size == 0, lx.RESULTS.successful, out.result)
        result = where(finite, result, lx.RESULTS.nonfinite_input)
        return value, result, stats

    def _limit(self, vector):
        unknowns = sum(leaf.size for leaf in jax.tree.leaves(vector))
        return 10 * unknowns if self.max_steps is None else self.max_steps

    def assume_full_rank(self):
        return self.null_space is None


class _Loop(eqx.Module):
    value: PyTree[Array]
    residual_vector: PyTree[Array]
    previous: PyTree[Array]
    direction: PyTree[Array]
    gamma: Array
    residual: Array
    num_steps: Array
    since: Array
    reached: Array
    result: lx.RESULTS
    done: Array
    history: Array | None


class _Run(eqx.Module):
    """The iteration: cycles of steps, each ended by the true residual."""

    solver: PCG
    operator: lx.AbstractLinearOperator
    preconditioner: lx.AbstractLinearOperator
    max_steps: int = eqx.field(static=True)

    def __call__(self, rhs, guess, goal, size):
        if guess is None:
            value, residual = jax.tree.map(jnp.zeros_like, rhs), rhs
        else:
            value, residual = guess, _tree.subtract(rhs, self.operator.mv(guess))
        norm = _tree.norm(residual)
        history = None
        if self.solver.history:
            history = jnp.full(self.max_steps + 1, jnp.nan, norm.dtype).at[0].set(norm)
        start = _Loop(
            value=value,
            residual_vector=residual,
            previous=residual if self.solver.flexible else None,
            direction=jax.tree.map(jnp.zeros_like, rhs),
            gamma=jnp.ones_like(norm),
            residual=norm,
            num_steps=jnp.zeros((), jnp.int32),
            since=jnp.zeros((), jnp.int32),
            reached=jnp.full_like(norm, jnp.inf),
            result=lx.RESULTS.successful,
            done=~(norm > goal),
            history=history,
        )
        start = match_varying(start, (rhs, goal, self.operator, self.preconditioner))
        end = jax.lax.while_loop(lambda s: ~s.done, lambda s: self._cycle(s, rhs, goal), start)
        # No vector of this dtype has a smaller residual than about eps |A| |x|.
        attained = end.residual <= 4 * jnp.finfo(norm.dtype).eps * self._size(end.value)
        stuck = end.result == lx.RESULTS.stagnation
        result = lx.RESULTS.where(stuck & attained, lx.RESULTS.successful, end.result)
        return eqx.tree_at(lambda s: s.result, end, result)

    def _size(self, value):
        """About `|A| |value|`, with the root mean square of the norms of the rows of `A`."""
        flat, unravel = jax.flatten_util.ravel_pytree(value)
        signs = unravel(jax.random.rademacher(jax.random.key(0), flat.shape, flat.dtype))
        ratio = _tree.norm(self.operator.mv(signs)) / jnp.asarray(flat.size**0.5, flat.dtype)
        return ratio * _tree.norm(value)

    def _cycle(self, s, rhs, goal):
        s = eqx.tree_at(lambda s: s.since, s, jnp.zeros_like(s.since))
        going = lambda s: (
            (s.residual > goal)
            & (s.since < self.solver.replace_every)
            & (s.num_steps < self.max_steps)
            & (s.result == lx.RESULTS.successful)
        )
        s = jax.lax.while_loop(going, lambda s: self._step(s), s)
        residual = _tree.subtract(rhs, self.operator.mv(s.value))
        norm = _tree.norm(residual)
        claimed = s.residual <= goal
        # The recursion met the goal, the truth did not, and no better than half of last time.
        stuck = claimed & (norm > goal) & (norm > 0.5 * s.reached)
        failed = s.result != lx.RESULTS.successful
        exhausted = s.num_steps >= self.max_steps
        where = lx.RESULTS.where
        result = where(stuck, lx.RESULTS.stagnation, s.result)
        result = where(exhausted & (norm > goal) & ~stuck, lx.RESULTS.max_steps_reached, result)
        result = where(failed, s.result, result)
        restart = lambda x: jnp.where(claimed, jnp.zeros_like(x), x)
        return eqx.tree_at(
            lambda s: (s.residual_vector, s.direction, s.residual, s.reached, s.result, s.done),
            s,
            (
                residual,
                jax.tree.map(restart, s.direction),
                norm,
                jnp.where(claimed, norm, s.reached),
                result,
                ~(norm > goal) | stuck | failed | exhausted,
            ),
        )

    def _step(self, s):
        z = self.preconditioner.mv(s.residual_vector)
        gamma = _tree.dot(z, s.residual_vector)
        change = gamma
        if self.solver.flexible:
            change = gamma - jnp.where(s.num_steps > 0, _tree.dot(z, s.previous), 0)
        direction = _tree.add_scaled(z, change / s.gamma, s.direction)
        product = self.operator.mv(direction)
        curvature = _tree.dot(direction, product)
        positive = (gamma > 0) & (curvature > 0) & jnp.isfinite(gamma) & jnp.isfinite(curvature)
        step = jnp.where(positive, gamma, 0) / jnp.where(positive, curvature, 1)
        if self.solver.flexible:
            along = _tree.dot(direction, s.residual_vector)
            step = jnp.where(positive, along, 0) / jnp.where(positive, curvature, 1)
        value = _tree.add_scaled(s.value, step, direction)
        residual = _tree.add_scaled(s.residual_vector, -step, product)
        norm = _tree.norm(residual)
        num_steps = s.num_steps + positive.astype(jnp.int32)
        history = s.history
        if history is not None:
            history = history.at[num_steps].set(norm)
        return _Loop(
            value=value,
            residual_vector=residual,
            previous=s.residual_vector if self.solver.flexible else None,
            direction=direction,
            gamma=jnp.where(positive, gamma, s.gamma),
            residual=norm,
            num_steps=num_steps,
            since=s.since + 1,
            reached=s.reached,
            result=lx.RESULTS.where(positive, s.result, lx.RESULTS.breakdown),
            done=s.done,
            history=history,
        )


class _Whole(AbstractReduction):
    """No reduction."""

    operator: lx.AbstractLinearOperator
    preconditioner: lx.AbstractLinearOperator

    def restrict(self, vector, y0):
        return vector, y0

    def extend(self, value, vector):
        return value


def _system(operator, given) -> AbstractReduction:
    if isinstance(given, AbstractPreconditioner):
        return given.reduce(operator) or _Whole(operator, given.init(operator))
    structure = operator.in_structure()
    if given is None:
        given = lx.IdentityLinearOperator(structure)
    elif not isinstance(given, lx.AbstractLinearOperator):
        if not callable(given):
            raise ValueError(
                "preconditioner must be an AbstractPreconditioner, a lineax operator or a "
                f"function, got {type(given).__name__}."
            )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), structure)
        tag = lx.positive_semidefinite_tag
        given = lx.FunctionLinearOperator(hoist(given, zeros), structure, tag)
    if given.in_structure() != structure or given.out_structure() != structure:
        raise ValueError(
            f"preconditioner must map {structure} to itself, got {given.in_structure()} to "
            f"{given.out_structure()}."
        )
    if not lx.is_positive_semidefinite(given):
        raise ValueError("preconditioner must be tagged positive semi-definite.")
    return _Whole(operator, given)


def _orthonormal(null_space, operator):
    if null_space is None:
        return None
    structure, flat = operator.in_structure(), None
    try:
        flat = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(null_space)
        fits = jax.tree.map(lambda x: (x.shape[1:], x.dtype), null_space) == jax.tree.map(
            lambda x: (x.shape, x.dtype), structure
        )
    except (ValueError, TypeError):
        fits = False
    if flat is None or not fits:
        raise ValueError(
            f"null_space must hold vectors of structure {structure} along a first axis."
        )
    if not flat.shape[0]:
        return None
    return jnp.linalg.qr(flat.T)[0].T


def _project(vector, basis):
    if basis is None:
        return vector
    flat, unravel = jax.flatten_util.ravel_pytree(vector)
    for _ in range(2):  # once more for what rounding left
        flat = flat - (basis @ flat) @ basis
    return unravel(flat)
