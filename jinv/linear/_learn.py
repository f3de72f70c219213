"""What learned preconditioners are trained for: the progress of conjugate gradients."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ._pcg import PCG
from ._preconditioner import AbstractPreconditioner


def convergence_loss(
    preconditioner: AbstractPreconditioner,
    operator: lx.AbstractLinearOperator,
    vector: PyTree[Array],
    *,
    steps: int = 6,
) -> Float[Array, ""]:
    r"""The mean logarithm of the reduction of the residual in a step of conjugate gradients,
    $\frac1k \log(\|r_k\| / \|r_0\|)$: unsupervised, and what a user of the solver pays for.

    For training the numbers of a preconditioner through the unrolled steps; `vmap` it over
    operators and right-hand sides. Differentiable with respect to everything.

    **Arguments:**

    - `preconditioner`: with the numbers to train.
    - `operator`, `vector`: one system.
    - `steps`: the number $k$ of steps.

    Raises `ValueError` for `steps` below 1 or an operator without the tag.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> weights = jinv.linear.MultigridWeights(2, trainable=True)
        >>> A = jinv.linear.poisson((32, 32))
        >>> loss = jinv.linear.convergence_loss(
        ...     jinv.linear.Multigrid(weights), A, jnp.ones((32, 32))
        ... )

        ```
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    system, _, _ = PCG(0.0, 0.0, preconditioner).init(operator, {})
    residual, _ = system.restrict(vector, None)
    size = _tree.norm(vector)

    def step(carry, _):
        residual, direction, gamma = carry
        z = system.preconditioner.mv(residual)
        new = _tree.dot(z, residual)
        direction = _tree.add_scaled(z, new / gamma, direction)
        product = system.operator.mv(direction)
        residual = _tree.add_scaled(residual, -new / _tree.dot(direction, product), product)
        return (residual, direction, new), None

    zeros = jax.tree.map(jnp.zeros_like, residual)
    start = residual, zeros, jnp.ones_like(size)
    (residual, _, _), _ = jax.lax.scan(step, start, length=steps)
    return jnp.log(_tree.norm(residual) / size) / steps
