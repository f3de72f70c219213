"""Input-convex neural networks, fully connected and convolutional."""

import abc
import math
from collections.abc import Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float, PRNGKeyArray

from ._activation import activation
from ._convolution import convolve
from ._nonnegative import NonNegative, Rule
from ._potential import AbstractConvexPotential, in_dtype


Activation = Literal["softplus", "squareplus"]


class _AbstractLinear(eqx.Module):
    @abc.abstractmethod
    def __call__(self, x: Array, weight: Array) -> Array: ...


class _Dense(_AbstractLinear):
    def __call__(self, x, weight):
        return x.reshape(-1) @ weight


class _Convolution(_AbstractLinear):
    """Kernels with zeros outside the image, as many before as after."""

    stride: int = eqx.field(static=True)

    def __call__(self, x, weight):
        return convolve(x, weight, self.stride)


class _Layer(eqx.Module):
    """Pre-activations from the input (free weights) and from the layer before (non-negative)."""

    lift: Float[Array, "..."]
    bias: Float[Array, " out"] | None
    mix: NonNegative | None
    # What of the activations goes to the output.
    head: NonNegative | None
    of_input: _AbstractLinear
    of_layer: _AbstractLinear
    # The frame: its weights are fixed, and half the squares of the activations go to the output.
    frame: bool = eqx.field(static=True, default=False)
    # How far the thresholds of a frame are above the least that bounds R from below.
    margin: NonNegative | None = None

    def __call__(self, y, z, bias: bool = True):
        out = self.of_input(y, jax.lax.stop_gradient(self.lift) if self.frame else self.lift)
        if self.mix is not None:
            out = out + self.of_layer(z, self.mix.value)
        if self.bias is None or not bias:
            return out
        return out + self.bias.reshape((1,) * (out.ndim - 1) + (-1,))


class ICNN(AbstractConvexPotential):
    r"""An input-convex neural network with layers
    $z_k = s(W_k z_{k-1} + H_k y + b_k)$, $W_k \ge 0$, and value

    $$\psi(y) = \sum_k \langle c_k, z_k \rangle + \langle h, y \rangle
    + \tfrac\alpha2 \|y\|^2, \quad c_k \ge 0,$$

    with a smooth convex non-decreasing activation $s$. Made by [`jinv.nn.dense_icnn`][] and
    [`jinv.nn.convolutional_icnn`][], for one array; batches are `jax.vmap`.

    In the published network only the last $c_k$ is there, and $\psi$ grows linearly: its
    gradient is bounded, and has to build the identity from saturating units. With quadratic
    growth the first layer is $z_0 = s(\pm F y - b_0)$ with the orthonormal cosine transform
    $F$, and $\tfrac{1 - \alpha}2\|z_0\|^2$ is added: its gradient shrinks the coefficients $F y$,
    and the network's differs from the identity by a bounded map, whatever the weights are.

    **Attributes:**

    - `shape`: of the input.
    - `strong_convexity`: $\alpha$.
    - `num_weights`: the number of trained numbers.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> potential = jinv.nn.dense_icnn(2, (8, 8), key=jax.random.key(0))
        >>> potential.gradient(jnp.zeros(2)).shape
        (2,)

        ```

    ??? cite "Source"
        Amos, Xu, Kolter, Input convex neural networks, 2017; Fang, Buchanan, Sulam, What's in a
        prior? Learned proximal networks for inverse problems, 2024 (the smooth activation, the
        quadratic $\alpha$ of the paper; its code has $2 \alpha$ in its place). Deviations: the
        quadratic growth; the $c_k$ of all layers in it; the activation `squareplus`.
    """

    layers: tuple[_Layer, ...]
    slope: Float[Array, "..."] | None
    strong_convexity: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    beta: float = eqx.field(static=True)

    def __call__(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        if y.shape != self.shape:
            raise ValueError(f"`y` must have the network's shape {self.shape}, got {y.shape}")
        value, z = 0.5 * self.strong_convexity * jnp.sum(y * y), None
        self = in_dtype(self, y.dtype)
        for layer in self._evaluated():
            z = activation(self.activation, self.beta, layer(_resized(y, layer, z), z))
            if layer.head is not None:
                value = value + jnp.sum(z * layer.head.value)
            if layer.frame:
                value = value + 0.5 * (1 - self.strong_convexity) * jnp.sum(z * z)
        return value if self.slope is None else value + jnp.sum(self.slope * y)

    def recession(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        value, z = jnp.zeros((), direction.dtype), None
        self = in_dtype(self, direction.dtype)
        fast = jnp.asarray(self.strong_convexity > 0) & jnp.any(direction != 0)
        for layer in self._evaluated():
            z = jax.nn.relu(layer(_resized(direction, layer, z), z, bias=False))
            if layer.head is not None:
                value = value + jnp.sum(z * layer.head.value)
            if layer.frame:
                fast = fast | jnp.any(z > 0)
        if self.slope is not None:
            value = value + jnp.sum(self.slope * direction)
        return jnp.where(fast, jnp.inf, value)

    def _evaluated(self):
        r"""The layers, of a bounded network those with the thresholds of its frame.

        In the coefficients $u = \max(\pm F d, 0) \ge 0$ of a direction $d$ no unit of a layer grows
        faster than $U^T u$ with $U = \max(\pm F H, 0) + U_- W$, of the layer before $U_-$. With
        thresholds of at least $(c_0 + \sum_k U_k c_k) / (1 - \alpha)$ the quadratic part loses as
        much as they gain, and $\tfrac12 \|y\|^2 - \psi(y)$ is bounded below: it is the envelope
        of $R$.
        """
        frame, *others = self.layers
        if frame.margin is None:
            return self.layers
        assert frame.head is not None
        basis = jax.lax.stop_gradient(frame.lift)
        gain, found = frame.head.value, []
        reach = jnp.eye(basis.shape[1], dtype=basis.dtype)
        for layer in others:
            assert layer.mix is not None and layer.head is not None
            inner = basis.T @ layer.lift
            reach = jax.nn.relu(inner) + reach @ layer.mix.value
            gain = gain + reach @ layer.head.value
            # What the frame does not see (the mean) the others must not see either.
            found.append(eqx.tree_at(lambda layer: layer.lift, layer, 0.5 * basis @ inner))
        bias = -(frame.margin.value + gain / (1 - self.strong_convexity))
        is_none = lambda leaf: leaf is None
        return eqx.tree_at(lambda layer: layer.bias, frame, bias, is_leaf=is_none), *found

    @property
    def num_weights(self) -> int:
        fixed = sum(layer.lift.size for layer in self.layers if layer.frame)
        return sum(x.size for x in jax.tree.leaves(self) if eqx.is_inexact_array(x)) - fixed


def _resized(y, layer, z):
    """The input at the resolution of the layer before, for a convolution beside it."""
    if isinstance(layer.of_input, _Dense) and z is None:
        return y
    if y.ndim == 2 and (z is None or z.ndim == 3):
        y = y[..., None]
    if z is None or z.ndim != 3:
        return y
    shape = (*z.shape[:2], *y.shape[2:])
    return y if shape == y.shape else jax.image.resize(y, shape, "bilinear", antialias=False)


def dense_icnn(
    shape: int | tuple[int, ...],
    widths: Sequence[int],
    *,
    beta: float = 10.0,
    strong_convexity: float = 0.0,
    quadratic: bool = False,
    mean: bool = True,
    bounded: bool = False,
    activation: Activation = "softplus",
    rule: Rule = "clip",
    key: PRNGKeyArray,
) -> ICNN:
    r"""A fully connected [`jinv.nn.ICNN`][], with a skip path from the input to every layer.

    **Arguments:**

    - `shape`: of the input; a number for a vector.
    - `widths`: the number of units of each layer.
    - `beta`: the sharpness of the activation, in units of 1 over those of its argument.
    - `strong_convexity`: $\alpha$, a lower bound of the slope of the gradient.
    - `quadratic`: quadratic growth, with the cosine transform of `shape` as the first layer,
        before those of `widths`; the network starts close to the identity.
    - `mean`: whether the quadratic part has the mean of the input in it; without, it is a level
        of a [`jinv.nn.Pyramid`][].
    - `bounded`: for `quadratic`, a prior $R$ that is bounded below, whatever the weights are, so
        that no solver can run away along it: the thresholds of the cosine transform are at least
        what the other layers can gain.
    - `activation`: `"softplus"`, or `"squareplus"`, which needs no exponential.
    - `rule`: how the non-negative weights are stored, see [`jinv.nn.NonNegative`][].
    - `key`: for the initial weights: uniform in $\pm 1/\sqrt{n}$ for $n$ inputs of a map,
        negative ones of the non-negative maps replaced by zero (by their modulus for the other
        rules).

    **Raises:** `ValueError` for sizes below 1, a `beta` that is not positive, a
    `strong_convexity` outside [0, 1), an unknown `activation`, or `bounded` without `quadratic`.

    !!! example
        ```python
        >>> import jax, jinv
        >>> jinv.nn.dense_icnn(1, [50] * 5, key=jax.random.key(0)).num_weights
        10501

        ```
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    widths = tuple(widths)
    _check({"shape": shape, "widths": widths}, beta, strong_convexity, activation)
    if bounded and not quadratic:
        raise ValueError("`bounded` must be False without `quadratic`")
    size, keys = math.prod(shape), iter(jax.random.split(key, 4 * len(widths) + 1))
    layers: list[_Layer] = []
    before = 0
    if quadratic:
        dense, frame = _Dense(), _cosines(shape)
        frame = frame if mean else frame[:, 1:]
        before = 2 * frame.shape[1]
        bias, head = jnp.full(before, -1 / beta), NonNegative(jnp.full(before, 0.5 / beta), rule)
        lift, margin = jnp.concatenate([frame, -frame], 1), None
        if bounded:
            bias, margin = None, NonNegative(jnp.full(before, 0.1 / beta), rule)
        layers.append(_Layer(lift, bias, None, head, dense, dense, frame=True, margin=margin))
    for depth, width in enumerate(widths):
        lift = _uniform(next(keys), (size, width), size**-0.5)
        bias = _uniform(next(keys), (width,), size**-0.5)
        mix = head = None
        if layers:
            mix = _rectified(next(keys), (before, width), before**-0.5, rule)
        if quadratic:
            # Small at first, so that the frame decides, in units of the sharpness.
            mix = NonNegative(2 / before * jax.random.uniform(next(keys), (before, width)), rule)
            lift, bias = 0.1 * lift, jnp.full(width, -1 / beta)
            head = NonNegative(jnp.full(width, 0.1 * size / width / beta), rule)
        elif depth == 0:
            bias = None  # as published
        if not quadratic and depth == len(widths) - 1:
            head = _rectified(next(keys), (width,), width**-0.5, rule)
        layers.append(_Layer(lift, bias, mix, head, _Dense(), _Dense()))
        before = width
    slope = None if quadratic else _uniform(next(keys), shape, size**-0.5)
    return ICNN(
        layers=tuple(layers),
        slope=slope,
        strong_convexity=float(strong_convexity),
        shape=shape,
        activation=activation,
        beta=float(beta),
    )


def convolutional_icnn(
    shape: Sequence[int],
    channels: int = 64,
    *,
    strides: Sequence[int] = (1, 2, 1, 2),
    hidden: int = 64,
    kernel_size: int = 3,
    beta: float = 10.0,
    strong_convexity: float = 0.02,
    activation: Activation = "softplus",
    rule: Rule = "clip",
    initial: Literal["published", "uniform"] = "published",
    key: PRNGKeyArray,
) -> ICNN:
    r"""The convolutional [`jinv.nn.ICNN`][] of the learned proximal networks, for images of one
    size: convolutions, a fully connected layer, linear growth. Beside every layer is a skip path
    from the image, shrunk bilinearly to the size of that layer's input.

    The defaults are the published network for 28 x 28 digits. For larger images train
    [`jinv.nn.dense_icnn`][] on small patches inside [`jinv.nn.Tiled`][], which costs less, or
    tile this one.

    **Arguments:**

    - `shape`: of the images, `(H, W)` or `(H, W, channels)`.
    - `channels`, `strides`: of the convolutions, of `kernel_size` (odd).
    - `hidden`: the units of the fully connected layer.
    - `initial`: of the non-negative weights: $e^{\mathcal N(-10, 0.1)}$ (standard deviation 0.1) as
        published, or `"uniform"` as in [`jinv.nn.dense_icnn`][].
    - the others: see [`jinv.nn.dense_icnn`][].

    **Raises:** `ValueError` for sizes or strides below 1, a `beta` that is not positive, an even
    `kernel_size`, a `strong_convexity` outside [0, 1), or an unknown `activation` or `initial`.

    !!! example
        ```python
        >>> import jax, jinv
        >>> jinv.nn.convolutional_icnn((28, 28), key=jax.random.key(0)).num_weights
        317056

        ```

    ??? cite "Source"
        Fang, Buchanan, Sulam, What's in a prior?, 2024, and its code. $\alpha$ is that of the
        paper, so that the code's 0.01 is 0.02 here.
    """
    shape, strides = tuple(shape), tuple(strides)
    sizes = {"shape": shape, "strides": strides, "channels": (channels,), "hidden": (hidden,)}
    _check(sizes, beta, strong_convexity, activation)
    if len(shape) not in (2, 3):
        raise ValueError(f"`shape` must be (H, W) or (H, W, channels), got {shape}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` must be odd, got {kernel_size}")
    if initial not in ("published", "uniform"):
        raise ValueError(f"`initial` must be 'published' or 'uniform', got {initial!r}")

    def nonnegative(key, shape):
        if initial == "published":
            return NonNegative(jnp.exp(-10 + 0.1 * jax.random.normal(key, shape)), rule)
        return _rectified(key, shape, math.prod(shape[:-1] or shape) ** -0.5, rule)

    keys = iter(jax.random.split(key, 3 * len(strides) + 4))
    colours = shape[2] if len(shape) == 3 else 1
    bound = (kernel_size**2 * colours) ** -0.5
    size, layers = shape[:2], []
    for depth, stride in enumerate(strides):
        kernel = (kernel_size, kernel_size)
        lift = _uniform(next(keys), (*kernel, colours, channels), bound)
        bias = _uniform(next(keys), (channels,), bound) if depth else None
        mix = nonnegative(next(keys), (*kernel, channels, channels)) if depth else None
        conv = _Convolution(stride)
        layers.append(_Layer(lift, bias, mix, None, conv, conv))
        size = tuple(-(-n // stride) for n in size)
    cells = math.prod(size)
    bound = (cells * colours) ** -0.5
    lift = _uniform(next(keys), (cells * colours, hidden), bound)
    bias = _uniform(next(keys), (hidden,), bound)
    mix = nonnegative(next(keys), (cells * channels, hidden))
    head = nonnegative(next(keys), (hidden,))
    layers.append(_Layer(lift, bias, mix, head, _Dense(), _Dense()))
    return ICNN(
        layers=tuple(layers),
        slope=None,
        strong_convexity=float(strong_convexity),
        shape=shape,
        activation=activation,
        beta=float(beta),
    )


def _check(sizes, beta, strong_convexity, activation):
    for name, values in sizes.items():
        if not values or min(values) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {values}")
    if not beta > 0:
        raise ValueError(f"`beta` must be positive, got {beta}")
    if not 0 <= strong_convexity < 1:
        raise ValueError(f"`strong_convexity` must be in [0, 1), got {strong_convexity}")
    if activation not in get_args(Activation):
        raise ValueError(f"`activation` must be one of {get_args(Activation)}, got {activation!r}")


def _uniform(key, shape, bound):
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _rectified(key, shape, bound, rule):
    """Half of the weights zero; by a parametrisation they could never leave it: their moduli."""
    weights = _uniform(key, shape, bound)
    return NonNegative(jnp.maximum(weights, 0) if rule == "clip" else jnp.abs(weights), rule)


def _cosines(shape):
    """The orthonormal discrete cosine transform, as the matrix that multiplies from the right."""
    size = math.prod(shape)
    units = np.eye(size).reshape(size, *shape)
    found = scipy.fft.dctn(units, axes=range(1, len(shape) + 1), norm="ortho")
    return jnp.asarray(np.asarray(found).reshape(size, size), float)
