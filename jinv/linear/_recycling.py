"""Conjugate gradients that learn a deflation space from one system for the next."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from .. import _tree
from .._loop import match_varying
from ._checks import AbstractSymmetricSolver, check_operator, check_tolerances
from ._preconditioner import AbstractPreconditioner


class RecycledPCG(AbstractSymmetricSolver):
    r"""Preconditioned conjugate gradients in the $A$-orthogonal complement of a deflation space,
    $p_j = z_j - W W^T\! A z_j + \beta_j p_{j-1}$ with $W^T\! A W = I$ and $z_j = M^{-1} r_j$;
    and a better space for the next, related system.

    For sequences of systems with slowly changing operators (time steps, Newton steps, data for
    neural operators), see [`jinv.linear.solve_sequence`][], whose preconditioner leaves a few
    small eigenvalues of $M^{-1} A$. While it solves, it computes the Ritz vectors of the
    `dimension` smallest ones from the directions (in the $A$-inner product, in which $M^{-1} A$
    is symmetric); deflated, they slow the next solve down no more. A solve costs `dimension`
    products and applications of the preconditioner more than [`jinv.linear.PCG`][], a step
    `4 dimension` vector operations, and there are `3 (window + 2 dimension)` vectors more to
    store. It does not pay where ten or twenty steps are enough, as with multigrid.

    **Arguments:**

    - `rtol`, `atol`: stops as [`jinv.linear.PCG`][] does, by the true residual, and when that is
        as small as the dtype allows.
    - `preconditioner`: a [`jinv.linear.AbstractPreconditioner`][] or a positive definite lineax
        operator; must not change from step to step.
    - `dimension`: of the deflation space, `k`.
    - `window`: the steps between two updates of the Ritz vectors, with one product more.
    - `max_steps`: the largest number of steps; by default ten times the unknowns.

    `options`: `deflation`, the space that an earlier solve left in its `stats` (vectors like the
    solution, stacked along a first axis of length `k`; zero vectors count as none); and `y0`,
    the first guess.

    **Returns** (through `lineax.linear_solve`): `stats` has `num_steps`, `max_steps`, `residual`
    (the true one, relative to the right-hand side) and `deflation`, $A$-orthonormal (with zero
    vectors after a short solve). Results besides success: `max_steps_reached`; `stagnation`;
    `breakdown`, where the operator or the preconditioner shows that it is not positive
    definite; `nonfinite_input`.

    Raises `ValueError` for an operator that is not tagged semi-definite, and for a
    preconditioner or a `deflation` that does not fit.

    Source: Y. Saad, M. Yeung, J. Erhel and F. Guyomarc'h, *A deflated version of the conjugate
    gradient algorithm*, 2000. Deviations: the Ritz vectors are updated every `window` steps,
    from all directions, as in A. Stathopoulos and K. Orginos, 2010, not from the first ones
    only; the residual is replaced by the true one at that time.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((32, 32))
        >>> b = jax.random.normal(jax.random.key(0), (2, 32, 32))
        >>> solver = jinv.linear.RecycledPCG(1e-4, 0.0, dimension=12)
        >>> first = lx.linear_solve(A, b[0], solver)
        >>> options = {"deflation": first.stats["deflation"]}
        >>> second = lx.linear_solve(A, b[1], solver, options=options)
        >>> bool(second.stats["num_steps"] < first.stats["num_steps"])
        True

        ```
    """

    rtol: Any
    atol: Any
    preconditioner: AbstractPreconditioner | lx.AbstractLinearOperator | None = None
    dimension: int = eqx.field(static=True, kw_only=True, default=10)
    window: int = eqx.field(static=True, kw_only=True, default=20)
    max_steps: int | None = eqx.field(static=True, kw_only=True, default=None)

    def __check_init__(self):
        check_tolerances(self.rtol, self.atol)
        for name in ("dimension", "window", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")

    def init(self, operator, options):
        check_operator(operator, "RecycledPCG")
        sign = -1.0 if lx.is_negative_semidefinite(operator) else 1.0
        operator = lx.linearise(operator if sign > 0 else -operator)
        structure, given = operator.in_structure(), self.preconditioner
        if isinstance(given, AbstractPreconditioner):
            given = given.init(operator)
        elif given is None:
            given = lx.IdentityLinearOperator(structure)
        fits = isinstance(given, lx.AbstractLinearOperator) and given.in_structure() == structure
        if not fits or not lx.is_positive_semidefinite(given):
            raise ValueError(
                "preconditioner must be an AbstractPreconditioner, or a lineax operator on "
                f"{structure} that is tagged positive semi-definite, got {given}."
            )
        return operator, given, jnp.asarray(sign)

    def compute(self, state, vector, options):
        operator, preconditioner, sign = state
        vector = match_varying(vector, (state, vector))
        rhs, unravel = jax.flatten_util.ravel_pytree(vector)
        size = _tree.norm(rhs)
        finite = _tree.all_finite((rhs, options.get("y0")))
        limit = 10 * rhs.size if self.max_steps is None else self.max_steps
        run = _Run(
            multiply=lambda x: _ravel(operator.mv(unravel(x))),
            precondition=lambda x: _ravel(preconditioner.mv(unravel(x))),
            rhs=sign.astype(rhs.dtype) * jnp.where(finite, rhs, 0),
            goal=jnp.maximum(_tree.cast(self.atol, size), _tree.cast(self.rtol, size) * size),
            window=self.window,
            max_steps=limit,
        )
        given = _stacked(options.get("deflation"), operator.in_structure(), self.dimension)
        guess = _ravel(options["y0"]) if "y0" in options else jnp.zeros_like(rhs)
        out = run(given, guess)
        kept = jnp.where(jnp.all(jnp.isfinite(out.ritz.vectors)), out.ritz.vectors, given)
        stats = {
            "num_steps": out.num_steps,
            "max_steps": limit,
            "residual": jnp.where(size == 0, 0, out.norm / jnp.where(size == 0, 1, size)),
            "deflation": jax.vmap(unravel)(kept),
        }
        result = lx.RESULTS.where(finite, out.result, lx.RESULTS.nonfinite_input)
        return unravel(out.value), result, stats

    def assume_full_rank(self):
        return True


class _Basis(eqx.Module):
    """Vectors `v` in rows, with `A v` and with `M^-1 A v`."""

    vectors: Float[Array, "k n"]
    products: Float[Array, "k n"]
    images: Float[Array, "k n"]

    def combine(self, weights):
        return jax.tree.map(lambda rows: weights.T @ rows, self)

    def masked(self, valid):
        return jax.tree.map(lambda rows: jnp.where(valid[:, None], rows, 0), self)

    def set(self, k, vector, product):
        where = lambda basis: (basis.vectors, basis.products)
        new = self.vectors.at[k].set(vector), self.products.at[k].set(product)
        return eqx.tree_at(where, self, new)

    def ritz(self, count):
        """The `count` Ritz vectors of the smallest Ritz values of `M^-1 A`, `A`-orthonormal."""
        gram = self.vectors @ self.products.T
        scale, rotation = jnp.linalg.eigh((gram + gram.T) / 2)
        # Zero vectors, and what nearly depends on the others.
        keep = scale > 100 * len(scale) * jnp.finfo(scale.dtype).eps * scale[-1]
        rotation = rotation * jnp.where(keep, 1 / jnp.sqrt(jnp.where(keep, scale, 1)), 0)[None]
        small = rotation.T @ (self.products @ self.images.T) @ rotation
        small = (small + small.T) / 2 + jnp.diag(jnp.where(keep, 0, 2 * jnp.trace(small) + 1))
        return self.combine(rotation @ jnp.linalg.eigh(small)[1][:, :count])


class _Loop(eqx.Module):
    value: Array
    residual: Array
    direction: Array
    z: Array
    gamma: Array
    scale: Array
    norm: Array
    reached: Array
    num_steps: Array
    since: Array
    result: lx.RESULTS
    done: Array
    ritz: _Basis
    steps: _Basis


class _Run(eqx.Module):
    """The iteration on flat vectors: windows of steps, each ended by the true residual."""

    multiply: Callable
    precondition: Callable
    rhs: Array
    goal: Array
    window: int
    max_steps: int

    def __call__(self, given, guess):
        count = len(given)
        products = jax.vmap(self.multiply)(given)
        space = _Basis(given, products, jax.vmap(self.precondition)(products)).ritz(count)
        empty = jnp.zeros((self.window + 1, self.rhs.size), self.rhs.dtype)
        zero, one = jnp.zeros((), self.rhs.dtype), jnp.ones((), self.rhs.dtype)
        value, residual = self._project(space, guess)
        norm = _tree.norm(residual)
        start = _Loop(
            value=value,
            residual=residual,
            direction=jnp.zeros_like(value),
            z=jnp.zeros_like(value),
            gamma=one,
            scale=zero,
            norm=norm,
            reached=jnp.full_like(norm, jnp.inf),
            num_steps=jnp.zeros((), jnp.int32),
            since=jnp.zeros((), jnp.int32),
            result=lx.RESULTS.successful,
            done=~(norm > self.goal),
            ritz=space,
            steps=_Basis(empty, empty, empty),
        )
        start = match_varying(start, (start, self.goal))
        floor = 4 * jnp.finfo(norm.dtype).eps * self._row_norm()
        cycle = lambda s: self._cycle(space, floor, s)
        return jax.lax.while_loop(lambda s: ~s.done, cycle, start)

    def _project(self, space, value):
        """The value with the best correction from the space, and its true residual."""
        residual = self.rhs - self.multiply(value)
        change = space.vectors @ residual
        return value + change @ space.vectors, residual - change @ space.products

    def _row_norm(self):
        """The root mean square of the norms of the rows of `A`, estimated."""
        signs = jax.random.rademacher(jax.random.key(0), self.rhs.shape, self.rhs.dtype)
        return _tree.norm(self.multiply(signs)) / _tree.norm(signs)

    def _cycle(self, space, floor, s):
        going = lambda s: (
            (s.norm > self.goal)
            & (s.since <= self.window)
            & (s.num_steps < self.max_steps)
            & (s.result == lx.RESULTS.successful)
        )
        s = eqx.tree_at(lambda s: s.since, s, jnp.zeros_like(s.since))
        s = jax.lax.while_loop(going, lambda s: self._step(space, s), s)
        # The image of a direction is known one step later.
        steps = s.steps.masked(jnp.arange(self.window + 1, dtype=jnp.int32) < s.since - 1)
        both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), s.ritz, steps)
        value, residual = self._project(space, s.value)
        norm = _tree.norm(residual)
        claimed = s.norm <= self.goal
        # No vector of this dtype has a residual much smaller than eps |A| |x|.
        slow = norm > 0.5 * s.reached
        solved = (norm <= self.goal) | (slow & (norm <= floor * _tree.norm(value)))
        # The recursion met the goal, and the truth is no better than half of last time.
        stuck = claimed & slow & ~solved
        failed = s.result != lx.RESULTS.successful
        exhausted = s.num_steps >= self.max_steps
        where = lx.RESULTS.where
        result = where(stuck, lx.RESULTS.stagnation, s.result)
        over = exhausted & ~solved & ~stuck & ~failed
        return _Loop(
            value=value,
            residual=residual,
            direction=jnp.where(claimed, 0, s.direction),
            z=s.z,
            gamma=s.gamma,
            scale=s.scale,
            norm=norm,
            reached=norm,
            num_steps=s.num_steps,
            since=s.since,
            result=where(over, lx.RESULTS.max_steps_reached, result),
            done=solved | jnp.isnan(norm) | stuck | failed | exhausted,
            ritz=both.ritz(len(space.vectors)),
            steps=steps,
        )

    def _step(self, space, s):
        z = self.precondition(s.residual)
        gamma = z @ s.residual
        direction = z - (space.products @ z) @ space.vectors + gamma / s.gamma * s.direction
        product = self.multiply(direction)
        curvature = direction @ product
        positive = (gamma > 0) & (curvature > 0) & jnp.isfinite(gamma) & jnp.isfinite(curvature)
        safe = jnp.where(positive, curvature, 1)
        step = jnp.where(positive, gamma, 0) / safe
        residual = s.residual - step * product
        # M^-1 A p is the change of z over the step; in the first step it goes where none is read.
        images = s.steps.images.at[s.since - 1].set(s.scale * (s.z - z))
        steps = eqx.tree_at(lambda basis: basis.images, s.steps, images)
        unit = 1 / jnp.sqrt(safe)
        return _Loop(
            value=s.value + step * direction,
            residual=residual,
            direction=direction,
            z=z,
            gamma=jnp.where(positive, gamma, s.gamma),
            scale=unit / jnp.where(positive, step, 1),
            norm=_tree.norm(residual),
            reached=s.reached,
            num_steps=s.num_steps + positive.astype(jnp.int32),
            since=s.since + 1,
            result=lx.RESULTS.where(positive, s.result, lx.RESULTS.breakdown),
            done=s.done,
            ritz=s.ritz,
            steps=steps.set(s.since, unit * direction, unit * product),
        )


def _ravel(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def _stacked(deflation, structure, count):
    """The space as rows of flat vectors."""
    shapes = jax.tree.map(lambda x: (count, *x.shape), structure)
    if deflation is None:
        zeros = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), structure)
        return jax.vmap(_ravel)(zeros)
    if jax.tree.map(jnp.shape, deflation) != shapes:
        raise ValueError(
            f"deflation must hold {count} vectors (the solver's dimension) of structure "
            f"{structure} along a first axis, got shapes {jax.tree.map(jnp.shape, deflation)}."
        )
    return jax.vmap(_ravel)(deflation)
