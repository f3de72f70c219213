"""jinv's learned priors against total variation: methods tuned, then judged on held-out images.

Setting up tunes the one knob (for `stopped` two) by the mean PSNR of the tuning images; a window
reconstructs all held-out ones, one after the other in one program.
"""

import copy
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jinv

from . import _lpn_imaging_problems as imaging
from ._contender import AbstractContender, NotAvailable
from ._problems import psnr


VERSIONS = ("jinv", "jax", "jaxlib")
STEP = 0.98
"""The step size of the solver and that of the prior, for data terms scaled to norm one."""
RTOL = 1e-5
TRAINED = 0.05
"""The noise of the denoiser inside half-quadratic splitting."""
_EXTENT = 12


def device():
    found = jax.devices()[0]
    return found.platform, found.device_kind


class _Task:
    """Measurements of the images of one `part` ("truth" or "tuning"), scaled to norm one."""

    def __init__(self, problem, part):
        self.params, images = problem.params, problem.data[part]
        self.model = imaging.operator(self.params, images.shape[1], images.dtype)
        scales = self.params["task"] == "tomography"
        self.scale = float(jinv.operators.operator_norm(self.model)) if scales else 1.0
        self.noise = self.params["noise"] / self.scale
        names = (part, f"noise_{part}", f"mask_{part}")
        truth, noise, self.mask = (jnp.asarray(problem.data[name]) for name in names)
        measure = lambda x: self.model.mv(x) / self.scale
        clean = jax.jit(lambda x: jax.lax.map(measure, x))(truth)
        self.truth, self.data = truth, self.mask * (clean + noise / self.scale)

    def fit(self, y, mask):
        task = self.params["task"]
        if task in ("denoising", "inpainting"):
            return jinv.data_terms.least_squares(jinv.operators.Mask(mask), y)
        model = jinv.operators.Mask(mask) @ self.model if task == "sensing" else self.model
        return jinv.data_terms.least_squares(model / self.scale, y)

    def start(self, y, mask):
        """Filtered back-projection for tomography, otherwise the adjoint."""
        if isinstance(self.model, jinv.operators.ParallelBeam):
            fbp = jinv.operators.filtered_back_projection
            return fbp(self.model, y * self.scale, window="hann")
        return self.fit(y, mask).normal_rhs()

    def arrays(self):
        """The model's arrays, data and masks: as constants they would be folded, for long."""
        return eqx.filter(self.model, eqx.is_array), self.data, self.mask

    def reconstructions(self, method, arrays, knob):
        """What `method(task, y, mask, knob)` finds, one image after the other."""
        parts, data, mask = arrays
        task = copy.copy(self)
        task.model = eqx.combine(parts, eqx.filter(self.model, eqx.is_array, inverse=True))
        return jax.lax.map(lambda pair: method(task, *pair, knob), (data, mask))


def _variation(task, y, mask, knob, params):
    """Isotropic total variation; `knob` is the weight over the variance of the noise."""
    fit = task.fit(y, mask)
    terms = {"proximable": fit} if fit.has_fast_prox() else {"smooth": fit}
    start = task.start(y, mask)
    differences = jinv.operators.FiniteDifference(start.shape, dtype=start.dtype)
    penalty = jinv.prox.GroupL2(knob * task.noise**2)
    problem = jinv.Composite(**terms, penalty=penalty, operator=differences)
    solver = jinv.splitting.PDHG(rtol=1e-4)
    sol = jinv.solve(problem, solver, start, max_steps=params.get("max_steps", 3000), throw=False)
    return sol.value, _how(sol, sol.stats["residual"])


def _learned(task, y, mask, knob, params):
    """Plug-and-play until it converges; `knob` is the noise told to the prior over the actual."""
    fit, prior = task.fit(y, mask), _prior(params, knob * task.noise)
    solver = jinv.splitting.ProximalGradient(rtol=RTOL, step_size=STEP)
    if params.get("solver") == "admm":
        solver = jinv.splitting.ADMM(rtol=RTOL)
    most = params.get("max_steps", 1000)
    start = task.start(y, mask)
    sol = jinv.solve(jinv.Composite(fit, prior), solver, start, max_steps=most, throw=False)
    return sol.value, _how(sol, _fixed_point_residual(fit, prior, sol.value))


def _split(task, y, mask, knob, params):
    """Half-quadratic splitting: few steps, each a linear system, certified whatever the norm is.

    The prior is at its own noise at `knob` 1; the knob is the noise of the data over that, by the
    penalty. What is returned is the copy, which the prior has made.
    """
    penalty = (knob * task.noise / TRAINED) ** 2
    fit = task.fit(y, mask)
    prior = jinv.pretrained.lpn(noise=TRAINED, step_size=1 / penalty, objective=False)
    solver, start = jinv.splitting.HQS(rtol=1e-3), task.start(y, mask)
    most = params.get("max_steps", 100)
    sol = jinv.solve(jinv.Composite(fit, prior), solver, start, max_steps=most, throw=False)
    return prior.prox(sol.value, 1 / penalty), _how(sol, sol.stats["residual"])


def _stopped(task, y, mask, knob, params):
    """Plug-and-play after each of the numbers of steps."""
    fit, prior = task.fit(y, mask), _prior(params, knob * task.noise)
    x, done, found = task.start(y, mask), 0, []
    for stop in params["stops"]:
        x = jax.lax.fori_loop(0, stop - done, lambda _, x: _advance(fit, prior, x), x)
        done = stop
        steps, none = jnp.asarray(stop, x.dtype), jnp.asarray(jnp.nan, x.dtype)
        found.append((x, (steps, none, none, _fixed_point_residual(fit, prior, x))))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _back_projected(task, y, mask, knob, params):
    x = task.start(y, mask)
    none = jnp.asarray(jnp.nan, x.dtype)
    return x, (jnp.zeros((), x.dtype), none, none, none)


def _advance(fit, prior, x):
    """One step of proximal gradient descent."""
    return prior.prox(x - STEP * jax.grad(fit)(x), STEP)


def _fixed_point_residual(fit, prior, x):
    """Of proximal gradient descent, over the norm; whatever solver found `x`."""
    return jnp.linalg.norm(_advance(fit, prior, x) - x) / jnp.linalg.norm(x)


def _how(sol, residual):
    """Steps, whether certified (`nan` where that is no question), whether converged, residual."""
    number = lambda value: jnp.asarray(value, residual.dtype)
    certified = number(sol.stats.get("certified", jnp.nan))
    converged = number(sol.result == jinv.RESULTS.successful)
    return number(sol.stats["num_steps"]), certified, converged, residual


def _prior(params, noise):
    if params["prior"] != "lpn":
        return jinv.pretrained.denoiser(params["prior"], noise=noise)
    return jinv.pretrained.lpn(noise=noise, step_size=STEP, objective=False)


def tune(score, first, ratio):
    """The best of a geometric sequence of knobs, by going uphill from the first one.

    `score(knob)` is an array; its largest entry counts. Returns the knob and all scores.
    """
    scores, place = {0: score(first)}, 0
    for _ in range(_EXTENT):
        for other in (place - 1, place + 1):
            if other not in scores:
                scores[other] = score(first * ratio**other)
        best = max(scores, key=lambda k: _largest(scores[k]))
        if best == place:
            break
        place = best
    return first * ratio**place, {first * ratio**k: scores[k] for k in sorted(scores)}


def _largest(scores):
    return float(np.max(np.where(np.isfinite(scores), scores, -np.inf)))


class _Reconstruct(AbstractContender):
    """One method on one task."""

    def __init__(self, problem, params, method):
        _available(params)
        self._task, self._problem, self.knob, self.tried = _Task(problem, "truth"), problem, 1.0, {}
        self.n_weights, self._stop = _count(params), None
        self._method = lambda *inputs: method(*inputs, params)
        if "first" in params:
            self._tune(_Task(problem, "tuning"), params)
        # A whole picture is timed as its user meets it, with compilation.
        self._afresh = problem.name == "imaging_large"
        self.compiles = not self._afresh
        self._fn = self._program()

    def _tune(self, task, params):
        @jax.jit
        def score(arrays, knob):
            found, _ = task.reconstructions(self._method, arrays, knob)
            truth = task.truth if found.ndim == 3 else task.truth[:, None]
            errors = jnp.mean((found - truth) ** 2, (-2, -1))
            return jnp.mean(-10 * jnp.log10(errors), 0)

        ask = lambda knob: np.asarray(score(task.arrays(), jnp.asarray(knob, task.truth.dtype)))
        self.knob, self.tried = tune(ask, params["first"], params["ratio"])
        if "stops" in params:
            self._stop = int(np.nanargmax(self.tried[self.knob]))
            kept = {**params, "stops": params["stops"][: self._stop + 1]}
            last = lambda found: jax.tree.map(lambda leaf: leaf[-1], found)
            self._method = lambda task, y, mask, knob: last(_stopped(task, y, mask, knob, kept))

    def _program(self):
        # A new function each time, so that nothing is found compiled.
        task, method = self._task, self._method
        return jax.jit(lambda arrays, knob: task.reconstructions(method, arrays, knob))

    def compile(self):
        if not self._afresh:
            self._fn = self._program().lower(*self._inputs()).compile()

    def _inputs(self):
        return self._task.arrays(), jnp.asarray(self.knob, self._task.truth.dtype)

    def restart(self):
        pass

    def run(self, num_steps):
        del num_steps
        fn = self._program() if self._afresh else self._fn
        self._found = jax.block_until_ready(fn(*self._inputs()))

    def metrics(self, problem):
        found, (steps, certified, converged, residual) = self._found
        quality = [psnr(x, truth) for x, truth in zip(found, problem.data["truth"], strict=True)]
        similar = jax.jit(jax.vmap(jinv.metrics.ssim))(found, self._task.truth)
        return {
            "images": len(quality),
            "psnr": np.mean(quality),
            "psnr_sd": np.std(quality),
            "psnr_min": np.min(quality),
            "ssim": np.mean(similar),
            "certified": np.mean(certified),
            "converged": np.mean(converged),
            "fixed_point_residual": np.max(residual),
            "steps": np.mean(steps),
            "knob": self.knob if self.tried else math.nan,
            "knobs_tried": len(self.tried),
        }

    def history(self, problem):
        """The PSNR on the tuning images for each knob that was tried."""
        return {
            "knob": list(self.tried),
            "tuning_psnr": [_largest(scores) for scores in self.tried.values()],
        }


class _Rises(AbstractContender):
    r"""Whether $R$ rises with noise and with blur, on the middles of the crops."""

    levels = (0.0, 0.02, 0.05, 0.1)
    widths = (0.0, 0.5, 1.0, 2.0)

    def __init__(self, problem, params):
        del params
        truth = jnp.asarray(problem.data["truth"])
        edge = truth.shape[1] // 4
        middle = lambda x: x[..., edge:-edge, edge:-edge]
        noise = jax.random.normal(jax.random.key(imaging.KEY), truth.shape, truth.dtype)
        noisy = [middle(truth + level * noise) for level in self.levels]
        blurred = [middle(_blurred(truth, width)) for width in self.widths]
        # The residual changes R to second order only.
        prior = jinv.pretrained.lpn(rtol=1e-3, max_steps=50)
        self.n_weights = _count({"prior": "lpn"})
        self._images = jnp.stack([*noisy, *blurred])

        def values(images):
            def one(x):
                value, result = prior.prior(x)
                outside = result == jinv.RESULTS.out_of_range
                return value, outside, ~outside & (result != jinv.RESULTS.successful)

            flat = images.reshape(-1, *images.shape[2:])
            found = jax.lax.map(one, flat)
            return jax.tree.map(lambda leaf: leaf.reshape(images.shape[:2]), found)

        self._program = self._fn = jax.jit(values)

    def compile(self):
        self._fn = self._program.lower(self._images).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        del num_steps
        self._found = jax.block_until_ready(self._fn(self._images))

    def metrics(self, problem):
        value, outside, failed = (np.asarray(leaf) for leaf in self._found)
        # What is proven to be out of range has the value infinity; nan never rises.
        value = np.where(outside, np.inf, value)
        noise, blur = value[: len(self.levels)], value[len(self.levels) :]
        found = {"images": value.shape[1], "out_of_range": outside.mean(), "failed": failed.mean()}
        found |= {"clean_out_of_range": outside[0].mean()}
        for name, values in (("noise", noise), ("blur", blur)):
            with np.errstate(invalid="ignore"):
                rises = values[1:] > values[:-1]
                found[f"falls_with_{name}"] = (values[1:] < values[:-1]).all(0).mean()
            found[f"rises_with_{name}"] = rises.all(0).mean()
        return found


def _blurred(images, width):
    if width == 0:
        return images
    kernel = jinv.operators.gaussian_kernel(width, 2 * math.ceil(3 * width) + 1)
    kernel = kernel.astype(images.dtype)
    model = jinv.operators.Convolution(kernel, images.shape[1:], boundary="zero")
    return jax.vmap(model.mv)(images)


def _available(params):
    if "prior" not in params:
        return
    try:
        _prior(params, 0.1)
    except (FileNotFoundError, ValueError) as error:
        raise NotAvailable(f"no such weights: {error}") from error


def _count(params):
    if "prior" not in params:
        return 0
    leaves = jax.tree.leaves(eqx.filter(_prior(params, None), eqx.is_inexact_array))
    # The step size and the like are no weights.
    return sum(leaf.size for leaf in leaves if leaf.ndim)


METHODS = {
    "tv": lambda problem, params: _Reconstruct(problem, params, _variation),
    "learned": lambda problem, params: _Reconstruct(problem, params, _learned),
    "split": lambda problem, params: _Reconstruct(problem, params, _split),
    "stopped": lambda problem, params: _Reconstruct(problem, params, _stopped),
    "fbp": lambda problem, params: _Reconstruct(problem, params, _back_projected),
    "prior": _Rises,
}
