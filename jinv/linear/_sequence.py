"""Sequences of related systems."""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Int, PyTree

from .._loop import raise_if
from ._recycling import RecycledPCG


def solve_sequence(
    make_operator: Callable[[Any], lx.AbstractLinearOperator],
    parameters: PyTree[Array],
    vectors: PyTree[Array],
    solver: RecycledPCG,
    *,
    deflation: PyTree[Array] | None = None,
    warm_start: bool = False,
    throw: bool = True,
) -> lx.Solution:
    r"""Solves $A(\theta_i)\, x_i = b_i$ one after the other, each with the deflation space that
    the ones before have left.

    For thousands of similar systems, as in making training data: order them first, by
    [`jinv.linear.sort_systems`][]. Independent systems that fit on a GPU together are better
    solved by `vmap`: a sequence cannot be. May be jitted, and is differentiable with respect to
    parameters and right-hand sides.

    **Arguments:**

    - `make_operator`: a function of the parameters of one system.
    - `parameters`: those of all systems, along a first axis of length `N`.
    - `vectors`: the right-hand sides, likewise.
    - `solver`: a [`jinv.linear.RecycledPCG`][].
    - `deflation`: the space for the first system, such as one that an earlier call left.
    - `warm_start`: takes each solution for the next first guess. Worth it only where right-hand
        sides change slowly, too.
    - `throw`: raises if a solve fails; otherwise see `result`.

    **Returns:** a `lineax.Solution` with the first axis `N` for `value`, `result` and all `stats`
    except `deflation`, which is the last one. Its `state` is `None`.

    Source: H. Wang, Z. Hao, J. Wang, Z. Geng, Z. Wang, B. Li and F. Wu, *Accelerating data
    generation for neural operators via Krylov subspace recycling*, 2024. Deviation: conjugate
    gradients for symmetric systems, not GCRO-DR.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> k = jnp.exp(jax.random.normal(jax.random.key(0), (3, 1, 1)) + jnp.zeros((16, 16)))
        >>> solver = jinv.linear.RecycledPCG(1e-4, 0.0, jinv.linear.Jacobi())
        >>> make = jinv.linear.heterogeneous_diffusion
        >>> solution = jinv.linear.solve_sequence(make, k, jnp.ones((3, 16, 16)), solver)
        >>> solution.value.shape
        (3, 16, 16)

        ```
    """
    first = jax.tree.map(lambda x: x[0], (parameters, vectors))
    structure = jax.eval_shape(lambda p: make_operator(p).mv(first[1]), first[0])
    shape = lambda x: jnp.zeros((solver.dimension, *x.shape), x.dtype)
    start = jax.tree.map(shape, structure) if deflation is None else deflation
    guess = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), structure)

    def solve(carry, item):
        space, guess = jax.lax.stop_gradient(carry)
        parameter, vector = item
        options = {"deflation": space, "y0": guess} if warm_start else {"deflation": space}
        operator = make_operator(parameter)
        solution = lx.linear_solve(operator, vector, solver, options=options, throw=False)
        stats = dict(solution.stats)
        return (stats.pop("deflation"), solution.value), (solution.value, solution.result, stats)

    (space, _), (value, result, stats) = jax.lax.scan(solve, (start, guess), (parameters, vectors))
    if throw:
        failed = result != lx.RESULTS.successful
        first_failure = jax.tree.map(lambda x: x[jnp.argmax(failed)], result)
        value = raise_if(jnp.any(failed), first_failure, value)
    return lx.Solution(value, result, {**stats, "deflation": space}, None)


def sort_systems(parameters: PyTree[Array]) -> Int[Array, " N"]:
    r"""An order in which neighbours are similar: from the first system on, always the nearest
    one that is left, by the Euclidean distance of the parameters.

    For [`jinv.linear.solve_sequence`][], whose spaces fit the better the less the operators
    change. Costs `N` passes over all parameters; greedy, at most a few times longer than the
    shortest path.

    **Arguments:**

    - `parameters`: of all systems, along a first axis of length `N`.

    **Returns:** the indices of the systems in that order.

    Source: as [`jinv.linear.solve_sequence`][], algorithm 2. Deviation: distances in the
    parameters' space itself, without a transform before.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> print(jinv.linear.sort_systems(jnp.array([0.0, 3.0, 1.0, 2.5])))
        [0 2 3 1]

        ```
    """
    flat = jax.vmap(lambda x: jax.flatten_util.ravel_pytree(x)[0])(parameters)

    def nearest(carry, _):
        current, left = carry
        left = left.at[current].set(False)
        distance = jnp.sum((flat - flat[current][None]) ** 2, axis=1)
        following = jnp.argmin(jnp.where(left, distance, jnp.inf)).astype(jnp.int32)
        return (following, left), current

    start = jnp.zeros((), jnp.int32), jnp.ones(len(flat), bool)
    return jax.lax.scan(nearest, start, length=len(flat))[1]
