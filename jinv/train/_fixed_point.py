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
    the batch, taken as a fixed point $x^* = T(x^*)$: its derivative is
    $(I - \partial_x T)^{-1} \partial_\theta T$, of the inverse so many terms of its
    series, all at $x^*$. Memory does not grow with either number. Draw the numbers of steps from
    some to enough for convergence. The steps have momentum, which changes no fixed point.

    Batches are tuples of the clean samples, the points to start from, the data of the problems (a
    PyTree with one problem per sample), and a whole number of steps. The metric `error` is the
    root mean square of $x^* - x$, `move` that of one more step.

    **Arguments:**

    - `step`: `step(model, x, problem)`, one step of the solver, for one sample.
    - `terms`: of the derivative; slow components of the solver, such as frequencies that the data
        hardly have, need many.
    - `momentum`: of the steps and of the terms, in [0, 1).
    - `floor`: $\epsilon$, in squared units of the data: what is below it has little weight.
    - `chunk`: the samples that are worked on at a time, `None` for all: one is fastest on a CPU
        from a few thousand pixels on, all on an accelerator.

    **Raises:** `ValueError` for a `terms` or `chunk` below 1, a negative `floor`, or another
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
        networks, 2022, eq. 9 (`terms=1`); Gilton, Ongie, Willett, Deep equilibrium architectures
        for inverse problems in imaging, 2021. Deviations: the random number of steps; the
        logarithm.
    """

    step: Callable[..., Any]
    terms: int = eqx.field(static=True, default=12)
    momentum: float = eqx.field(static=True, default=0.8)
    floor: float = eqx.field(static=True, default=0.0)
    chunk: int | None = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.terms < 1:
            raise ValueError(f"`terms` must be at least 1, got {self.terms}")
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
        floor = max(self.floor, float(jnp.finfo(clean.dtype).tiny))

        def fixed_point(step, x, num_steps):
            """Iterates with momentum."""

            def accelerated(_, carry):
                x, before = carry
                new = step(x)
                return new + self.momentum * (new - before), new

            return jax.lax.fori_loop(0, num_steps, accelerated, (x, x))[1]

        def errors(sample):
            clean, start, problem = sample
            x = fixed_point(lambda x: self.step(fixed, x, problem), start, num_steps)
            square, slope = jax.value_and_grad(lambda x: jnp.mean((x - clean) ** 2))(x)
            new, transpose = jax.vjp(lambda x: self.step(fixed, x, problem), x)
            slope = 0.5 * slope / (square + floor)
            adjoint = fixed_point(lambda w: slope + transpose(w)[0], slope, self.terms - 1)
            # Zero; its derivative with respect to the model is that of the loss.
            along = jnp.sum(adjoint * self.step(model, x, problem))
            along = along - stop_gradient(along)
            return square, jnp.mean((new - x) ** 2), along

        squares, moves, along = map_samples(errors, (clean, start, problems), self.chunk)
        metrics = {"error": jnp.sqrt(jnp.mean(squares)), "move": jnp.sqrt(jnp.mean(moves))}
        return 0.5 * jnp.mean(jnp.log(squares + floor)) + jnp.mean(along), metrics
