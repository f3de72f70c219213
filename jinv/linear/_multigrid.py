"""Geometric multigrid for diffusion on grids, as a preconditioner."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..operators._checks import as_inexact, check_choice
from ._coarsen import Coarsening, cut, pad, pad_even
from ._cycle import Coarsest, Complement, Cycle, Level, RedCycle, RedSystem
from ._diffusion import Diffusion, require_diffusion
from ._preconditioner import AbstractPreconditioner
from ._quadratic import Quadratic


class Relaxation(eqx.Module):
    r"""The relaxation factors of the red cells: $2 / (1 + e^{-z})$, so in (0, 2) whatever the
    numbers are, where $z$ is `logit`, corrected by a trained function of the cell's links.

    The features are what the Schur complement of the black cells takes from the diagonal,
    $\sum_j w_{ij}^2 / (d_i d_j)$, how uneven the links are, $\sum_j (w_{ij} / d_i)^2$, and the part
    of the sink, $s_i / d_i$.
    """

    logit: Float[Array, ""] | float = 0.0
    correction: Quadratic | None = None

    def __call__(self, operator: Diffusion) -> Float[Array, "..."]:
        diagonal = operator.diagonal()
        z = jnp.broadcast_to(jnp.asarray(self.logit, diagonal.dtype), diagonal.shape)
        if self.correction is None:
            return 2 * jax.nn.sigmoid(z)
        safe = jnp.where(diagonal > 0, diagonal, 1)
        back = uneven = jnp.zeros_like(diagonal)
        for axis, w in enumerate(operator.faces):
            first, second = cut(safe, axis, 0, -1), cut(safe, axis, 1, None)
            link = cut(w, axis, 1, -1) ** 2 / (first * second)
            back = back + pad(link, axis, 0, 1) + pad(link, axis, 1, 0)
            uneven = (
                uneven + (cut(w, axis, 0, -1) / safe) ** 2 + (cut(w, axis, 1, None) / safe) ** 2
            )
        z = z + self.correction(4 * back - 1, 4 * uneven - 1, operator.sink / safe)
        return 2 * jax.nn.sigmoid(z)


class MultigridWeights(eqx.Module):
    """The numbers of a multigrid cycle: relaxation and coarsening of each level.

    The last entry serves all coarser levels. Without `trainable` they are the untrained
    defaults, and with it the trained corrections are there, at zero: the same cycle. Whatever
    their values, the cycle is symmetric and positive definite.

    **Arguments:**

    - `depth`: how many levels have numbers of their own.
    - `trainable`: with corrections that can be trained.

    Raises `ValueError` for a depth below 1.

    !!! example
        ```python
        >>> import jinv
        >>> weights = jinv.linear.MultigridWeights(depth=3, trainable=True)
        >>> len(weights.levels)
        3

        ```
    """

    levels: tuple[tuple[Relaxation, Coarsening], ...]

    def __init__(self, depth: int = 1, *, trainable: bool = False):
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}.")
        one = Relaxation(), Coarsening()
        if trainable:
            scalar = lambda x: jnp.asarray(x, jnp.float32)
            quadratic = lambda n, limit: Quadratic(n, limit=limit, dtype=jnp.float32)
            relaxation = Relaxation(scalar(0.0), quadratic(3, 3.0))
            shares = quadratic(3, 3.0), quadratic(2, 1.0)
            one = relaxation, Coarsening(scalar(1.0), *shares)
        self.levels = (one,) * depth


class Multigrid(AbstractPreconditioner):
    r"""Geometric multigrid for [`jinv.linear.Diffusion`][] in 1-3 dimensions: one cycle is the
    approximate inverse.

    The first choice for these systems: the number of steps hardly depends on size, geometry
    and moderate jumps of the coefficient. Black cells are eliminated, red ones relaxed; the
    coarse operators have the fine one's stencil, keep thin walls closed, and follow jumps
    (see the source for how). A step of PCG, which runs on the red half of the cells only, costs
    about six products in 2-D and five in 3-D. The set-up, which takes as long as four to six
    steps, is traced with the solve, so geometries and coefficients may change under `jit` and
    `vmap`.

    **Arguments:**

    - `weights`: [`jinv.linear.MultigridWeights`][], trained ones for instance; the untrained
        default if `None`.
    - `cycle`: `"F"`, which visits the second coarse grid three times, each by a V cycle; `"V"`,
        once, for a tenth less work and a tenth to a quarter more steps; or `"W"`, which visits
        every second coarse grid three times. All are positive definite whatever the weights are.
    - `sweeps`: relaxations before and after the coarse correction.
    - `anisotropy`: the relative size of the couplings along each axis, where they are very
        unequal: only the strong axes are coarsened, until all are alike.
    - `dtype`: the dtype of the cycle, of the operator by default. float32 inside a float64
        solve costs no steps and nearly halves the time.

    Raises `ValueError` for another operator and for values out of range.

    Source: the symmetric cycle as in U. Trottenberg, C. Oosterlee, A. Schueller, *Multigrid*,
    2001, chapters 2 and 7, with interpolation after R. Alcouffe, A. Brandt, J. Dendy, J. Painter,
    1981. Deviations: interpolation and coarse operators are those of one-dimensional problems,
    axis by axis, and the Galerkin entries beyond the stencil are put on faces; walls are kept.
    The textbook's F cycle is not symmetric, and its W cycle, with two visits of each coarse grid,
    not definite where the coarse grids overshoot; here it is three or one, the third of them
    damped (see `_VISITS` in the source). Visits of the first coarse grid too would cost a third
    more in each step and save one step in six.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> cells = jnp.zeros((96, 130), int).at[40:50, 20:100].set(1)
        >>> A = jinv.linear.pressure_poisson(cells, open_sides=[(0, 1)])
        >>> b = jnp.where(cells == 0, 1.0, 0.0)
        >>> solver = jinv.linear.PCG(1e-4, 0.0, preconditioner=jinv.linear.Multigrid())
        >>> solution = lx.linear_solve(A, b, solver)
        >>> bool(solution.stats["num_steps"] < 10)
        True

        ```
    """

    weights: MultigridWeights | None = None
    cycle: str = eqx.field(static=True, kw_only=True, default="F")
    sweeps: int = eqx.field(static=True, kw_only=True, default=1)
    anisotropy: tuple[float, ...] | None = eqx.field(
        static=True, kw_only=True, default=None, converter=lambda x: x if x is None else tuple(x)
    )
    dtype: Any = eqx.field(static=True, kw_only=True, default=None)

    def __check_init__(self):
        check_choice(self.cycle, ("V", "W", "F"), "cycle")
        if self.sweeps < 1:
            raise ValueError(f"sweeps must be at least 1, got {self.sweeps}.")
        if self.anisotropy is not None and not all(s > 0 for s in self.anisotropy):
            raise ValueError(f"anisotropy must hold positive numbers, got {self.anisotropy}.")
        if self.dtype is not None:
            as_inexact(self.dtype)

    def init(self, operator):
        operator = require_diffusion(operator, "Multigrid")
        return Cycle(self._levels(operator), self.cycle, operator.in_structure())

    def reduce(self, operator):
        operator = require_diffusion(operator, "Multigrid")
        levels = self._levels(operator)
        if not isinstance(levels[0], Level):
            return None
        fine = levels[0]
        if operator.sink.dtype != levels[-1].inverse.dtype:
            fine = Level.make(operator, [None] * operator.sink.ndim, operator.sink, 1)
        complement = Complement(fine)
        cycle = RedCycle(levels, self.cycle, complement.in_structure())
        return RedSystem(complement, cycle)

    def _levels(self, operator: Diffusion) -> list:
        ndim = len(operator.shape)
        if self.anisotropy is not None and len(self.anisotropy) != ndim:
            raise ValueError(
                f"anisotropy must hold one number per axis, {ndim}, got {self.anisotropy}."
            )
        if self.dtype is not None:
            operator = jax.tree.map(lambda x: x.astype(self.dtype), operator)
        weights = (self.weights or MultigridWeights()).levels
        couplings = list(self.anisotropy or (1.0,) * ndim)
        levels = []
        while operator.sink.size > _COARSEST:
            relaxation, coarsening = weights[min(len(levels), len(weights) - 1)]
            fine, shares = operator, []
            chosen = _strong_axes(couplings, operator.shape)
            for axis in range(ndim):
                if axis in chosen:
                    operator, alpha = coarsening(operator, axis)
                    couplings[axis] /= 4
                else:
                    operator, alpha = pad_even(operator, axis), None
                shares.append(alpha)
            levels.append(Level.make(fine, shares, relaxation(fine), self.sweeps))
        return [*levels, Coarsest.make(operator)]


# Unknowns of the grid that is solved by a dense inverse: as much work as a small level.
_COARSEST = 100


def _strong_axes(couplings: Sequence[float], shape: tuple[int, ...]) -> set[int]:
    """The axes to coarsen: those coupled at least half as strongly as the strongest."""
    long = [axis for axis, n in enumerate(shape) if n > 2]
    most = max(couplings[axis] for axis in long)
    return {axis for axis in long if couplings[axis] >= most / 2}
