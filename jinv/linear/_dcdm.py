"""Deep conjugate directions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from .. import _tree
from .._loop import match_varying
from ._checks import AbstractSymmetricSolver, check_operator, check_tolerances
from ._direction import Direction, as_direction
from ._pcg import _orthonormal, _project


class DCDM(AbstractSymmetricSolver):
    r"""Deep conjugate directions for a symmetric positive definite system $A x = b$: every step
    minimises the error's energy norm along a direction that a model makes from the residual.

    With $q = f(r / \|r\|)$, a step is
    $p = q - \sum_j p_j \langle q, A p_j\rangle / \langle p_j, A p_j\rangle$ over the previous
    `memory` directions, $x \leftarrow x + p \langle p, r\rangle / \langle p, A p\rangle$. It
    costs one application of the model and two products with $A$. $f$ need not be linear,
    symmetric or definite, and the solution is right whatever it is; how many steps that takes
    is the model's matter. The energy norm of the error never grows, and a step gains at least
    what the line search along $q$ itself would.

    A network of the published size costs as much as hundreds of products with $A$: count
    seconds besides steps, and compare with [`jinv.linear.PCG`][] and
    [`jinv.linear.Multigrid`][].

    **Arguments:**

    - `rtol`, `atol`: stops when $\|b - A x\|_2 \le \max(\texttt{atol}, \texttt{rtol}\,\|b\|_2)$,
        with the true residual; changing them does not compile anew.
    - `direction`: $f$, one of: a function, such as [`jinv.linear.DirectionNet`][] or a network
        of any other library; a [`jinv.linear.AbstractDirection`][], which is set up from the
        operator, such as [`jinv.linear.UNetDirection`][]; a
        [`jinv.linear.AbstractPreconditioner`][]; a lineax operator. Its arrays are constants: the
        derivative of a solve with respect to them is an error (train with
        [`jinv.linear.conjugate_direction_loss`][]).
    - `memory`: the number of previous directions to be conjugate to. Two are enough for all,
        up to rounding, where $f$ is linear and symmetric; then this is conjugate gradients
        preconditioned with $f$. With a network more of them can save half of the steps and
        more; each costs two vectors. None is the steepest descent along $f$.
    - `passes`: how many times to orthogonalise. A second pass removes what rounding left of a
        direction that is almost a combination of the previous ones.
    - `replace_every`: steps after which the residual is computed as $b - A x$; between them it
        follows the recursion $r - \alpha A p$, which saves a product. No system is called solved
        before its true residual was computed.
    - `max_steps`: the largest number of steps; by default ten times the unknowns.
    - `null_space`: as for [`jinv.linear.PCG`][]; directions are projected too.
    - `history`: also returns the norms of the residuals; costs `max_steps` numbers.

    `options`: `y0`, the first guess.

    On a [`jinv.linear.Diffusion`][], cells without an open face (solid and air cells) are kept
    from the model, if that is a function or an `AbstractDirection`: it sees a zero residual
    there, and its value is replaced by their own exact solution, zero for a zero residual.

    **Returns** (through `lineax.linear_solve`): `stats` has `num_steps`, `max_steps`, `residual`
    (the true one, relative to the right-hand side), `incompatible` (the norm of what was
    projected away, relative likewise) and, with `history`, `residuals` (relative; `NaN` after
    the last step). Results besides success: `max_steps_reached`; `stagnation`, where the
    residual is mostly rounding, that is the accuracy of the dtype is reached (see
    [`jinv.linear.Refinement`][]); `breakdown`, where a direction is zero, not finite,
    orthogonal to the residual, a combination of the previous ones, or shows that the operator
    is not positive definite; `nonfinite_input`. With `vmap`, lanes stop one by one.

    Raises `ValueError` for an operator that is not tagged (negative or positive) semi-definite,
    for a complex one, for a direction that does not fit, and for negative tolerances.

    Source: A. Kaneda, O. Akar, J. Chen, V. Kala, D. Hyde, J. Teran, *A Deep Conjugate Direction
    Method for Iteratively Solving Linear Systems*, International Conference on Machine Learning,
    2023. The defaults are those of the authors' program. Deviations: the tolerance is relative
    to the right-hand side instead of the first residual, which is the same from a zero guess;
    failures are results; `passes` and `replace_every` above one, `null_space` and the treatment
    of lone cells are additions.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((32, 32))
        >>> model = lambda r: jnp.tanh(8 * jinv.linear.Chebyshev(8).init(A).mv(r))
        >>> solver = jinv.linear.DCDM(1e-4, 0.0, model)
        >>> solution = lx.linear_solve(A, jnp.ones((32, 32)), solver)
        >>> bool(solution.stats["num_steps"] < 25), bool(solution.stats["residual"] <= 1e-4)
        (True, True)

        ```
    """

    rtol: Any
    atol: Any
    direction: Direction
    memory: int = eqx.field(static=True, kw_only=True, default=2)
    passes: int = eqx.field(static=True, kw_only=True, default=1)
    replace_every: int = eqx.field(static=True, kw_only=True, default=1)
    max_steps: int | None = eqx.field(static=True, kw_only=True, default=None)
    null_space: PyTree[Array] | None = eqx.field(kw_only=True, default=None)
    history: bool = eqx.field(static=True, kw_only=True, default=False)

    def __check_init__(self):
        check_tolerances(self.rtol, self.atol)
        least = {"memory": 0, "passes": 1, "replace_every": 1, "max_steps": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}.")

    def init(self, operator, options):
        negative = lx.is_negative_semidefinite(operator)
        check_operator(operator, "DCDM")
        positive = -operator if negative else operator
        sign = jnp.asarray(-1.0 if negative else 1.0)
        basis = _orthonormal(self.null_space, operator)
        return lx.linearise(positive), as_direction(self.direction, positive), basis, sign

    def compute(self, state, vector, options):
        operator, direction, basis, sign = state
        vector = match_varying(vector, (state, vector))
        vector = _tree.scale(sign, vector)
        y0 = options.get("y0")
        finite, size = _tree.all_finite((vector, y0)), _tree.norm(vector)
        rhs = _project(vector, basis)
        removed = _tree.norm(_tree.subtract(vector, rhs))
        goal = jnp.maximum(_tree.cast(self.atol, size), _tree.cast(self.rtol, size) * size)
        unknowns = sum(leaf.size for leaf in jax.tree.leaves(vector))
        max_steps = 10 * unknowns if self.max_steps is None else self.max_steps
        run = _Run(self, operator, direction, basis, max_steps)
        empty = size == 0
        out = run(rhs, y0, jnp.where(finite & ~empty, goal, jnp.inf))
        value = _project(out.value, basis)
        value = jax.tree.map(lambda x: jnp.where(empty, 0, x), value)
        scale = jnp.where(empty, 1, size)
        stats = {
            "num_steps": out.num_steps,
            "max_steps": max_steps,
            "residual": jnp.where(empty, 0, out.norm / scale),
            "incompatible": removed / scale,
        }
        if self.history:
            stats["residuals"] = out.history / scale
        return value, lx.RESULTS.where(finite, out.result, lx.RESULTS.nonfinite_input), stats

    def assume_full_rank(self):
        return self.null_space is None


class _Loop(eqx.Module):
    value: PyTree[Array]
    residual: PyTree[Array]
    norm: Array
    directions: PyTree[Array]
    products: PyTree[Array]
    curvatures: Array
    num_steps: Array
    since: Array
    noisy: Array
    result: lx.RESULTS
    done: Array
    history: Array | None


class _Run(eqx.Module):
    """The iteration: cycles of steps, each ended by the true residual."""

    solver: DCDM
    operator: lx.AbstractLinearOperator
    direction: Callable
    basis: Array | None
    max_steps: int = eqx.field(static=True)

    def __call__(self, rhs, guess, goal):
        value = jax.tree.map(jnp.zeros_like, rhs) if guess is None else guess
        residual = rhs if guess is None else _tree.subtract(rhs, self.operator.mv(guess))
        norm = _tree.norm(residual)
        memory = self.solver.memory
        stack = jax.tree.map(lambda x: jnp.zeros((memory, *x.shape), x.dtype), rhs)
        history = None
        if self.solver.history:
            history = jnp.full(self.max_steps + 1, jnp.nan, norm.dtype).at[0].set(norm)
        start = _Loop(
            value=value,
            residual=residual,
            norm=norm,
            directions=stack,
            products=stack,
            curvatures=jnp.ones(memory, norm.dtype),
            num_steps=jnp.zeros((), jnp.int32),
            since=jnp.zeros((), jnp.int32),
            noisy=jnp.full_like(norm, jnp.inf),
            result=lx.RESULTS.successful,
            done=~(norm > goal),
            history=history,
        )
        start = match_varying(start, (rhs, goal, self))
        return jax.lax.while_loop(lambda s: ~s.done, lambda s: self._cycle(s, rhs, goal), start)

    def _cycle(self, s, rhs, goal):
        successful = lx.RESULTS.successful
        if self.solver.replace_every == 1:
            s = self._step(s)
        else:
            s = eqx.tree_at(lambda s: s.since, s, jnp.zeros_like(s.since))
            going = lambda s: (
                (s.norm > goal)
                & (s.since < self.solver.replace_every)
                & (s.num_steps < self.max_steps)
                & (s.result == successful)
            )
            s = jax.lax.while_loop(going, lambda s: self._step(s), s)
        residual = _tree.subtract(rhs, self.operator.mv(s.value))
        norm = _tree.norm(residual)
        # What the recursion does not know of is rounding. Twice, as a long recursion drifts
        # although steps from the true residual still gain.
        noise = _tree.norm(_tree.subtract(residual, s.residual))
        noisy = (noise > 0.7 * norm) & (norm > goal)
        stuck = noisy & (norm > 0.5 * s.noisy)
        reached = norm <= goal
        exhausted = s.num_steps >= self.max_steps
        where = lx.RESULTS.where
        result = where(exhausted, lx.RESULTS.max_steps_reached, s.result)
        result = where(stuck, lx.RESULTS.stagnation, result)
        result = where(s.result == successful, result, s.result)
        result = where(reached, successful, result)
        history = s.history
        if history is not None:
            history = history.at[s.num_steps].set(norm)
        return eqx.tree_at(
            lambda s: (s.residual, s.norm, s.noisy, s.result, s.done, s.history),
            s,
            (
                residual,
                norm,
                jnp.where(noisy, norm, s.noisy),
                result,
                reached | stuck | exhausted | (s.result != successful),
                history,
            ),
            is_leaf=lambda x: x is None,
        )

    def _step(self, s):
        q = self.direction(_tree.scale(1 / s.norm, s.residual))
        q = _project(q, self.basis)
        p = q
        for _ in range(self.solver.passes if self.solver.memory else 0):
            p = _conjugate(p, s)
        product = self.operator.mv(p)
        curvature, slope = _tree.dot(p, product), _tree.dot(p, s.residual)
        tiny = 10 * float(jnp.finfo(curvature.dtype).eps)
        new = _tree.norm(p) > tiny * _tree.norm(q)
        sound = new & (curvature > 0) & (slope != 0) & jnp.isfinite(curvature) & jnp.isfinite(slope)
        clean = lambda tree: jax.tree.map(lambda x: jnp.where(sound, x, 0), tree)
        p, product = clean(p), clean(product)
        curvature = jnp.where(sound, curvature, 1)
        step = jnp.where(sound, slope, 0) / curvature
        residual = _tree.add_scaled(s.residual, -step, product)
        norm = _tree.norm(residual)
        directions, products, curvatures = s.directions, s.products, s.curvatures
        if self.solver.memory:
            put = lambda stack, x: stack.at[s.num_steps % self.solver.memory].set(x)
            directions = jax.tree.map(put, directions, p)
            products = jax.tree.map(put, products, product)
            curvatures = put(curvatures, curvature)
        num_steps = s.num_steps + sound.astype(jnp.int32)
        history = s.history
        if history is not None:
            history = history.at[num_steps].set(norm)
        return _Loop(
            value=_tree.add_scaled(s.value, step, p),
            residual=residual,
            norm=norm,
            directions=directions,
            products=products,
            curvatures=curvatures,
            num_steps=num_steps,
            since=s.since + 1,
            noisy=s.noisy,
            result=lx.RESULTS.where(sound, s.result, lx.RESULTS.breakdown),
            done=s.done,
            history=history,
        )


def _conjugate(q, s):
    """`q` without its components along the previous directions (classical Gram-Schmidt)."""
    along = jax.vmap(_tree.dot, (0, None))(s.products, q) / s.curvatures
    scaled = jax.vmap(_tree.scale)(along, s.directions)
    return jax.tree.map(lambda x, ps: x - jnp.sum(ps, axis=0), q, scaled)
