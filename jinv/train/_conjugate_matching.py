"""Training of a second network for the conjugate of a potential."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class ConjugateMatching(eqx.Module):
    r"""The loss that makes a network $G$ the conjugate $\psi^*$ of a potential on the range of
    its gradient, for `jinv.train.fit` with batches of points $y$.

    With $x = \nabla\psi(y)$ it is the mean of
    $(G(x) - \langle x, y\rangle + \psi(y))^2 + \|\nabla G(x) - y\|^2 / n$. Then
    $G(x) - \tfrac12\|x\|^2$ is the learned prior without an inversion: pass $G$ as `conjugate` to
    [`jinv.prox.LearnedProximalNetwork`][]. Draw the points as in the training of $\psi$.

    **Arguments:**

    - `potential`: $\psi$, which is not trained.

    The metrics are `value_error` and `gradient_error`, root mean squares.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> keys = jax.random.split(jax.random.key(0))
        >>> psi, G = (jinv.nn.dense_icnn(3, (8, 8), key=key) for key in keys)
        >>> loss, metrics = jinv.train.ConjugateMatching(psi)(G, jnp.zeros((5, 3)), None)
        >>> sorted(metrics)
        ['gradient_error', 'value_error']

        ```

    ??? cite "Source"
        Langlois et al., Learned proximal networks for (non-)convex high-dimensional
        Hamilton-Jacobi equations (the second network). Deviation: the gradients are matched too.
    """

    potential: Any

    def __call__(
        self, model: Any, batch: Float[Array, "batch ..."], key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        def errors(y):
            value, x = self.potential.value_and_gradient(y)
            conjugate, slope = model.value_and_gradient(x)
            return conjugate - jnp.sum(x * y) + value, jnp.mean((slope - y) ** 2)

        value, slope = jax.vmap(errors)(batch)
        value = jnp.mean(value**2)
        metrics = {"value_error": jnp.sqrt(value), "gradient_error": jnp.sqrt(jnp.mean(slope))}
        return value + jnp.mean(slope), metrics
