"""Coarsening of grid operators, one axis at a time, with the interpolation that goes with it."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .. import _tree
from ._diffusion import Diffusion
from ._quadratic import Quadratic


# The resistance, in faces, between a pair with a wall inside and its neighbours: a small one lets
# the coarse grids leak out of narrow channels (8 costs one step in seven among obstacles).
_WALL = 1e3


class Coarsening(eqx.Module):
    r"""How a coarse operator and its interpolation follow from a fine operator's weights.

    Along one axis the weights are conductances, and a coarse value sits between the two cells
    of a pair. A cell takes the share $1 - \alpha$ of its own pair's value $I$ and $\alpha$ of that
    of the next pair $J$, by the resistances on the way, $\alpha = R_I / (R_I + R_J)$: constants
    are exact, a wall is never interpolated across, the flux is continuous over a jump, and
    $\alpha = 1/4$ where nothing varies. The weights of the coarse faces are those of the Galerkin
    operator $P^T A P$, whose entries between cells that are no neighbours are put on the faces
    between them by the inequality of Cauchy and Schwarz: so the coarse operator has the fine
    one's stencil and about its energy.

    Two cells of a pair with a wall between them would, joined, make a hole in it. Such a pair is
    kept from both neighbours instead, by a resistance of a thousand faces, so that thin walls
    stay closed on all grids. `twist` weighs the energy of neighbours that interpolate differently
    (its absolute value counts).
    `share` and `strength` are trained corrections of $\alpha$ (on the logistic scale) and of the
    coarse weights (on the logarithmic one); whatever they are, the weights stay non-negative.
    """

    twist: Float[Array, ""] | float = 1.0
    share: Quadratic | None = None
    strength: Quadratic | None = None

    def __call__(self, operator: Diffusion, axis: int) -> tuple[Diffusion, Float[Array, "..."]]:
        """The operator coarsened along `axis`, and the shares `alpha` of all (padded) cells."""
        # Barriers: what is fused with all that reads it is compiled, and computed, many times.
        operator = lax.optimization_barrier(pad_even(_without_lone_cells(operator), axis))
        alpha = lax.optimization_barrier(self._shares(operator, operator.active(), axis))
        even, odd = _halves(alpha, axis)
        outer, inner = _halves(operator.faces[axis], axis)
        direct = outer * (1 - pad(odd, axis, 1, 0) - pad(even, axis, 0, 1)) ** 2
        skew = inner * (even + odd)
        skew = pad(skew * even, axis, 0, 1) + pad(skew * odd, axis, 1, 0)
        twist = jnp.zeros_like(direct)
        # Links across the axis follow the interpolation, but not out of the grid.
        inside = pad(cut(alpha, axis, 1, -1), axis, 1, 1)
        sides = [(int(a != axis),) * 2 for a in range(alpha.ndim)]
        inside = lax.optimization_barrier(jnp.pad(inside, sides, mode="edge"))
        faces = []
        for other, w in enumerate(operator.faces):
            if other == axis:
                faces.append(w)
                continue
            around = inside
            for a in range(alpha.ndim):
                around = around if a in (axis, other) else cut(around, a, 1, -1)
            mean = (cut(around, other, 0, -1) + cut(around, other, 1, None)) / 2
            faces.append(_restrict(w, mean, axis))
            change = cut(alpha, other, 1, None) - cut(alpha, other, 0, -1)
            energy = cut(w, other, 1, -1) * change**2
            energy = pad(energy, other, 0, 1) + pad(energy, other, 1, 0)
            first, second = _halves(energy, axis)
            twist = twist + pad(first, axis, 0, 1) + pad(second, axis, 1, 0)
        twist = jnp.abs(_tree.cast(self.twist, twist)) / 2 * twist
        total = direct + skew + twist
        if self.strength is not None:
            safe = jnp.where(total > 0, total, 1)
            total = total * jnp.exp(self.strength(skew / safe, twist / safe))
        # A region that hangs on rounding errors is cut off: it would be moved by their inverse.
        around = outer + pad(inner, axis, 0, 1) + pad(inner, axis, 1, 0)
        least = jnp.asarray(100 * jnp.finfo(total.dtype).eps, total.dtype) * around
        faces[axis] = jnp.where(total > least, total, 0)
        return _replace(operator, faces, sum(_halves(operator.sink, axis))), alpha

    def _shares(self, operator: Diffusion, active: Bool[Array, "..."], axis: int) -> Array:
        outer, inner = _halves(operator.faces[axis], axis)
        left, right = cut(outer, axis, 0, -1), cut(outer, axis, 1, None)
        first, second = _halves(active, axis)
        weakest = jnp.minimum(_or(left, jnp.inf), _or(right, jnp.inf))
        weakest = jnp.where(jnp.isinf(weakest), 1, weakest)
        joined = jnp.minimum(_over(0.5, inner), _tree.cast(_WALL, inner) / weakest)
        own = jnp.where(first & second, joined, 0.5 / _or(jnp.maximum(left, right), 1))
        ahead = _over(1.0, left) + cut(pad(own, axis, 1, 0), axis, 0, -1)
        behind = _over(1.0, right) + cut(pad(own, axis, 0, 1), axis, 1, None)
        alpha = _weave(
            jnp.where(left > 0, own / (own + ahead), 0),
            jnp.where(right > 0, own / (own + behind), 0),
            axis,
        )
        raw, (alpha, across) = alpha, _smooth(alpha, operator, axis)
        if self.share is not None:
            alpha = _shift_logit(alpha, self.share(4 * alpha - 1, 4 * (raw - alpha), across))
        # A sink in the cell draws its value to zero, not to the neighbour's.
        links = _weave(1 / own + 1 / ahead, 1 / own + 1 / behind, axis)
        return jnp.where(active, alpha * links / (links + operator.sink), 0)


def _smooth(alpha, operator, axis):
    """One averaging over the neighbours across the axis, by the strength of their links (cells
    that are strongly linked must not interpolate from different places), and how strong they are
    beside all links, less one half."""
    own = operator.faces[axis]
    along = cut(own, axis, 0, -1) + cut(own, axis, 1, None)
    total, weight = along * alpha, along
    for other, w in enumerate(operator.faces):
        if other == axis:
            continue
        w = cut(w, other, 1, -1)
        before, after = cut(alpha, other, 0, -1), cut(alpha, other, 1, None)
        total = total + pad(w * after, other, 0, 1) + pad(w * before, other, 1, 0)
        weight = weight + pad(w, other, 0, 1) + pad(w, other, 1, 0)
    safe = jnp.where(weight > 0, weight, 1)
    return jnp.where(weight > 0, total / safe, alpha), 0.5 - along / safe


def _shift_logit(alpha, by):
    odds = alpha * jnp.exp(by)
    return odds / (1 - alpha + odds)


def _restrict(w, alpha, axis):
    """Sums over pairs, each cell's share `alpha` going to the next pair."""
    even, odd = _halves(w * alpha, axis)
    last = even.shape[axis] - 1
    received = pad(cut(even, axis, 1, None), axis, 0, 1) + pad(cut(odd, axis, 0, last), axis, 1, 0)
    return sum(_halves(w, axis)) - even - odd + received


def _without_lone_cells(operator):
    """A cell without open faces is solved by one relaxation: its sink is not for others."""
    sink = jnp.where(operator.active(), operator.sink, 0)
    return _replace(operator, operator.faces, sink)


def pad_even(operator, axis):
    """Padded by one closed cell along an axis of odd length."""
    if operator.shape[axis] % 2 == 0:
        return operator
    # The Dirichlet face would end up between the last cell and the padding.
    last = cut(operator.faces[axis], axis, -1, None)
    sink = operator.sink + pad(last, axis, operator.shape[axis] - 1, 0)
    faces = list(operator.faces)
    faces[axis] = pad(cut(faces[axis], axis, 0, -1), axis, 0, 1)
    return _replace(operator, [pad(w, axis, 0, 1) for w in faces], pad(sink, axis, 0, 1))


def _replace(operator, faces, sink) -> Diffusion:
    """What follows from checked weights needs no second check."""
    return eqx.tree_at(lambda d: (d.faces, d.sink), operator, (tuple(faces), sink))


def _or(x, default):
    return jnp.where(x > 0, x, _tree.cast(default, x))


def _over(numerator, x):
    """`numerator / x`, and a very large number where `x` is zero."""
    least = float(jnp.finfo(x.dtype).tiny) ** 0.5
    return _tree.cast(numerator, x) / jnp.maximum(x, _tree.cast(least, x))


def _halves(x, axis):
    """The even and the odd entries."""
    return [lax.slice_in_dim(x, p, x.shape[axis], 2, axis) for p in (0, 1)]


def _weave(even, odd, axis):
    """The inverse of `_halves`."""
    pairs = jnp.stack([even, odd], axis=axis + 1)
    return pairs.reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])


def cut(x, axis, start, stop):
    return x[(slice(None),) * axis + (slice(start, stop),)]


def pad(x, axis, before, after):
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])
