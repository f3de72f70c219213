"""jinv's contenders, under the same protocol as everyone else's."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

import jinv
from jinv import data_terms, operators, prox, splitting

from ._contender import AbstractContender, adjoint_error, image_metrics
from ._hypergradient import Hypergradient
from ._problems import ct_objective, ct_sinogram, psnr


VERSIONS = ("jinv", "jax", "jaxlib", "equinox", "lineax", "optimistix")


def device():
    kind = jax.devices()[0]
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


class _Iterative(AbstractContender):
    """A solver stepped by hand, so that a run can go on where the last one ended.

    The steps are those that `jinv.solve` takes: `measured_step` (residuals, objective,
    adaptation) as the last of every `check_every`, `step` in between. The number of steps is an
    argument: one compilation.
    """

    def __init__(self, problem, solver, y0, judge=image_metrics):
        self._problem, self._judge = problem, judge
        self._init = eqx.filter_jit(ft.partial(_start, solver))
        self._y0 = y0
        self._advance: Any = eqx.filter_jit(ft.partial(_advance, solver))
        self.restart()

    def compile(self):
        self._compiled = self._advance.lower(self._problem, self._carry, jnp.asarray(1)).compile()

    def restart(self):
        self._carry = jax.block_until_ready(self._init(self._problem, self._y0))

    def run(self, num_steps):
        self._carry = jax.block_until_ready(
            self._compiled(self._problem, self._carry, jnp.asarray(num_steps))
        )

    def metrics(self, problem):
        return self._judge(problem, np.asarray(self._problem.primal(self._carry[0])))


def _start(solver, problem, y0):
    point = problem.initial_point(y0, None)
    return point, solver.init(problem, point, None, {}), jnp.zeros((), jnp.int32)


def _advance(solver, problem, carry, num_steps):
    point, state, count = carry
    dynamic, static = eqx.partition(state, eqx.is_array)
    end = count + num_steps.astype(jnp.int32)

    def move(method, carry):
        point, dynamic = carry
        point, state = method(problem, point, None, {}, eqx.combine(dynamic, static))
        return point, eqx.filter(state, eqx.is_array)

    plain = lambda _, carry: move(solver.step, carry)
    measured = lambda carry: move(solver.measured_step, carry)

    def block(carry):
        """Up to the next check, wherever the last call has stopped."""
        carry, count = carry
        few = jnp.minimum(solver.check_every - 1 - count % solver.check_every, end - count)
        carry = jax.lax.fori_loop(0, few, plain, carry)
        due = count + few < end
        return jax.lax.cond(due, measured, lambda c: c, carry), count + few + due.astype(jnp.int32)

    unfinished = lambda carry: carry[1] < end
    (point, dynamic), count = jax.lax.while_loop(unfinished, block, ((point, dynamic), count))
    return point, eqx.combine(dynamic, static), count


class _Solve(AbstractContender):
    """Whole calls of `jinv.solve` with a fixed number of steps: the loop engine included."""

    def __init__(self, problem, solver, y0, num_steps):
        self._num_steps = num_steps
        self._arguments = (problem, y0)
        self._solve: Any = eqx.filter_jit(
            lambda problem, y0: (
                jinv.solve(problem, solver, y0, max_steps=num_steps, throw=False).value
            )
        )

    def compile(self):
        self._compiled = self._solve.lower(*self._arguments).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        if num_steps != self._num_steps:
            raise ValueError(f"compiled for {self._num_steps} steps, asked for {num_steps}")
        self._value = jax.block_until_ready(self._compiled(*self._arguments))

    def metrics(self, problem):
        return image_metrics(
            problem, np.asarray(self._value)[-1] if self._value.ndim > 2 else self._value
        )


def _solver(kind, params):
    options = {k: v for k, v in params.items() if k not in ("kind", "num_steps", "batch")}
    return getattr(splitting, kind)(rtol=0.0, atol=0.0, **options)


def _total_variation(problem, kind):
    """The composite problem in the form that suits the solver, and its starting point."""
    y = jnp.asarray(problem.data["y"])
    boundary, lam = problem.params["boundary"], problem.params["lam"]
    blur = None
    if "psf" in problem.data:
        blur = operators.Convolution(jnp.asarray(problem.data["psf"]), y.shape, boundary="circular")
    misfit = data_terms.least_squares(blur, y)
    if kind in ("FISTA", "ProximalGradient"):
        return jinv.Composite(misfit, prox.TotalVariation(lam, boundary=boundary)), y
    differences = operators.FiniteDifference(y.shape, boundary=boundary, dtype=y.dtype)
    penalty = prox.GroupL2(lam, axis=0)
    terms = {"proximable" if kind == "PDHG" else "smooth": misfit}
    return jinv.Composite(**terms, penalty=penalty, operator=differences), y


def _stepped(kind):
    def setup(problem, params):
        composite, y = _total_variation(problem, kind)
        return _Iterative(composite, _solver(kind, params), y)

    return setup


def _whole(problem, params):
    composite, y = _total_variation(problem, params["kind"])
    return _Solve(composite, _solver(params["kind"], params), y, params["num_steps"])


def _batch(problem, params):
    """`batch` images in one `vmap`: every one with noise of its own."""
    composite, y = _total_variation(problem, params["kind"])
    noise = np.random.default_rng(1).standard_normal((params["batch"], *y.shape))
    batch = y + 0.01 * jnp.asarray(noise, y.dtype)
    solver, num_steps = _solver(params["kind"], params), params["num_steps"]
    name = "proximable" if params["kind"] == "PDHG" else "smooth"

    def solve(composite, batch):
        def one(y):
            where = lambda c: getattr(c, name).loss.shift
            mine = eqx.tree_at(where, composite, y)
            return jinv.solve(mine, solver, y, max_steps=num_steps, throw=False).value

        return jax.vmap(one)(batch)

    contender = _Solve(composite, solver, batch, num_steps)
    contender._solve = eqx.filter_jit(solve)
    return contender


class _Weights(AbstractContender):
    """One image with many weights: one compiled call of a `vmap`, or one call for each weight."""

    def __init__(self, problem, params):
        composite, y = _total_variation(problem, params["kind"])
        solver = _solver(params["kind"], {})
        self._num_steps, self._vmapped = params["num_steps"], params["vmapped"]
        weights = problem.params["lam"] * np.geomspace(0.1, 10, params["count"])
        self._weights = jnp.asarray(weights, y.dtype)
        self._arguments = (composite, y)

        def solve(weight, composite, y):
            mine = eqx.tree_at(lambda c: c.penalty.weight, composite, weight)
            return jinv.solve(mine, solver, y, max_steps=params["num_steps"], throw=False).value

        if self._vmapped:
            solve = jax.vmap(solve, (0, None, None))
        self._solve: Any = eqx.filter_jit(solve)

    def compile(self):
        weights = self._weights if self._vmapped else self._weights[0]
        self._compiled = self._solve.lower(weights, *self._arguments).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        if num_steps != self._num_steps:
            raise ValueError(f"compiled for {self._num_steps} steps, asked for {num_steps}")
        calls = [self._weights] if self._vmapped else list(self._weights)
        self._found = [self._compiled(w, *self._arguments) for w in calls]
        jax.block_until_ready(self._found)

    def metrics(self, problem):
        return {}


def _projector(problem):
    angles = jnp.linspace(0, jnp.pi, problem.params["num_angles"], endpoint=False)
    shape = (problem.size, problem.size)
    raw = operators.ParallelBeam(shape, angles, dtype=jnp.float32)
    return raw / operators.operator_norm(raw, rtol=1e-6)


class _Projection(AbstractContender):
    """Calls of one operator, for its cost."""

    def __init__(self, problem, params):
        operator = _projector(problem)
        image = jnp.asarray(problem.data["truth"])
        sinogram = operator.mv(image)
        argument, transposed = {"forward": (image, False), "adjoint": (sinogram, True)}[
            params["direction"]
        ]
        call = lambda operator, x: (operator.T if transposed else operator).mv(x)
        self._call: Any = eqx.filter_jit(call)
        self._arguments = (operator, argument)
        rng = np.random.default_rng(1)
        u = jnp.asarray(rng.standard_normal(image.shape), image.dtype)
        v = jnp.asarray(rng.standard_normal(sinogram.shape), image.dtype)
        self._error = adjoint_error(u, v, operator.mv(u), operator.T.mv(v))

    def compile(self):
        self._compiled = self._call.lower(*self._arguments).compile()

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            jax.block_until_ready(self._compiled(*self._arguments))

    def metrics(self, problem):
        return {"adjoint_error": self._error}


def _ct(kind):
    def setup(problem, params):
        forward = _projector(problem)
        image = jnp.asarray(problem.data["truth"])
        sinogram = jnp.asarray(ct_sinogram(problem, np.asarray(forward.mv(image))))
        differences = operators.FiniteDifference(image.shape, dtype=image.dtype)
        lam = problem.params["lam"]
        misfit = data_terms.least_squares(forward, sinogram)
        if kind == "PDHG":
            composite = jinv.Composite(
                penalty=prox.Separable((misfit.loss, prox.GroupL2(lam, axis=0))),
                operator=operators.Stack((forward, differences)),
            )
        elif kind == "FISTA":
            composite = jinv.Composite(misfit, prox.TotalVariation(lam))
        else:
            composite = jinv.Composite(
                misfit, penalty=prox.GroupL2(lam, axis=0), operator=differences
            )

        def judge(problem, x):
            projected = np.asarray(forward.mv(jnp.asarray(x)))
            return {
                "objective": ct_objective(problem, x, projected, sinogram),
                "psnr": psnr(x, problem.data["truth"]),
            }

        return _Iterative(composite, _solver(kind, params), jnp.zeros_like(image), judge)

    return setup


_ADJOINTS = {
    "implicit": jinv.ImplicitAdjoint(),
    "implicit, GMRES": jinv.ImplicitAdjoint(lx.GMRES(rtol=1e-6, atol=1e-6, restart=60)),
    "unrolled": jinv.UnrollAdjoint(),
    "one step": jinv.OneStepAdjoint(),
}


def _lasso(problem, params):
    """The lasso by FISTA; `adjoint` names the rule."""
    train_x = np.asarray(problem.data["train_x"], np.float64)
    lipschitz = float(np.linalg.norm(train_x, 2) ** 2 / len(train_x))
    start = np.zeros(problem.size, problem.data["train_x"].dtype)
    solver = splitting.FISTA(rtol=params["tol"], atol=0.0, step_size=1 / lipschitz)

    def misfit(w, data):
        residual = data["train_x"] @ w - data["train_y"]
        return 0.5 * jnp.mean(residual**2)

    def solve(theta, data):
        composite = jinv.Composite(misfit, prox.L1(jnp.exp(theta)))
        return _solution(composite, solver, jnp.asarray(start), params, data)

    return Hypergradient(problem, solve)


def _tv_weight(problem, params):
    """TV denoising by the solver that `kind` names."""
    shape = problem.data["y"].shape
    solver = getattr(splitting, params["kind"])(rtol=params["tol"], atol=0.0)

    def solve(theta, data):
        misfit = data_terms.least_squares(None, data["y"])
        term = {"proximable" if params["kind"] == "PDHG" else "smooth": misfit}
        differences = operators.FiniteDifference(shape, dtype=data["y"].dtype)
        penalty = prox.GroupL2(jnp.exp(theta), axis=0)
        composite = jinv.Composite(**term, penalty=penalty, operator=differences)
        return _solution(composite, solver, data["y"], params, None)

    return Hypergradient(problem, solve)


def _solution(composite, solver, start, params, args):
    options = {"max_steps": params["max_steps"], "throw": False}
    adjoint = _ADJOINTS[params["adjoint"]]
    return jinv.solve(composite, solver, start, args, adjoint=adjoint, **options).value


METHODS = {
    "PDHG": _stepped("PDHG"),
    "ADMM": _stepped("ADMM"),
    "FISTA": _stepped("FISTA"),
    "PGD": _stepped("ProximalGradient"),
    "solve": _whole,
    "batch": _batch,
    "weights": _Weights,
    "projection": _Projection,
    "CT PDHG": _ct("PDHG"),
    "CT ADMM": _ct("ADMM"),
    "CT FISTA": _ct("FISTA"),
    "lasso": _lasso,
    "tv_weight": _tv_weight,
}
