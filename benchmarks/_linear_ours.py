"""jinv's linear solvers, under the same protocol as everyone else's."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from jinv import linear

from ._contender import NotAvailable
from ._linear_contender import MAX_STEPS, TOLERANCE, LinearContender, history_of
from ._linear_problems import faces_of
from ._work_jax import entries, matvec_equivalents


# Arrays keep their dtype: float32 problems are solved in float32 but where a solver says more.
jax.config.update("jax_enable_x64", True)
VERSIONS = ("jinv", "jax", "jaxlib", "equinox", "lineax", "optimistix")


def device():
    kind = jax.devices()[0]
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


def _of(name: str, package: Any = linear) -> Any:
    """What this version of jinv may or may not have."""
    found = getattr(package, name, None)
    if found is None:
        raise NotAvailable(f"{package.__name__} has no {name}")
    return found


def _pcg(preconditioner=None):
    options = {"preconditioner": preconditioner, "max_steps": MAX_STEPS}
    return _of("PCG")(TOLERANCE, 0.0, **options)


def _inner():
    return _of("PCG")(1e-3, 0.0, preconditioner=_multigrid(), max_steps=MAX_STEPS)


def _multigrid(**options):
    return _of("Multigrid")(**options)


def _trained(operator, **options):
    """The multigrid with the shipped weights for as many axes."""
    return _shipped("multigrid", operator)(len(operator.shape), **options)


def _dcdm(operator):
    """The published network with the shipped weights for as many axes. A step costs as much as
    hundreds of others': a few hundred of them are enough to see that it does not converge."""
    ndim = len(operator.shape)
    return _shipped("dcdm", operator)(ndim, TOLERANCE, 0.0, max_steps=300)


def _shipped(kind: str, operator) -> Any:
    try:
        pretrained = importlib.import_module("jinv.pretrained")
    except ModuleNotFoundError:
        raise NotAvailable("there is no jinv.pretrained") from None
    if f"{kind}_{len(operator.shape)}d" not in pretrained.names():
        raise NotAvailable(f"jinv.pretrained has no {kind} for {len(operator.shape)}-D")
    return _of(kind, pretrained)


def _algebraic(operator, **options):
    return _pcg(_of("AlgebraicMultigrid")(operator, **options))


def _pyamg(operator):
    algebraic = _of("AlgebraicMultigrid")
    setup = importlib.import_module("pyamg").ruge_stuben_solver
    return _pcg(algebraic(operator, setup=setup))


def _strengths(operator):
    """The relative size of the couplings along each axis."""
    return tuple(float(w.max()) for w in operator.faces)


# By name, so that what a version lacks is recorded and not a failure of the whole module.
SOLVERS: dict[str, Callable[[linear.Diffusion], Any]] = {
    "PCG": lambda A: _pcg(),
    "Jacobi": lambda A: _pcg(_of("Jacobi")()),
    "Chebyshev": lambda A: _pcg(_of("Chebyshev")()),
    "Multigrid": lambda A: _pcg(_multigrid()),
    "Multigrid V": lambda A: _pcg(_multigrid(cycle="V")),
    "Multigrid float32": lambda A: _pcg(_multigrid(dtype=jnp.float32)),
    "Multigrid anisotropy": lambda A: _pcg(_multigrid(anisotropy=_strengths(A))),
    "Multigrid trained": lambda A: _pcg(_trained(A)),
    "Multigrid trained float32": lambda A: _pcg(_trained(A, dtype=jnp.float32)),
    "Refinement": lambda A: _of("Refinement")(_inner(), TOLERANCE, 0.0),
    "AlgebraicMultigrid": _algebraic,
    "AlgebraicMultigrid of pyamg": _pyamg,
    "DCDM": _dcdm,
    "DCDM Multigrid": lambda A: _of("DCDM")(TOLERANCE, 0.0, _multigrid(), max_steps=MAX_STEPS),
}
"""From the operator to a `lineax.AbstractLinearSolver`."""
ON_HOST = ("AlgebraicMultigrid", "AlgebraicMultigrid of pyamg")
"""Those that look at the operator itself: their making is part of the set-up, and not compiled."""


class _Solver(LinearContender):
    """A solver of `jinv.linear` in one program (set-up and solve), and in one for each part."""

    def __init__(self, problem, params):
        self.name = params["solver"]
        # Refinement computes residuals in float64 whatever the problem's own dtype is.
        dtype = jnp.float64 if self.name == "Refinement" else problem.data["rhs"].dtype
        as_array = lambda x: jnp.asarray(x, dtype)
        self.arrays = [as_array(w) for w in faces_of(problem)], as_array(problem.data["sink"])
        self.rhs = as_array(problem.data["rhs"])
        self.solver = SOLVERS[self.name](_operator(self.arrays))
        if self.name == "DCDM" or "trained" in self.name:
            weights = eqx.filter(self.solver, eqx.is_inexact_array)
            self.n_weights = sum(leaf.size for leaf in jax.tree.leaves(weights))
        self._set_up: Any = eqx.filter_jit(_set_up)
        self._solve: Any = eqx.filter_jit(_solve)
        self.compiled: Any = None

    def compile(self):
        if self.name in ON_HOST:
            self._set_up = self._set_up.lower(self.solver, self.arrays).compile()
            state = self._set_up(self.solver, self.arrays)
            self._solve = self._solve.lower(self.solver, state, self.arrays, self.rhs).compile()
        else:
            whole: Any = eqx.filter_jit(_whole)
            self.compiled = whole.lower(self.solver, self.arrays, self.rhs).compile()

    def whole(self):
        if self.compiled is None:
            super().whole()
        else:
            found = self.compiled(self.solver, self.arrays, self.rhs)
            self.value, self.stats = jax.block_until_ready(found)

    def set_up(self):
        if self.name in ON_HOST:
            self.solver = SOLVERS[self.name](_operator(self.arrays))
        self.state = self._set_up(self.solver, self.arrays)
        jax.block_until_ready(eqx.filter(self.state, eqx.is_array))

    def solve(self):
        found = self._solve(self.solver, self.state, self.arrays, self.rhs)
        self.value, self.stats = jax.block_until_ready(found)

    def metrics(self, problem):
        self.num_steps = int(self.stats["num_steps"])
        work = entries(lambda state, b: self.solver.compute(state, b, {}), self.state, self.rhs)
        product = entries(_operator(self.arrays).mv, self.rhs)
        each = getattr(self.solver, "replace_every", None)
        self.matvecs = matvec_equivalents(work, product, self.num_steps, each)
        return super().metrics(problem)

    def history(self, problem):
        if not hasattr(self.solver, "history"):
            return {}
        solver = dataclasses.replace(self.solver, history=True)
        solve: Any = eqx.filter_jit(_solve)
        stats = solve(solver, self.state, self.arrays, self.rhs)[1]
        residuals = np.asarray(stats["residuals"], np.float64)
        return history_of(residuals[: (self.num_steps or 0) + 1].tolist(), self.matvecs or 0.0)


def _operator(arrays):
    faces, sink = arrays
    return linear.Diffusion(faces, sink)


def _set_up(solver, arrays):
    return solver.init(_operator(arrays), {})


def _solve(solver, state, arrays, rhs):
    solution = lx.linear_solve(_operator(arrays), rhs, solver, state=state, throw=False)
    return solution.value, _numbers(solution.stats)


def _whole(solver, arrays, rhs):
    solution = lx.linear_solve(_operator(arrays), rhs, solver, throw=False)
    return solution.value, _numbers(solution.stats)


def _numbers(stats):
    return {name: value for name, value in stats.items() if name in ("num_steps", "residuals")}


METHODS = {"solver": _Solver}
