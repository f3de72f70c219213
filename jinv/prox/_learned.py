"""Learned proximal networks: the gradient of a convex network as the prox of its own prior."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._functional import AbstractFunctional
from .._loop import stop_gradient
from .._result import RESULTS, Solution
from ..nn import AbstractConvexPotential
from ._inversion import invert
from ._util import parameter


class LearnedProximalNetwork(AbstractFunctional):
    r"""The functional $g = R / \tau$ whose prox at step size $\tau$ is the network
    $f = \nabla\psi$, for a convex $\psi$.

    Every solver takes it as a proximable term or a penalty, with `jax.vmap` for batches. The
    prox is exact at every step size, not only at $\tau$: it is $f(y)$ with
    $\tfrac t\tau y + (1 - \tfrac t\tau) f(y) = v$. At $t = \tau$ that is one evaluation of the
    network, otherwise a convex problem of up to a hundred; above $\tau$ it has a unique
    solution only if $(t - \tau) L < t$ for the Lipschitz constant $L$ of $f$. The value solves
    $f(y) = x$: $R(x) = \langle x, y\rangle - \tfrac12\|x\|^2 - \psi(y)$, which is $\infty$
    outside the range of $f$.

    Trained by proximal matching at noise $\sigma$, $R = -\sigma^2 \log p + $ const. With data
    of noise $s$ the estimate of largest posterior density has $\tau = \sigma^2 / s^2$, a number
    that is best tuned like any weight: larger is weaker.

    Outputs clamped to a range are no prox; add a constraint as a term of its own instead.

    **Arguments:**

    - `potential`: $\psi$, of the shape of the data or `jinv.nn.Tiled`.
    - `step_size`: $\tau > 0$, the inverse of the weight of $R$.
    - `conjugate`: a second network for $\psi^*$ (`jinv.train.ConjugateMatching`); then the
        value is $\psi^*(x) - \tfrac12 \|x\|^2$, approximately, without an inversion.
    - `rtol`: of the convex problems, relative to $\|x\|$; by default $2 \cdot 10^{-11}$ in
        float64, $6 \cdot 10^{-5}$ in float32.
    - `max_steps`: the most Newton steps of one.
    - `objective`: `False` to have `nan` as the value, where solvers should not spend time on it.

    **Raises:** `ValueError` for arguments of another kind.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> potential = jinv.nn.dense_icnn(3, (8, 8), strong_convexity=0.1, key=jax.random.key(0))
        >>> prior = jinv.prox.LearnedProximalNetwork(potential, 0.5)
        >>> v = jnp.array([1.0, -2.0, 0.5])
        >>> bool(jnp.all(prior.prox(v, 0.5) == potential.gradient(v)))
        True

        ```

    ??? cite "Source"
        Fang, Buchanan, Sulam, What's in a prior? Learned proximal networks for inverse problems,
        2024; Gribonval and Nikolova, A characterization of proximity operators, 2020.
        Deviations: the prox at other step sizes; Newton's method with a stopping test in place
        of a fixed number of steps of Adam or nonlinear conjugate gradients.
    """

    potential: AbstractConvexPotential
    step_size: Real[Array, ""]
    conjugate: AbstractConvexPotential | None
    rtol: Real[Array, ""] | None
    max_steps: int = eqx.field(static=True)
    objective: bool = eqx.field(static=True)

    def __init__(
        self,
        potential: AbstractConvexPotential,
        step_size: Real[ArrayLike, ""] = 1.0,
        *,
        conjugate: AbstractConvexPotential | None = None,
        rtol: Real[ArrayLike, ""] | None = None,
        max_steps: int = 200,
        objective: bool = True,
    ):
        for name, value in (("potential", potential), ("conjugate", conjugate)):
            absent = value is None and name == "conjugate"
            if not (absent or isinstance(value, AbstractConvexPotential)):
                raise ValueError(
                    f"`{name}` must be a convex potential such as jinv.nn.dense_icnn makes, got "
                    f"{type(value).__name__}; wrap any other denoiser with jinv.prox.PlugIn"
                )
        if max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {max_steps}")
        self.potential = potential
        self.step_size = parameter("step_size", step_size, above=0.0)
        self.conjugate = conjugate
        self.rtol = None if rtol is None else parameter("rtol", rtol, above=0.0)
        self.max_steps = max_steps
        self.objective = objective

    def __call__(self, x: Float[Array, "..."]) -> Real[Array, ""]:
        tau = jnp.asarray(self.step_size, x.dtype)
        if not self.objective:
            return jnp.asarray(jnp.nan, x.dtype)
        if self.conjugate is not None:
            return (self.conjugate(x) - 0.5 * jnp.sum(x * x)) / tau
        prior, result = self.prior(x)
        outside = jnp.where(result == RESULTS.out_of_range, jnp.inf, jnp.nan).astype(x.dtype)
        return jnp.where(result == RESULTS.successful, prior, outside) / tau

    def prior(
        self, x: Float[Array, "..."], y0: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, ""], RESULTS]:
        r"""$R(x)$, up to a constant, and how the inversion ended.

        The derivatives are exact: $\nabla R(x) = f^{-1}(x) - x$, and further ones by the implicit
        function theorem; that with respect to the weights is $-\partial\psi(y)$.

        **Arguments:**

        - `x`: the point.
        - `y0`: where the inversion starts, by default at `x`.

        **Returns:** the value, and a `RESULTS` item. `out_of_range` is proven: the recession
        function of $\psi$ shows that no $y$ exists. `nan` where the result is not `successful`.
        """
        network, fixed = stop_gradient((self, x))
        sol = network.invert(fixed, y0)
        value = _prior(self, x, stop_gradient(sol.value))
        return jnp.where(sol.result == RESULTS.successful, value, jnp.nan), sol.result

    def invert(self, x: Float[Array, "..."], y0: Float[Array, "..."] | None = None) -> Solution:
        r"""Solves $f(y) = x$, by minimising the convex $\psi(y) - \langle x, y \rangle$.

        **Arguments:** as for `prior`.

        **Returns:** a `Solution` with $y$ in `value`, differentiable with respect to `x` and the
        weights, and in `stats` the `residual` $\|f(y) - x\|$, `num_products` (evaluations of
        the network or of products with its Jacobian) and `gap`, a bound of the error of $R(x)$ by
        the Fenchel-Young inequality: $0 \le \psi(y) + \psi^*(x) - \langle x, y\rangle
        \le \|f(y) - x\|^2 / (2\alpha)$, infinite for $\alpha = 0$.
        """
        sol = self._solve(x, jnp.zeros((), x.dtype), x if y0 is None else y0)
        alpha = self.potential.strong_convexity
        residual = sol.stats["residual"]
        gap = residual**2 / (2 * alpha) if alpha > 0 else jnp.full_like(residual, jnp.inf)
        return eqx.tree_at(lambda s: s.stats, sol, {**sol.stats, "gap": gap})

    def prox(self, v, step_size):
        step_size = jnp.asarray(step_size, v.dtype)
        if step_size.ndim:
            raise ValueError(f"a learned prox takes a scalar `step_size`, got {step_size.shape}")
        share = step_size / jnp.asarray(self.step_size, v.dtype)
        # A step size that went through a reciprocal or a product is the same up to rounding.
        same = jnp.abs(share - 1) <= 8 * jnp.finfo(v.dtype).eps
        direct = lambda v, share: _network(self.potential, v, share)
        # A prox has no way to report; the residual of the outer solver shows what is missing.
        solved = lambda v, share: self.potential.gradient(self._solve(v, share, v).value)
        return jax.lax.cond(same, direct, solved, v, share)

    def _solve(self, target, share, y0) -> Solution:
        settings = {"rtol": self.rtol, "max_steps": self.max_steps}
        return invert(self.potential, target, share, y0, **settings)

    def natural_step(self):
        return self.step_size

    def weak_convexity(self):
        r"""$1/\tau$: $g + \tfrac{1}{2\tau}\|\cdot\|^2 = \psi^*/\tau$ is convex."""
        return 1 / self.step_size


@eqx.filter_custom_jvp
def _network(potential, v, share):
    """The prox at a `share` of one: the derivative knows what other shares would give."""
    return potential.gradient(v)


@_network.def_jvp
def _(primals, tangents):
    potential, v, share = primals
    t_potential, t_v, t_share = tangents
    t_v = jnp.zeros_like(v) if t_v is None else t_v
    if t_share is not None:
        # From s y + (1 - s) f(y) = v at s = 1.
        t_v = t_v + t_share * (_network(potential, v, share) - v)
    moved, fixed = _moving(potential, t_potential)
    fn = lambda moved, v: eqx.combine(moved, fixed).gradient(v)
    return jax.jvp(fn, (moved, v), (t_potential, t_v))


def _moving(tree, tangents):
    """The leaves that have a tangent, and the others."""
    moving = jax.tree.map(lambda t: t is not None, tangents, is_leaf=lambda t: t is None)
    return eqx.partition(tree, moving)


@eqx.filter_custom_jvp
def _prior(network, x, y):
    return jnp.sum(x * y) - 0.5 * jnp.sum(x * x) - network.potential(y)


@_prior.def_jvp
def _(primals, tangents):
    network, x, y = primals
    t_network, t_x, _ = tangents
    # The maximum in psi^* makes the change of y irrelevant to first order. For further ones y
    # is attached to x; at the solution that takes no step.
    y = network.invert(x, y).value
    value, t_value = _prior(network, x, y), jnp.zeros((), x.dtype)
    if t_x is not None:
        t_value = t_value + jnp.sum(t_x * (y - x))
    t_potential = t_network.potential
    moved, fixed = _moving(network.potential, t_potential)
    if jax.tree.leaves(moved):
        fn = lambda moved: eqx.combine(moved, fixed)(y)
        t_value = t_value - jax.jvp(fn, (moved,), (t_potential,))[1]
    return value, t_value
