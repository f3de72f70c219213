"""Polyhedra given by linear equations and inequalities."""

import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from jinv._functional import AbstractFunctional

from ._util import indicator, parameter, slack


class Polyhedron(AbstractFunctional):
    r"""The indicator of the polyhedron $\{x : G x \le h,\ A x = b\}$.

    The projection is a small dense quadratic program, solved by a primal-dual interior-point
    method (about 10 to 20 solves of size $n + m_A$) and then once more on its active
    constraints, which gives the last digits and the derivatives with respect to all of `v`,
    `G`, `h`, `A`, `b` (where the active set is stable). Use `Box`, `HalfSpace`, `Simplex`,
    `BoxSection` or `AffineSet` where the set is one of those. An empty polyhedron gives a
    result of infinite value.

    **Arguments:**

    - `G`: shape `(k, n)`, with `h` of shape `(k,)`.
    - `A`: shape `(m, n)`, with `b` of shape `(m,)`; both or neither.
    - `max_steps`: the limit of interior-point steps.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> G = jnp.array([[1.0, 1.0], [-1.0, 0.0]])
        >>> g = jinv.prox.Polyhedron(G, jnp.array([1.0, 0.0]))
        >>> g.prox(jnp.array([-1.0, 3.0]), 1.0).round(3) + 0.0
        Array([0., 1.], dtype=float32)

        ```

    Source: S. Mehrotra, "On the Implementation of a Primal-Dual Interior Point Method", SIAM J.
    Optim., 1992 (predictor and corrector).
    """

    G: Float[Array, "k n"]
    h: Float[Array, " k"]
    A: Float[Array, "m n"]
    b: Float[Array, " m"]
    max_steps: int

    def __init__(
        self,
        G: Real[ArrayLike, "k n"],
        h: Real[ArrayLike, " k"],
        A: Real[ArrayLike, "m n"] | None = None,
        b: Real[ArrayLike, " m"] | None = None,
        *,
        max_steps: int = 60,
    ):
        if (A is None) != (b is None):
            raise ValueError("`A` and `b` must be given together")
        self.G = parameter("G", G)
        self.h = parameter("h", h)
        self.A = jnp.zeros((0, self.G.shape[1]), self.G.dtype) if A is None else jnp.asarray(A)
        self.b = jnp.zeros((0,), self.G.dtype) if b is None else jnp.asarray(b)
        self.max_steps = max_steps

    def __call__(self, x: Float[Array, " n"]) -> Real[Array, ""]:
        G, h, A, b = (p.astype(x.dtype) for p in (self.G, self.h, self.A, self.b))
        tol = slack(x, x)
        return indicator(
            jnp.all(G @ x <= h + tol + slack(x, h) - slack(x)) & jnp.all(jnp.abs(A @ x - b) <= tol),
            x,
        )

    def prox(self, v: Float[Array, " n"], step_size: Real[ArrayLike, ""]) -> Array:
        G, h, A, b = (p.astype(v.dtype) for p in (self.G, self.h, self.A, self.b))
        # Rows of unit length: the method's tolerances then mean distances.
        G, h = _unit_rows(G, h)
        A, b = _unit_rows(A, b)
        x, active = lax.stop_gradient(_interior_point(*lax.stop_gradient((v, G, h, A, b)), self))
        rows = jnp.concatenate([jnp.where(active[:, None], G, 0), A])
        gap = jnp.concatenate([jnp.where(active, G @ v - h, 0), A @ v - b])
        solver = lx.SVD(rcond=100 * float(jnp.finfo(v.dtype).eps))
        exact = v - lx.linear_solve(lx.MatrixLinearOperator(rows), gap, solver).value
        # Where multipliers vanish on the boundary, the interior-point iterate has only half of the
        # digits; where the guessed set is wrong (degenerate points), it is still the better one.
        eps = float(jnp.finfo(v.dtype).eps)
        scale = 1 + jnp.max(jnp.abs(v)) + jnp.max(jnp.abs(x))
        near = jnp.max(jnp.abs(exact - x)) <= 2 * eps ** (1 / 3) * scale
        good = near & jnp.all(G @ exact <= h + 100 * eps * scale)
        return jnp.where(good, exact, x)


def _unit_rows(matrix, right):
    length = jnp.sqrt(jnp.sum(matrix * matrix, axis=1))
    length = jnp.where(length > 0, length, 1)
    return matrix / length[:, None], right / length


def _interior_point(v, G, h, A, b, polyhedron):
    n, k, m = v.size, h.size, b.size
    eps = jnp.finfo(v.dtype).eps
    scale = 1 + jnp.max(jnp.abs(v)) + jnp.max(jnp.abs(h), initial=0)

    def residuals(x, s, y, z):
        return x - v + G.T @ y + A.T @ z, G @ x + s - h, A @ x - b

    def direction(s, y, dual, slacks, equal, target):
        """One Newton step towards s * y = target."""
        w = y / s
        top = jnp.eye(n, dtype=v.dtype) + G.T @ (w[:, None] * G)
        matrix = jnp.block([[top, A.T], [A, -eps * jnp.eye(m, dtype=v.dtype)]])
        right = jnp.concatenate([-dual - G.T @ (w * slacks + (target - s * y) / s), -equal])
        d = jnp.linalg.solve(matrix, right)
        dx, dz = d[:n], d[n:]
        ds = -slacks - G @ dx
        dy = (target - s * y - y * ds) / s
        return dx, ds, dy, dz

    def longest(u, du):
        return jnp.min(jnp.where(du < 0, -u / jnp.where(du < 0, du, 1), jnp.inf), initial=1)

    def step(state):
        x, s, y, z, _, count = state
        parts = residuals(x, s, y, z)
        mean = jnp.sum(s * y) / k
        _, ds, dy, _ = direction(s, y, *parts, jnp.zeros_like(s))
        a = jnp.minimum(longest(s, ds), longest(y, dy))
        centred = mean * (jnp.sum((s + a * ds) * (y + a * dy)) / k / mean) ** 3
        dx, ds, dy, dz = direction(s, y, *parts, centred - ds * dy)
        a = jnp.minimum(1, 0.995 * jnp.minimum(longest(s, ds), longest(y, dy)))
        new = x + a * dx, s + a * ds, y + a * dy, z + a * dz
        # Past the last digit the matrix degenerates: keep the last good iterate and stop there.
        good = jnp.all(jnp.stack([jnp.all(jnp.isfinite(u)) for u in new])) & (mean > 0)
        x, s, y, z = jax.tree.map(lambda u, old: jnp.where(good, u, old), new, (x, s, y, z))
        worst = [jnp.max(jnp.abs(r), initial=0) for r in residuals(x, s, y, z)]
        error = jnp.max(jnp.stack([*worst, jnp.sum(s * y) / k]))
        return x, s, y, z, jnp.where(good, error, 0), count + 1

    def go_on(state):
        *_, error, count = state
        return (error > 256 * eps * scale) & (count < polyhedron.max_steps)

    ones = jnp.ones_like(h)
    state = (v, ones * scale, ones * scale, jnp.zeros_like(b), jnp.asarray(jnp.inf, v.dtype), 0)
    x, s, y, *_ = jax.lax.while_loop(go_on, step, state)
    return x, y > s
