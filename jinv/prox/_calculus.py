"""New functionals from old: each changes the arguments of a prox and its result, no more."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, PyTree, Real

from jinv._functional import AbstractFunctional
from jinv.operators import adjoint

from ._separable import AbstractSeparable
from ._util import (
    all_true,
    indicator,
    inner,
    leafwise,
    like,
    like_data,
    over,
    parameter,
    slack,
    spread,
    squares,
    times,
    total,
)


class _AbstractChanged(AbstractFunctional):
    """A functional whose prox is `after(f.prox(*before(v, t)))`; warm starts pass through."""

    functional: AbstractFunctional

    @abc.abstractmethod
    def _before(self, v: Any, step_size: Any) -> Any:
        """The arguments of the inner prox."""

    @abc.abstractmethod
    def _after(self, p: Any, v: Any) -> Any:
        """The outer prox from the inner one."""

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return self._after(self.functional.prox(*self._before(v, step_size)), v)

    def weak_convexity(self) -> Real[Array, ""] | float:
        weak = self.functional.weak_convexity()
        return weak if isinstance(weak, float) and weak == 0 else self._modulus(weak)

    def _modulus(self, weak: Any) -> Any:
        """The modulus from that of a functional that is not convex: not known."""
        return weak * jnp.nan

    def init_prox(self, v: PyTree[Array]) -> Any:
        return self.functional.init_prox(self._before(v, jnp.ones(()))[0])

    def warm_prox(
        self, v: PyTree[Array], step_size: PyTree[ArrayLike], carry: Any
    ) -> tuple[PyTree[Array], Any]:
        inner_v, inner_step = self._before(v, step_size)
        p, carry = self.functional.warm_prox(inner_v, inner_step, carry)
        return self._after(p, v), carry


class Zero(AbstractSeparable):
    r"""The zero functional: its prox is the identity.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Zero().prox(jnp.array([1.0, -2.0]), 3.0)
        Array([ 1., -2.], dtype=float32)

        ```
    """

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return total(jnp.zeros_like, jax.tree.map(jnp.real, x))

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return v

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return jax.tree.map(jnp.zeros_like, z)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$g^*(z)$: 0 where $z = 0$, else infinite."""
        return indicator(all_true(lambda u: jnp.abs(u) <= slack(u), z), z)


class Scaled(_AbstractChanged):
    r"""The multiple $c f$, with $\mathrm{prox}_{t (c f)} = \mathrm{prox}_{(t c) f}$.

    **Arguments:**

    - `functional`: $f$.
    - `scale`: $c > 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Scaled(jinv.prox.L1(), 0.5).prox(jnp.array([2.0, 0.1]), 1.0)
        Array([1.5, 0. ], dtype=float32)

        ```
    """

    functional: AbstractFunctional
    scale: Real[Array, ""]

    def __init__(self, functional: AbstractFunctional, scale: Real[ArrayLike, ""]):
        self.functional = functional
        self.scale = parameter("scale", scale, above=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        value = self.functional(x)
        return like(self.scale, value) * value

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        # (c f)^*(z) = c f^*(z / c).
        moved = leafwise(lambda u, c: over(u, c), z, self.scale)
        p = self.functional.conjugate_prox(moved, _times(step_size, 1 / self.scale))
        return leafwise(lambda u, c: times(u, c), p, self.scale)

    def natural_step(self) -> Real[Array, ""] | None:
        step = self.functional.natural_step()
        return None if step is None else step / self.scale

    def _modulus(self, weak):
        return weak * self.scale

    def _before(self, v, step_size):
        return v, _times(step_size, self.scale)

    def _after(self, p, v):
        return p


class Translated(_AbstractChanged):
    r"""The translate $f(x - b)$: the way to write data terms, as in `Translated(L1(), y)`.

    **Arguments:**

    - `functional`: $f$.
    - `shift`: $b$; a scalar, an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.Translated(jinv.prox.L1(), jnp.array([1.0, 5.0]))
        >>> g.prox(jnp.array([3.0, 4.5]), 1.0)
        Array([2., 5.], dtype=float32)

        ```
    """

    functional: AbstractFunctional
    shift: PyTree[Array]

    def __init__(self, functional: AbstractFunctional, shift: PyTree[ArrayLike]):
        self.functional = functional
        self.shift = parameter("shift", shift)

    def has_fast_prox(self):
        return self.functional.has_fast_prox()

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return self.functional(_add(x, self.shift, -1))

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        # The conjugate is f^*(z) + <b, z>.
        return self.functional.conjugate_prox(_add(z, self.shift, -1, step_size), step_size)

    def natural_step(self) -> Real[Array, ""] | None:
        return self.functional.natural_step()

    def _modulus(self, weak):
        return weak

    def _before(self, v, step_size):
        return _add(v, self.shift, -1), step_size

    def _after(self, p, v):
        return _add(p, self.shift, 1)


class ArgumentScaled(_AbstractChanged):
    r"""The functional $f(s x)$, with prox $\tfrac1s \mathrm{prox}_{s^2 t f}(s v)$.

    **Arguments:**

    - `functional`: $f$.
    - `scale`: $s \ne 0$, a real scalar (an array too where `f` is separable).

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.ArgumentScaled(jinv.prox.L1(), 2.0).prox(jnp.array([3.0, 1.0]), 1.0)
        Array([1., 0.], dtype=float32)

        ```
    """

    functional: AbstractFunctional
    scale: PyTree[Array]

    def __init__(self, functional: AbstractFunctional, scale: PyTree[ArrayLike]):
        self.functional = functional
        self.scale = parameter("scale", scale)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return self.functional(leafwise(lambda u, s: times(u, s), x, self.scale))

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        # The conjugate is f^*(z / s).
        moved = leafwise(lambda u, s: over(u, s), z, self.scale)
        step = _times(step_size, jax.tree.map(lambda s: 1 / s**2, self.scale))
        p = self.functional.conjugate_prox(moved, step)
        return leafwise(lambda u, s: times(u, s), p, self.scale)

    def _before(self, v, step_size):
        step = _times(step_size, jax.tree.map(lambda s: s**2, self.scale))
        return leafwise(lambda u, s: times(u, s), v, self.scale), step

    def _after(self, p, v):
        return leafwise(lambda u, s: over(u, s), p, self.scale)


class Tilted(_AbstractChanged):
    r"""The sum with a linear term, $f(x) + \langle a, x\rangle$, with prox
    $\mathrm{prox}_{t f}(v - t a)$.

    **Arguments:**

    - `functional`: $f$.
    - `slope`: $a$; an array or a PyTree like `x`.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.Tilted(jinv.prox.NonNegative(), jnp.array([1.0, -1.0]))
        >>> g.prox(jnp.array([0.5, 0.5]), 1.0)
        Array([0. , 1.5], dtype=float32)

        ```
    """

    functional: AbstractFunctional
    slope: PyTree[Array]

    def __init__(self, functional: AbstractFunctional, slope: PyTree[ArrayLike]):
        self.functional = functional
        self.slope = parameter("slope", slope)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return self.functional(x) + inner(self.slope, x)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        # The conjugate is f^*(z - a).
        p = self.functional.conjugate_prox(_add(z, self.slope, -1), step_size)
        return _add(p, self.slope, 1)

    def natural_step(self) -> Real[Array, ""] | None:
        return self.functional.natural_step()

    def _modulus(self, weak):
        return weak

    def _before(self, v, step_size):
        return _add(v, self.slope, -1, step_size), step_size

    def _after(self, p, v):
        return p


class Regularised(_AbstractChanged):
    r"""The sum with a square, $f(x) + \tfrac{\mu}{2}\|x\|^2$, with prox
    $\mathrm{prox}_{\tau f}(v / (1 + t\mu))$ for $\tau = t / (1 + t\mu)$.

    It makes `f` strongly convex. For a step that is an array, `f` must be separable.

    **Arguments:**

    - `functional`: $f$.
    - `mu`: $\mu \ge 0$, a scalar.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Regularised(jinv.prox.L1(), 1.0).prox(jnp.array([3.0, 0.5]), 1.0)
        Array([1., 0.], dtype=float32)

        ```
    """

    functional: AbstractFunctional
    mu: Real[Array, ""]

    def __init__(self, functional: AbstractFunctional, mu: Real[ArrayLike, ""]):
        self.functional = functional
        self.mu = parameter("mu", mu, least=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        square = total(squares, x)
        return self.functional(x) + like(self.mu, square) * square / 2

    def _before(self, v, step_size):
        moved = leafwise(lambda u, t, m: over(u, 1 + t * m), v, step_size, self.mu)
        step = jax.tree.map(lambda t: t / (1 + t * _as(self.mu, t)), step_size)
        return moved, step

    def _after(self, p, v):
        return p


class Orthogonal(_AbstractChanged):
    r"""The functional $f(Q x)$ for a linear map with $Q Q^* = \nu I$ (an orthonormal wavelet or
    Fourier transform, a subsampling mask), with prox
    $v + \tfrac1\nu Q^*(\mathrm{prox}_{\nu t f}(Q v) - Q v)$.

    The condition is not checked; without it the result is not a prox.

    **Arguments:**

    - `functional`: $f$, on the output of `operator`.
    - `operator`: $Q$, any lineax operator.
    - `bound`: $\nu > 0$.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv, lineax as lx
        >>> Q = lx.MatrixLinearOperator(jnp.array([[0.6, 0.8], [-0.8, 0.6]]))
        >>> g = jinv.prox.Orthogonal(jinv.prox.L1(), Q)
        >>> g.prox(jnp.array([3.0, 4.0]), 1.0).round(3)
        Array([2.4, 3.2], dtype=float32)

        ```

    Source: P. L. Combettes and J.-C. Pesquet, "Proximal Splitting Methods in Signal Processing",
    2011 (table of properties).
    """

    functional: AbstractFunctional
    operator: lx.AbstractLinearOperator
    bound: Real[Array, ""]

    def __init__(
        self,
        functional: AbstractFunctional,
        operator: lx.AbstractLinearOperator,
        bound: Real[ArrayLike, ""] = 1.0,
    ):
        self.functional = functional
        self.operator = operator
        self.bound = parameter("bound", bound, above=0.0)

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        return self.functional(self.operator.mv(x))

    def _before(self, v, step_size):
        return self.operator.mv(v), _times(step_size, self.bound)

    def _after(self, p, v):
        step = jax.tree.map(lambda a, b: a - b, p, self.operator.mv(v))
        back = adjoint(self.operator).mv(step)
        return jax.tree.map(lambda x, d: x + over(d, like(self.bound, d)), v, back)


class Conjugate(AbstractFunctional):
    r"""The convex conjugate $f^*(z) = \sup_x \langle z, x\rangle - f(x)$ of a convex `f`.

    Its prox is `f.conjugate_prox`, and the other way round. The value is `f.conjugate(z)` where
    `f` has that method (`L1`, `L2`, `LInf`, `GroupL2`, `NuclearNorm`, `SquaredL2`, `Box`,
    `NonNegative`, `LInfBall`, `L2Ball`, `Zero`), and `nan` otherwise.

    **Arguments:**

    - `functional`: $f$.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> jinv.prox.Conjugate(jinv.prox.L1()).prox(jnp.array([3.0, -0.5]), 1.0)
        Array([ 1. , -0.5], dtype=float32)

        ```
    """

    functional: AbstractFunctional

    def __call__(self, x: PyTree[Array]) -> Real[Array, ""]:
        value = getattr(self.functional, "conjugate", None)
        if value is None:
            return jnp.nan + indicator(jnp.asarray(True), x)
        return value(x)

    def prox(self, v: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.functional.conjugate_prox(v, step_size)

    def conjugate_prox(self, z: PyTree[Array], step_size: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.functional.prox(z, step_size)

    def conjugate(self, z: PyTree[Array]) -> Real[Array, ""]:
        r"""$f^{**}(z) = f(z)$, as `f` is closed and convex."""
        return self.functional(z)


class Separable(AbstractFunctional):
    r"""The sum over blocks, $g(x_1, \dots, x_k) = \sum_j f_j(x_j)$ on tuples.

    **Arguments:**

    - `functionals`: a tuple, one per block. `prox` takes a tuple of points, and one step or a
        tuple of steps.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> g = jinv.prox.Separable((jinv.prox.L1(), jinv.prox.NonNegative()))
        >>> g.prox((jnp.array([3.0]), jnp.array([-1.0])), 1.0)
        (Array([2.], dtype=float32), Array([0.], dtype=float32))

        ```
    """

    functionals: tuple[AbstractFunctional, ...]

    def __call__(self, x: tuple[PyTree[Array], ...]) -> Real[Array, ""]:
        self._check(x)
        values = [f(u) for f, u in zip(self.functionals, x, strict=True)]
        return sum(values[1:], start=values[0])

    def prox(
        self, v: tuple[PyTree[Array], ...], step_size: PyTree[ArrayLike]
    ) -> tuple[PyTree[Array], ...]:
        self._check(v)
        blocks = zip(self.functionals, v, self._steps(step_size), strict=True)
        return tuple(f.prox(u, t) for f, u, t in blocks)

    def conjugate_prox(
        self, z: tuple[PyTree[Array], ...], step_size: PyTree[ArrayLike]
    ) -> tuple[PyTree[Array], ...]:
        self._check(z)
        blocks = zip(self.functionals, z, self._steps(step_size), strict=True)
        return tuple(f.conjugate_prox(u, s) for f, u, s in blocks)

    def weak_convexity(self) -> Real[Array, ""] | float:
        found = [f.weak_convexity() for f in self.functionals]
        return 0.0 if all(isinstance(w, float) and w == 0 for w in found) else jnp.nan

    def init_prox(self, v: tuple[PyTree[Array], ...]) -> Any:
        self._check(v)
        return tuple(f.init_prox(u) for f, u in zip(self.functionals, v, strict=True))

    def warm_prox(
        self, v: tuple[PyTree[Array], ...], step_size: PyTree[ArrayLike], carry: Any
    ) -> tuple[tuple[PyTree[Array], ...], Any]:
        self._check(v)
        blocks = zip(self.functionals, v, self._steps(step_size), carry, strict=True)
        results = [f.warm_prox(u, t, c) for f, u, t, c in blocks]
        return tuple(p for p, _ in results), tuple(c for _, c in results)

    def _steps(self, step_size):
        if isinstance(step_size, tuple):
            return step_size
        return (step_size,) * len(self.functionals)

    def _check(self, x):
        if len(x) != len(self.functionals):
            raise ValueError(
                f"expected a tuple of {len(self.functionals)} blocks, one per functional, "
                f"got {len(x)}"
            )


def _add(x, shift, factor, step_size=1):
    """x + factor * step_size * shift, leaf by leaf."""
    return jax.tree.map(
        lambda u, b, t: u + times(like_data(b, u), factor * like(t, u)),
        x,
        spread(shift, x),
        spread(step_size, x),
    )


def _as(parameter, t):
    """A parameter in the dtype of a step that is an array; Python numbers take any."""
    if isinstance(t, jax.Array) and jnp.issubdtype(t.dtype, jnp.floating):
        return parameter.astype(t.dtype)
    return parameter


def _times(step_size, scale):
    if jax.tree.structure(scale) == jax.tree.structure(step_size):
        return jax.tree.map(lambda t, c: t * _as(c, t), step_size, scale)
    if jax.tree.structure(step_size) == jax.tree.structure(0):
        return jax.tree.map(lambda c: step_size * _as(c, step_size), scale)
    return jax.tree.map(lambda t: t * _as(scale, t), step_size)
