"""Losses of neural operators, and models with the scales of their data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._loop import stop_gradient


def relative_l2(found: Float[Array, "..."], truth: Float[Array, "..."]) -> Float[Array, ""]:
    r"""$\|y - y^*\| / \|y^*\|$ of one sample, over all its entries.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> float(jinv.train.relative_l2(jnp.array([3.0, 5.0]), jnp.array([3.0, 4.0])))
        0.2...

        ```
    """
    return _ratio(found - truth, truth, jnp.square)


def relative_h1(
    found: Float[Array, "..."],
    truth: Float[Array, "..."],
    spacing: float | Sequence[float] | None = None,
) -> Float[Array, ""]:
    r"""The relative error of one sample in the norm of $H^1$,
    $\|v\|^2 = \int v^2 + |\nabla v|^2$, of values on a regular grid of all axes.

    The integral of $v^2$ is by the trapezoidal rule, that of the gradient by the differences of
    neighbours, which is exact for linear functions.

    **Arguments:**

    - `found`, `truth`: values at the nodes, the outermost ones on the boundary.
    - `spacing`: of the nodes, one or one per axis; by default those of the unit cube.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> x = jnp.linspace(0, 1, 101)
        >>> float(jinv.train.relative_h1(2 * x, x))
        1.0

        ```
    """
    if spacing is None:
        steps = [1 / (n - 1) for n in truth.shape]
    elif isinstance(spacing, Sequence):
        steps = list(spacing)
    else:
        steps = [spacing] * truth.ndim
    if len(steps) != truth.ndim:
        raise ValueError(f"`spacing` must be one number per axis of {truth.shape}, got {spacing}")

    def square(v):
        total = jnp.sum(_trapezoidal(v**2, range(v.ndim)))
        for axis, step in enumerate(steps):
            others = [other for other in range(v.ndim) if other != axis]
            total = total + jnp.sum(_trapezoidal((jnp.diff(v, axis=axis) / step) ** 2, others))
        return total

    return _ratio(found - truth, truth, square)


def _trapezoidal(v, axes):
    """With half of the weight at both ends of these axes."""
    for axis in axes:
        weights = np.ones(v.shape[axis])
        weights[[0, -1]] = 0.5
        v = v * jnp.asarray(weights, v.dtype).reshape(
            [-1 if a == axis else 1 for a in range(v.ndim)]
        )
    return v


def spectral_h1(
    found: Float[Array, "..."], truth: Float[Array, "..."], cutoff: int | None = 20
) -> Float[Array, ""]:
    r"""The relative error of one sample in the norm by which multigrid neural operators were
    trained and reported: of the discrete Fourier transform with the weights
    $\sqrt{1 + \sum_a k_a^2}$, where $k_a$ are whole numbers without $2\pi$, and those of
    `cutoff` or more count as zero.

    It is no norm of $H^1$: the data are taken as periodic, and high frequencies have the weight of
    low ones. Use it to compare with published figures; otherwise `relative_h1`.

    **Arguments:**

    - `found`, `truth`: values on a regular grid of all axes.
    - `cutoff`: `None` for none.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> wave = jnp.sin(2 * jnp.pi * jnp.arange(8) / 8)
        >>> float(jinv.train.spectral_h1(wave + 0.1, wave))
        0.1...

        ```

    ??? cite "Source"
        The code of He, Liu, Xu, MgNO: efficient parameterization of linear operators via
        multigrid, 2024.
    """
    weight = np.ones(truth.shape)
    for axis, size in enumerate(truth.shape):
        waves = np.abs(np.fft.fftfreq(size, 1 / size))
        if cutoff is not None:
            waves = waves * (waves < cutoff)
        weight = weight + waves.reshape([-1 if a == axis else 1 for a in range(truth.ndim)]) ** 2

    def square(v):
        transformed = jnp.fft.fftn(v)
        return jnp.asarray(weight, v.dtype) * (transformed.real**2 + transformed.imag**2)

    return _ratio(found - truth, truth, square)


def _ratio(error, truth, square):
    # Without an error the root has no derivative, and needs none.
    above, below = jnp.sum(square(error)), jnp.sum(square(truth))
    root = jnp.sqrt(jnp.where(above > 0, above, 1))
    return jnp.where(above > 0, root, 0) / jnp.sqrt(below)


class OperatorMatching(eqx.Module):
    r"""The mean over the samples of a batch of the relative error of an operator, for
    [`jinv.train.fit`][].

    Batches are pairs of inputs and outputs. The error is per sample, so that large solutions do
    not outweigh small ones.

    **Arguments:**

    - `norm`: `norm(found, truth)` of one sample, such as `relative_l2`.
    - `metrics`: more of them by name, which are recorded.
    - `apply`: `apply(model, input)`, by default `model(input)`; with it for instance the points
        where a [`jinv.nn.MultiONet`][] is evaluated.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> matching = jinv.train.OperatorMatching(metrics={"h1": jinv.train.relative_h1})
        >>> model = lambda u: 1.1 * u
        >>> u = jax.random.normal(jax.random.key(0), (5, 16))
        >>> loss, metrics = matching(model, (u, u), None)
        >>> round(float(loss), 4), round(float(metrics["h1"]), 4)
        (0.1, 0.1)

        ```
    """

    norm: Callable[..., Any] = relative_l2
    metrics: Mapping[str, Callable[..., Any]] | None = None
    apply: Callable[..., Any] = lambda model, u: model(u)

    def __call__(
        self, model: PyTree, batch: tuple[PyTree[Array], Array], key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        inputs, truth = batch
        found = jax.vmap(lambda u: self.apply(model, u))(inputs)
        mean = lambda norm: jnp.mean(jax.vmap(norm)(found, truth))
        more = {} if self.metrics is None else self.metrics
        return mean(self.norm), {name: mean(norm) for name, norm in more.items()}


class Normalised(eqx.Module):
    r"""A model between normalised data, $y = \mu_y + \sigma_y\, G\big((u - \mu_u)/\sigma_u\big)$:
    the scales travel with the model. They are not trained; an optimiser that decays weights needs
    `trainable=` in `fit`.

    **Arguments:**

    - `model`: $G$, called with one input (and further arguments as they are).
    - `inputs`, `outputs`: the training data, one sample per entry of the first axis.
    - `pointwise`: a mean and a deviation for each entry of a sample (which fixes the grid) in
        place of two numbers.
    - `normalise_inputs`: whether the inputs are normalised too.

    **Raises:** `ValueError` if the data are not finite or do not vary.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> u = 5 + jax.random.normal(jax.random.key(0), (100, 16))
        >>> model = jinv.train.Normalised(lambda u: u, u, 2 * u)
        >>> bool(jnp.allclose(model(u[0]), 2 * u[0], rtol=1e-5))
        True

        ```
    """

    model: PyTree
    mean_in: Float[Array, "..."]
    deviation_in: Float[Array, "..."]
    mean_out: Float[Array, "..."]
    deviation_out: Float[Array, "..."]

    def __init__(
        self,
        model: PyTree,
        inputs: Float[Array, "n ..."],
        outputs: Float[Array, "n ..."],
        *,
        pointwise: bool = False,
        normalise_inputs: bool = True,
    ):
        self.model = model
        self.mean_in, self.deviation_in = _scales("inputs", inputs, pointwise)
        if not normalise_inputs:
            self.mean_in = jnp.zeros_like(self.mean_in)
            self.deviation_in = jnp.ones_like(self.deviation_in)
        self.mean_out, self.deviation_out = _scales("outputs", outputs, pointwise)

    def __call__(self, u: Float[Array, "..."], *arguments: Any) -> Float[Array, "..."]:
        fixed = lambda leaf: stop_gradient(leaf).astype(u.dtype)
        found = self.model((u - fixed(self.mean_in)) / fixed(self.deviation_in), *arguments)
        return fixed(self.mean_out) + fixed(self.deviation_out) * found


def _scales(name, data, pointwise):
    axis = 0 if pointwise else None
    mean, deviation = jnp.mean(data, axis), jnp.std(data, axis)
    if not bool(jnp.all(jnp.isfinite(data))):
        raise ValueError(f"`{name}` must be finite")
    if not bool(jnp.any(deviation > 0)):
        raise ValueError(f"`{name}` must vary, all samples are the same")
    # Entries that never vary, such as on a boundary with given values, stay what they are.
    return mean, jnp.where(deviation > 0, deviation, 1)
