"""Proximal matching: the loss that makes a network the prox of a negative log-density."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree


class GammaSchedule(eqx.Module):
    r"""The width $\gamma$ of proximal matching as a function of the step: infinite for the
    `pretrain` first steps, then `factor` times smaller from stage to stage, the last of them
    $\gamma_{\min} = \mathtt{least} \sqrt n$ for samples of $n$ numbers.

    The loss is flat for samples much further away than $\gamma$, hence the pre-training and the
    slow descent; distances grow with $\sqrt n$, hence the factor.

    **Arguments:**

    - `size`: $n$.
    - `pretrain`, `stage_steps`, `stages`: numbers of steps and stages.
    - `least`: $\gamma_{\min}/\sqrt n$, in the units of the data. Published for images in [0, 1]:
        0.08.
    - `factor`: between stages.

    **Raises:** `ValueError` for numbers that are not positive.

    !!! example
        ```python
        >>> import jinv
        >>> gamma = jinv.train.GammaSchedule(4, pretrain=10, stage_steps=5, stages=3, least=0.5)
        >>> [float(gamma(step)) for step in (0, 9, 10, 15, 20, 99)]
        [inf, inf, 4.0, 2.0, 1.0, 1.0]

        ```

    ??? cite "Source"
        Fang, Buchanan, Sulam, What's in a prior?, 2024; the numbers are those of its code.
    """

    size: int = eqx.field(static=True)
    pretrain: int = eqx.field(static=True)
    stage_steps: int = eqx.field(static=True)
    stages: int = eqx.field(static=True, default=4)
    least: float = eqx.field(static=True, default=0.08)
    factor: float = eqx.field(static=True, default=2.0)

    def __check_init__(self):
        for name in ("size", "stage_steps", "stages", "least", "factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.pretrain < 0:
            raise ValueError(f"`pretrain` must not be negative, got {self.pretrain}")

    def __call__(self, step: int | Int[Array, ""]) -> Float[Array, ""]:
        since = jnp.asarray(step) - self.pretrain
        stage = jnp.clip(since // self.stage_steps, 0, self.stages - 1)
        last = self.least * self.size**0.5
        power = (self.stages - 1 - stage).astype(jnp.result_type(float))
        return jnp.where(since < 0, jnp.inf, last * self.factor**power)


class NoisyBatches(eqx.Module):
    r"""Batches for `ProximalMatching`: clean samples, the same with white noise, and $\gamma$.

    **Arguments:**

    - `samples`: `samples(key, step)`, a batch of clean samples, such as `Minibatches`.
    - `noise`: the standard deviation of the noise, in the units of the data; a pair for one
        that is uniform between the two, sample by sample. A denoiser that is iterated meets
        inputs with less noise than the first.
    - `gamma`: a function of the step, such as `GammaSchedule`; by default infinite.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> samples = jinv.train.Minibatches(jnp.zeros((100, 3)), 8)
        >>> batches = jinv.train.NoisyBatches(samples, 0.1)
        >>> clean, noisy, gamma = batches(jax.random.key(0), 0)
        >>> noisy.shape, float(gamma)
        ((8, 3), inf)

        ```
    """

    samples: Callable[..., Any]
    noise: float | tuple[float, float]
    gamma: Callable[..., Any] | None = None

    def __call__(self, key, step):
        of_sample, of_noise, of_level = jax.random.split(key, 3)
        clean = self.samples(of_sample, step)
        low, high = self.noise if isinstance(self.noise, tuple) else (self.noise, self.noise)
        each = (len(clean), *(1,) * (clean.ndim - 1))
        level = low + (high - low) * jax.random.uniform(of_level, each, clean.dtype)
        noisy = clean + level * jax.random.normal(of_noise, clean.shape, clean.dtype)
        gamma = jnp.inf if self.gamma is None else self.gamma(step)
        return clean, noisy, jnp.asarray(gamma, clean.dtype)


class ProximalMatching(eqx.Module):
    r"""The loss $\frac1B \sum_i 1 - e^{-\|f(y_i) - x_i\|^2/\gamma^2}$ on noisy $y_i = x_i + n_i$,
    for `jinv.train.fit` with `NoisyBatches`.

    As $\gamma \to 0$ its minimiser is the mode of $x$ given $y$, that is the prox of
    $-\sigma^2 \log p$. With $\gamma = \infty$ it is the loss of the pre-training: the mean
    absolute error, whose minimiser is the median, or the mean squared error, with the mean.

    The metrics are `error`, the root mean square of $f(y) - x$, and `saturated`, the fraction of
    samples with $\|f(y) - x\|^2 > 3 \gamma^2$, to which the loss is blind (its slope there is
    below 5 %): above one half, $\gamma$ falls too fast.

    **Arguments:**

    - `pretrain`: `"l1"` or `"l2"`.
    - `apply`: `apply(model, y)`, for one sample; by default `model.gradient(y)`.

    **Raises:** `ValueError` for another `pretrain`.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> model = jinv.nn.dense_icnn(3, (8, 8), key=jax.random.key(0))
        >>> batch = jnp.zeros((5, 3)), jnp.ones((5, 3)), jnp.array(2.0)
        >>> loss, metrics = jinv.train.ProximalMatching()(model, batch, None)
        >>> bool(0 < loss < 1), sorted(metrics)
        (True, ['error', 'saturated'])

        ```

    ??? cite "Source"
        Fang, Buchanan, Sulam, What's in a prior?, 2024, the proximal matching loss. Deviation:
        without the factor $(\pi\gamma^2)^{-n/2}$, as in its code.
    """

    pretrain: Literal["l1", "l2"] = eqx.field(static=True, default="l1")
    apply: Callable[..., Any] = eqx.field(default=lambda model, y: model.gradient(y))

    def __check_init__(self):
        if self.pretrain not in ("l1", "l2"):
            raise ValueError(f"`pretrain` must be 'l1' or 'l2', got {self.pretrain!r}")

    def __call__(
        self, model: PyTree, batch: tuple[Array, Array, Array], key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        clean, noisy, gamma = batch
        gap = jax.vmap(lambda y: self.apply(model, y))(noisy) - clean
        squares = jnp.sum(gap.reshape(len(gap), -1) ** 2, 1)
        mean = jnp.mean(jnp.abs(gap)) if self.pretrain == "l1" else jnp.mean(gap**2)
        finite = jnp.isfinite(gamma)
        # An infinite width has a derivative of zero times infinity.
        ratio = squares / jnp.where(finite, gamma, 1) ** 2
        matched = -jnp.mean(jnp.expm1(-ratio))
        metrics = {
            "error": jnp.sqrt(jnp.mean(gap**2)),
            "saturated": jnp.where(finite, jnp.mean((ratio > 3).astype(gap.dtype)), 0),
        }
        return jnp.where(finite, matched, mean), metrics
