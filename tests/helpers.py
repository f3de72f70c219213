"""Registries of problems, solvers and adjoints; small problems with dense references."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx

import jinv
from jinv import prox, splitting
from jinv._tree import norm, subtract
from jinv.data_terms import least_absolute, least_squares


# Tight enough that the distance to the solution is below 1e-8 for every problem here.
TIGHT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}

# Every final class of jinv must be here (test_structure.py): a new one is one line.
SOLVERS = {
    "ProximalGradient": splitting.ProximalGradient(**TIGHT),
    "FISTA": splitting.FISTA(**TIGHT),
    "PDHG": splitting.PDHG(**TIGHT),
    "ADMM": splitting.ADMM(**TIGHT),
    "DouglasRachford": splitting.DouglasRachford(**TIGHT),
    "HQS": splitting.HQS(**TIGHT, penalty=2.0, growth=1.0, final_penalty=2.0),
}
ADJOINTS = {
    "ImplicitAdjoint": jinv.ImplicitAdjoint(),
    "UnrollAdjoint": jinv.UnrollAdjoint(),
    "OneStepAdjoint": jinv.OneStepAdjoint(),
    "NeumannAdjoint": jinv.NeumannAdjoint(terms=400),
}
PROBLEMS = {
    "FixedPoint": jinv.FixedPoint,
    "RootFind": jinv.RootFind,
    "Minimise": jinv.Minimise,
    "Composite": jinv.Composite,
}


class Case(NamedTuple):
    """A problem made from differentiable parameters, and the solver that is to solve it."""

    build: Callable[[Any], Any]
    theta: Any
    y0: Any
    solver: Any
    max_steps: int = 5000
    args: Callable[[Any], Any] = lambda theta: None

    def solve(self, theta, adjoint=None, *, y0=None, solver=None, **options):
        options = {"max_steps": self.max_steps, "throw": False, **options}
        return jinv.solve(
            self.build(theta),
            self.solver if solver is None else solver,
            self.y0 if y0 is None else y0,
            self.args(theta),
            adjoint=adjoint,
            **options,
        )


def array(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def matrix(entries) -> lx.MatrixLinearOperator:
    return lx.MatrixLinearOperator(entries)


# Regression: 8 equations, 5 unknowns.
REGRESSION = {
    "matrix": jnp.asarray(array(0, 8, 5)),
    "data": jnp.asarray(array(1, 8)) * 2,
    "weight": jnp.asarray(1.3),
}
GROUPED = {**REGRESSION, "matrix": jnp.asarray(array(2, 8, 6))}
SIGNAL = {"data": jnp.asarray(np.r_[np.zeros(3), 2.0 * np.ones(4)] + 0.3 * array(3, 7))}
SIGNAL["weight"] = jnp.asarray(0.4)
IMAGE = {"data": jnp.asarray(array(4, 3, 4)), "weight": jnp.asarray(0.5)}
COUNTS = {
    "matrix": jnp.asarray(np.abs(array(5, 6, 3))),
    "data": jnp.asarray([3.0, 1.0, 0.0, 4.0, 2.0, 6.0]),
}


def fit(theta):
    return least_squares(matrix(theta["matrix"]), theta["data"])


REGULARISERS = {
    "lasso": lambda theta: prox.L1(theta["weight"]),
    "nnls": lambda theta: prox.NonNegative(),
    "elastic_net": lambda theta: prox.ElasticNet(theta["weight"], 0.7),
    "group_lasso": lambda theta: Grouped(prox.GroupL2(theta["weight"], axis=1)),
}


class Grouped(jinv.AbstractFunctional):
    """A functional of the vector as an array of groups of two."""

    functional: jinv.AbstractFunctional

    def __call__(self, x):
        return self.functional(x.reshape(-1, 2))

    def prox(self, v, step_size):
        return self.functional.prox(v.reshape(-1, 2), step_size).reshape(v.shape)


# How the sum of a data term and a regulariser on the image itself is put to each solver.
FORMS = {
    "ProximalGradient": lambda f, g: jinv.Composite(f, g),
    "FISTA": lambda f, g: jinv.Composite(f, g),
    "PDHG": lambda f, g: jinv.Composite(proximable=f, penalty=g),
    "PDHG-gradient": lambda f, g: jinv.Composite(f, penalty=g),
    "ADMM": lambda f, g: jinv.Composite(f, g),
    "ADMM-penalty": lambda f, g: jinv.Composite(f, penalty=g),
    "DouglasRachford": lambda f, g: jinv.Composite(proximable=f, penalty=g),
}


def _regression(regulariser: str, form: str) -> Case:
    theta = GROUPED if regulariser == "group_lasso" else REGRESSION
    build = lambda theta: FORMS[form](fit(theta), REGULARISERS[regulariser](theta))
    return Case(build, theta, jnp.zeros(theta["matrix"].shape[1]), SOLVERS[form.split("-")[0]])


def differences(theta):
    return jinv.operators.FiniteDifference(theta["data"].shape)


def _tv(penalty: Callable, theta: dict, form: str) -> Case:
    data = lambda theta: least_squares(None, theta["data"])
    builds = {
        "PDHG": lambda t: jinv.Composite(
            proximable=data(t), penalty=penalty(t), operator=differences(t)
        ),
        "ADMM": lambda t: jinv.Composite(data(t), penalty=penalty(t), operator=differences(t)),
    }
    builds["PDHG-gradient"] = builds["ADMM"]
    return Case(builds[form], theta, jnp.zeros_like(theta["data"]), SOLVERS[form.split("-")[0]])


def _l1_tv(solver: str) -> Case:
    def build(theta):
        eye = lx.IdentityLinearOperator(jax.ShapeDtypeStruct((7,), jnp.float64))
        loss = least_absolute(None, theta["data"]).loss
        return jinv.Composite(
            penalty=prox.Separable((loss, prox.L1(theta["weight"]))),
            operator=jinv.operators.Stack((eye, differences(theta))),
        )

    return Case(build, SIGNAL, jnp.zeros(7), SOLVERS[solver], max_steps=40_000)


def _poisson(solver: str) -> Case:
    def build(theta):
        term = jinv.data_terms.poisson(matrix(theta["matrix"]), theta["data"], 0.1)
        return jinv.Composite(
            proximable=prox.NonNegative(), penalty=term.loss, operator=term.operator
        )

    return Case(build, COUNTS, jnp.ones(3), SOLVERS[solver], max_steps=40_000)


CASES: dict[str, Case] = {
    **{f"{g}-{form}": _regression(g, form) for g in REGULARISERS for form in FORMS},
    **{
        f"tv1-{form}": _tv(lambda t: prox.L1(t["weight"]), SIGNAL, form)
        for form in ("PDHG", "PDHG-gradient", "ADMM")
    },
    **{
        f"tv2-{form}": _tv(lambda t: prox.GroupL2(t["weight"], axis=0), IMAGE, form)
        for form in ("PDHG", "PDHG-gradient", "ADMM")
    },
    **{f"l1_tv-{solver}": _l1_tv(solver) for solver in ("PDHG", "ADMM")},
    **{f"poisson-{solver}": _poisson(solver) for solver in ("PDHG", "ADMM")},
    "lasso-HQS": Case(
        lambda t: jinv.Composite(fit(t), penalty=prox.L1(t["weight"])),
        REGRESSION,
        jnp.zeros(5),
        SOLVERS["HQS"],
    ),
}


class Picard(jinv.AbstractSolver):
    """Damped Picard iteration for a fixed point, with one array of its own."""

    rtol: Any = 1e-13
    atol: Any = 1e-13
    damping: Any = 1.0
    check_every: int = eqx.field(static=True, default=1)

    def init(self, problem, point, args, options):
        return jnp.asarray(jnp.inf, point.dtype)

    def step(self, problem, point, args, options, state):
        residual = problem.optimality(point, args)
        new = point - jnp.asarray(self.damping, point.dtype) * residual
        return new, norm(subtract(new, point))

    def terminate(self, problem, point, args, options, state) -> tuple[Any, Any]:
        return state <= jnp.asarray(self.atol, state.dtype), jinv.RESULTS.successful

    def postprocess(self, problem, point, args, options, state):
        return point, {"residual": state}


class NewtonRoot(jinv.AbstractSolver):
    """Newton's method with a dense Jacobian: superlinear, so one step differentiates exactly."""

    rtol: Any = 1e-13
    atol: Any = 1e-13
    check_every: int = eqx.field(static=True, default=1)

    def init(self, problem, point, args, options):
        return jnp.asarray(jnp.inf, point.dtype)

    def step(self, problem, point, args, options, state):
        jacobian = jax.jacfwd(problem.optimality)(point, args)
        return point - jnp.linalg.solve(jacobian, problem.optimality(point, args)), state

    def measured_step(self, problem, point, args, options, state):
        new, _ = self.step(problem, point, args, options, state)
        return new, norm(subtract(new, point))

    def terminate(self, problem, point, args, options, state) -> tuple[Any, Any]:
        return state <= jnp.asarray(self.atol, state.dtype), jinv.RESULTS.successful

    def postprocess(self, problem, point, args, options, state):
        return point, {"residual": state}


SMOOTH = {
    "matrix": jnp.asarray(0.25 * array(6, 3, 3)),
    "data": jnp.asarray(array(7, 3)),
    "weight": jnp.asarray(0.8),
}


def contraction(y, theta):
    return jnp.tanh(theta["matrix"] @ y + theta["data"]) * theta["weight"]


def root(y, theta):
    return y + 0.2 * y**3 - contraction(y, theta)


def strongly_convex(y, theta):
    residual = theta["matrix"] @ y - theta["data"]
    penalty = theta["weight"] * jnp.sum(jnp.sqrt(1 + y**2))
    return 0.5 * jnp.sum(residual**2) + penalty + 0.5 * jnp.sum(y**2)


_OPTX: dict[str, Any] = {"rtol": 1e-13, "atol": 1e-13}
_SMOOTH = {
    "FixedPoint-Picard": (jinv.FixedPoint(contraction), Picard()),
    "FixedPoint-Newton": (jinv.FixedPoint(contraction), NewtonRoot()),
    "FixedPoint-optimistix": (jinv.FixedPoint(contraction), optx.FixedPointIteration(**_OPTX)),
    "RootFind-Newton": (jinv.RootFind(root), NewtonRoot()),
    "RootFind-optimistix": (jinv.RootFind(root), optx.Newton(**_OPTX)),
    "Minimise-Newton": (jinv.Minimise(strongly_convex), NewtonRoot()),
    "Minimise-optimistix": (
        jinv.Minimise(strongly_convex),
        optx.GradientDescent(0.4, rtol=1e-13, atol=1e-13),
    ),
}
# Here the parameters travel in `args`; in CASES the problem's functions close over them.
SMOOTH_CASES = {
    name: Case(lambda t, p=problem: p, SMOOTH, jnp.zeros(3), solver, args=lambda t: t)
    for name, (problem, solver) in _SMOOTH.items()
}
