"""Proximal matching: the loss that makes a network the prox of a negative log-density."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree


def map_samples(fn, samples, chunk):
    """`fn` of all samples at once, or of `chunk` at a time."""
    if chunk is None:
        return jax.vmap(fn)(samples)
    return jax.lax.map(fn, samples, batch_size=None if chunk == 1 else chunk)


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
    - `num_noisy`: the number of noisy samples, those of the first clean ones; by default all. Only
        for a `ProximalMatching` that pools the clean ones.
    - `antithetic`: take every sample twice, with the noise of both signs. At little noise
        $\sigma$ the mean of the two gradients of the squared error has a standard deviation
        that is smaller by a factor of the order of $\sigma$, for networks that are smooth there.

    **Raises:** `ValueError` for a `num_noisy` below 1.

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
    num_noisy: int | None = eqx.field(static=True, default=None)
    antithetic: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.num_noisy is not None and self.num_noisy < 1:
            raise ValueError(f"`num_noisy` must be at least 1, got {self.num_noisy}")

    def __call__(self, key, step):
        of_sample, of_noise, of_level = jax.random.split(key, 3)
        clean = self.samples(of_sample, step)
        first = clean[: self.num_noisy]
        low, high = self.noise if isinstance(self.noise, tuple) else (self.noise, self.noise)
        each = (len(first), *(1,) * (clean.ndim - 1))
        level = low + (high - low) * jax.random.uniform(of_level, each, clean.dtype)
        noise = level * jax.random.normal(of_noise, first.shape, clean.dtype)
        noisy = first + noise
        if self.antithetic:
            noisy = jnp.concatenate([noisy, first - noise])
            clean = jnp.concatenate([clean, clean])
        gamma = jnp.inf if self.gamma is None else self.gamma(step)
        return clean, noisy, jnp.asarray(gamma, clean.dtype)


class ProximalMatching(eqx.Module):
    r"""The loss $\frac1B \sum_i 1 - e^{-\|f(y_i) - x_i\|^2/\gamma^2}$ on noisy $y_i = x_i + n_i$,
    for `jinv.train.fit` with `NoisyBatches`.

    As $\gamma \to 0$ its minimiser is the mode of $x$ given $y$, that is the prox of
    $-\sigma^2 \log p$. With $\gamma = \infty$ it is the loss of the pre-training: the mean
    absolute error, whose minimiser is the median, or the mean squared error, with the mean.

    With `noise`, $\sigma$, every loss of a pair, $\ell(f(y_j), x_j)$, is replaced by its
    conditional expectation given $y_j$ and the clean samples of the batch, in any order,

    $$\sum_i w_{ij}\, \ell(f(y_j), x_i), \quad w_{ij} =
    \frac{e^{-\|y_j - x_i\|^2 / 2\sigma^2}}{\sum_k e^{-\|y_j - x_k\|^2 / 2\sigma^2}}:$$

    any clean sample could have become $y_j$. The expectation is that of the plain loss,
    exactly, and the variance of every term is no larger (Rao-Blackwell). It pays where many
    clean samples are within the noise of one another, that is in few dimensions, and lets
    $\gamma$ become several times smaller; elsewhere $w_{jj} \approx 1$ and it is the plain loss.
    It costs as many distances as there are pairs, and the network as much as before: have many
    more clean samples than noisy ones, by `NoisyBatches(..., num_noisy=...)`.

    The metrics are `error`, the root mean square of $f(y) - x$, and `saturated`, the fraction of
    samples with $\|f(y) - x\|^2 > 3 \gamma^2$, to which the loss is blind (its slope there is
    below 5 %): above one half, $\gamma$ falls too fast.

    **Arguments:**

    - `pretrain`: `"l1"` or `"l2"`.
    - `apply`: `apply(model, y)`, for one sample; by default `model.gradient(y)`.
    - `chunk`: the samples that are worked on at a time, `None` for all. On a CPU, images of a few
        thousand pixels and more are fastest one by one; activations are then computed again
        in place of being kept in memory.
    - `noise`: the standard deviation of the noise, to pool the clean samples of a batch; by
        default they are not.

    **Raises:** `ValueError` for another `pretrain`, a `chunk` below 1, or `noise` that is not
    positive.

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
        Fang, Buchanan, Sulam, What's in a prior?, 2024, the proximal matching loss. Deviations:
        without the factor $(\pi\gamma^2)^{-n/2}$, as in its code; `noise`.
    """

    pretrain: Literal["l1", "l2"] = eqx.field(static=True, default="l1")
    apply: Callable[..., Any] = eqx.field(default=lambda model, y: model.gradient(y))
    chunk: int | None = eqx.field(static=True, default=None)
    noise: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, got {self.chunk}")
        if self.pretrain not in ("l1", "l2"):
            raise ValueError(f"`pretrain` must be 'l1' or 'l2', got {self.pretrain!r}")
        if self.noise is not None and not self.noise > 0:
            raise ValueError(f"`noise` must be positive, got {self.noise}")

    def __call__(
        self, model: PyTree, batch: tuple[Array, Array, Array], key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        clean, noisy, gamma = batch
        if self.noise is None and len(clean) != len(noisy):
            raise ValueError(
                f"`noise` must be given for {len(clean)} clean samples and {len(noisy)} noisy ones"
            )
        apply = self.apply if self.chunk is None else eqx.filter_checkpoint(self.apply)
        found = map_samples(lambda y: apply(model, y), noisy, self.chunk)
        x, y, f = (a.reshape(len(a), -1) for a in (clean, noisy, found))
        if self.noise is None:
            squares, mean = jnp.sum((f - x) ** 2, 1), jnp.mean
            moduli = lambda: jnp.mean(jnp.abs(f - x))
        else:
            weight = jax.nn.softmax(-_squares(y, x) / (2 * self.noise**2), 1) / len(y)
            squares, mean = _squares(f, x), lambda pairs: jnp.sum(weight * pairs)
            # One coordinate at a time: all of them at once are many times slower on CPUs.
            one = jax.checkpoint(lambda fx: mean(jnp.abs(fx[0][:, None] - fx[1][None])))
            moduli = lambda: jnp.mean(jax.lax.map(one, (f.T, x.T)))
        error = mean(squares) / x.shape[1]
        finite = jnp.isfinite(gamma)
        # An infinite width has a derivative of zero times infinity.
        ratio = squares / jnp.where(finite, gamma, 1) ** 2
        matched = lambda: -mean(jnp.expm1(-ratio))
        loss = jax.lax.cond(finite, matched, moduli if self.pretrain == "l1" else lambda: error)
        metrics = {
            "error": jnp.sqrt(error),
            "saturated": jnp.where(finite, mean((ratio > 3).astype(f.dtype)), 0),
        }
        return loss, metrics


def _squares(a, b):
    """The squared distances of all pairs, by a product of matrices."""
    # The same shift of both changes nothing but the rounding.
    centre = jax.lax.stop_gradient(jnp.mean(b, 0, keepdims=True))
    a, b = a - centre, b - centre
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.sum(a * a, 1)[:, None] + jnp.sum(b * b, 1)[None]
    return jnp.maximum(own - 2 * product, 0)
