"""Training of a prior where it is used: at the fixed point of a solver."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._loop import stop_gradient
from ._proximal_matching import map_samples


class FixedPointMatching(eqx.Module):
    r"""The loss $\frac1B \sum_i \tfrac12 \log(\|x_i^* - x_i\|^2/n + \epsilon)$ of what a solver
    with the model inside reconstructs, for `jinv.train.fit`: up to units the mean peak
    signal-to-noise ratio.

    A denoiser trained on white noise meets other inputs inside plug-and-play, and is iterated on
    its own errors; this loss sees both. $x_i^*$ is the iterate after the `num_steps` of
    the batch and `last` further ones, and the derivative is that of those last ones alone: memory
    does not grow with the number of steps. Draw the numbers of steps from one to enough for
    convergence, so that early iterates are good and fixed points as well. The first steps have
    momentum, which changes no fixed point.

    Batches are tuples of the clean samples, the points to start from, the data of the problems (a
    PyTree with one problem per sample), and a whole number of steps. The metric `error` is the
    root mean square of $x^* - x$, `move` that of the last step.

    **Arguments:**

    - `step`: `step(model, x, problem)`, one step of the solver, for one sample.
    - `last`: the number of steps that are differentiated.
    - `momentum`: of the steps before, in [0, 1).
    - `floor`: $\epsilon$, in squared units of the data: what is below it has little weight.
    - `chunk`: the samples that are worked on at a time, `None` for all: one is fastest on a CPU
        from a few thousand pixels on, all on an accelerator.

    **Raises:** `ValueError` for a `last` or `chunk` below 1, a negative `floor`, or another
    `momentum`.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> model = jinv.nn.dense_icnn(3, (8, 8), quadratic=True, key=jax.random.key(0))
        >>> step = lambda model, x, data: model.gradient(x - 0.9 * (x - data))
        >>> data = jnp.ones((5, 3))
        >>> matching = jinv.train.FixedPointMatching(step)
        >>> loss, metrics = matching(model, (data, data, data, 10), None)
        >>> sorted(metrics)
        ['error', 'move']

        ```

    ??? cite "Source"
        Fung, Heaton, Li, McKenzie, Osher, Yin, JFB: Jacobian-free backpropagation for implicit
        networks, 2022, eq. 9 (`last=1`); Gilton, Ongie, Willett, Deep equilibrium architectures for
        inverse problems in imaging, 2021. Deviations: several last steps; the
        random number of steps; the logarithm.
    """

    step: Callable[..., Any]
    last: int = eqx.field(static=True, default=2)
    momentum: float = eqx.field(static=True, default=0.8)
    floor: float = eqx.field(static=True, default=0.0)
    chunk: int | None = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.last < 1:
            raise ValueError(f"`last` must be at least 1, got {self.last}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1), got {self.momentum}")
        if not self.floor >= 0:
            raise ValueError(f"`floor` must not be negative, got {self.floor}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, got {self.chunk}")

    def __call__(
        self,
        model: PyTree,
        batch: tuple[Array, Array, PyTree[Array], int | Int[Array, ""]],
        key: PRNGKeyArray | None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        clean, start, problems, num_steps = batch

        fixed = stop_gradient(model)
        # Recomputing is cheap beside keeping the activations of all samples in memory.
        again = eqx.filter_checkpoint(self.step)

        def errors(sample):
            clean, x, problem = sample

            def accelerated(_, carry):
                x, before = carry
                new = self.step(fixed, x, problem)
                return new + self.momentum * (new - before), new

            _, x = jax.lax.fori_loop(0, num_steps, accelerated, (x, x))
            before = x
            for _ in range(self.last):
                before, x = x, again(model, x, problem)
            mean = lambda gap: jnp.mean(gap**2)
            return mean(x - clean), mean(stop_gradient(x - before))

        squares, moves = map_samples(errors, (clean, start, problems), self.chunk)
        least = max(self.floor, float(jnp.finfo(squares.dtype).tiny))
        metrics = {"error": jnp.sqrt(jnp.mean(squares)), "move": jnp.sqrt(jnp.mean(moves))}
        return 0.5 * jnp.mean(jnp.log(squares + least)), metrics
