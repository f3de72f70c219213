"""One step of training: a pure function of the state, a batch and a key."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .. import _tree


# optax mixes integers with floats, which strict promotion, if the user has set it, refuses.
_PROMOTION = functools.partial(jax.numpy_dtype_promotion, "standard")


class TrainState(eqx.Module):
    """What a step of training changes; made by `TrainStep.init`.

    **Attributes:**

    - `model`: the model, with what is not trained.
    - `opt_state`: the state of the optimiser.
    - `step`: the number of steps done.
    - `skipped`: how many of them changed nothing, because something in them was not finite.
    - `average`: the running average of the trained arrays, or `None`.
    - `averaged`: the model with these averages; `model` itself if there are none.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv, optax
        >>> step = jinv.train.TrainStep(lambda w, batch, key: w**2, optax.sgd(0.1))
        >>> state = step.init(jnp.array(3.0))
        >>> state.averaged, int(state.step)
        (Array(3., dtype=float32), 0)

        ```
    """

    model: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    average: PyTree | None

    @property
    def averaged(self) -> PyTree:
        return eqx.combine(self.average, self.model)


class TrainStep(eqx.Module):
    r"""A step of training, `state, metrics = step(state, batch, key=key)`.

    It is pure, and neither jitted nor tied to a device: put it into `eqx.filter_jit`, `jax.vmap`
    (an ensemble) or `jax.lax.scan` (with `eqx.partition`), or give its parts to `fit`. A step
    costs one value and gradient of the loss and one update of the optimiser. If the loss, the
    norm of its gradient or a new weight is not finite, the step changes nothing and is counted
    in `skipped`.

    Gradients are accumulated by `optax.MultiSteps`, clipped by `optax.clip_by_global_norm`:
    what an optimiser can do is not repeated here. For complex parameters the optimiser gets the
    conjugate of JAX's gradient, which is the direction of steepest ascent.

    **Arguments:**

    - `loss`: `loss(model, batch, key)`, a real scalar, or a pair of it and a dictionary of
        scalar metrics.
    - `optimiser`: an `optax.GradientTransformation`. `optax.MultiSteps` enters as its
        `gradient_transformation()`.
    - `trainable`: which leaves are trained, as in `eqx.filter`: a PyTree prefix of the model
        with booleans, or a function from leaves to booleans. Of these, all floating-point and
        complex arrays are; by default all in the model.
    - `ema_decay`: keep an exponential moving average $a \leftarrow d a + (1 - d) w$ of the
        trained arrays, with $d$ the smaller of `ema_decay` and $(1 + n) / (10 + n)$ at step
        $n$, so that the start is soon forgotten. Then `state.averaged` is the model to use.

    **Returns:** `step.init(model)` a `TrainState`; `step(state, batch, key=key)` the next one and
    a dictionary with `loss`, `gradient_norm` and the metrics of `loss`, all before the update,
    and `finite`, whether there was one.

    **Raises:** `ValueError` if `optimiser` is not one, `ema_decay` not in [0, 1), nothing is
    `trainable`, or `loss` returns something else.

    !!! example
        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, jinv, optax
        >>> def loss(model, batch, key):
        ...     x, y = batch
        ...     return jnp.mean((jax.vmap(model)(x) - y) ** 2)
        >>> model = eqx.nn.Linear(2, 1, key=jax.random.key(0))
        >>> step = jinv.train.TrainStep(loss, optax.adam(0.1))
        >>> state = step.init(model)
        >>> batch = jnp.eye(2), jnp.ones((2, 1))
        >>> for _ in range(200):
        ...     state, metrics = eqx.filter_jit(step)(state, batch, key=jax.random.key(1))
        >>> bool(metrics["loss"] < 1e-3), int(state.step)
        (True, 200)

        ```
    """

    loss: Callable
    optimiser: optax.GradientTransformation
    trainable: PyTree = eqx.field(default=None, kw_only=True)
    ema_decay: float | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        if not isinstance(self.optimiser, optax.GradientTransformation):
            raise ValueError(
                f"`optimiser` must be an optax.GradientTransformation, got {self.optimiser!r}"
            )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be in [0, 1), got {self.ema_decay}")

    def init(self, model: PyTree) -> TrainState:
        model = _strong(model)
        weights, _ = self._split(model)
        if not jax.tree.leaves(weights):
            raise ValueError("`trainable` must choose at least one inexact array of `model`")
        with _PROMOTION():
            opt_state = _strong(self.optimiser.init(weights))
        zero, average = jnp.zeros((), jnp.int32), None if self.ema_decay is None else weights
        return TrainState(model, opt_state, zero, zero, average)

    def __call__(
        self, state: TrainState, batch: PyTree, *, key: PRNGKeyArray
    ) -> tuple[TrainState, dict[str, Array]]:
        weights, rest = self._split(state.model)

        def objective(weights):
            return _checked(self.loss(eqx.combine(weights, rest), batch, key))

        (value, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(weights)
        gradient = jax.tree.map(jnp.conj, gradient)
        norm = _norm(gradient, value.dtype)
        with _PROMOTION():
            updates, opt_state = self.optimiser.update(gradient, state.opt_state, weights)
            new = optax.apply_updates(weights, updates)

        finite = jnp.isfinite(value) & jnp.isfinite(norm) & _tree.all_finite(new)
        new = new, opt_state, self._average(state, new)
        old = weights, state.opt_state, state.average
        # XLA would copy the formula of the condition into a selection for each of the arrays.
        new, opt_state, average = jax.lax.cond(finite, lambda: new, lambda: old)
        skipped = state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32)
        state = TrainState(eqx.combine(new, rest), opt_state, state.step + 1, skipped, average)
        return state, {"loss": value, "gradient_norm": norm, "finite": finite, **metrics}

    def _split(self, model):
        """The trained arrays, and everything else."""
        trainable = eqx.is_inexact_array if self.trainable is None else self.trainable
        chosen, rest = eqx.partition(model, trainable)
        weights, others = eqx.partition(chosen, eqx.is_inexact_array)
        return weights, eqx.combine(others, rest)

    def _average(self, state, weights):
        if self.ema_decay is None:
            return None
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(jnp.float32(self.ema_decay), (1 + n) / (10 + n))
        change = _tree.subtract(weights, state.average)
        return _tree.add_scaled(state.average, 1 - decay, change)


def _strong(tree):
    """Weak types would become strong ones in the first step, and compile the second again."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype) if eqx.is_array(x) else x, tree)


def _norm(gradient, dtype):
    """The Euclidean norm; half precision would overflow in the squares."""
    leaves = [jnp.abs(leaf).astype(dtype) for leaf in jax.tree.leaves(gradient)]
    return jnp.sqrt(_tree.sum_squares(leaves))


def _checked(returned: Any) -> tuple[Array, dict[str, Array]]:
    value, metrics = returned if isinstance(returned, tuple) else (returned, {})
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"`loss` must return a real scalar, got shape {value.shape} and dtype {value.dtype}"
        )
    metrics = {name: jnp.asarray(metric) for name, metric in metrics.items()}
    for name, metric in metrics.items():
        if metric.shape != () or name in ("loss", "gradient_norm", "finite"):
            raise ValueError(
                f"the metrics of `loss` must be scalars not named loss, gradient_norm or finite, "
                f"got {name!r} of shape {metric.shape}"
            )
    return value, metrics
