"""float32 in, float32 out, also when x64 is on; strict promotion throughout."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv

from .helpers import CASES, FORMS, SMOOTH, SMOOTH_CASES


pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = [f"lasso-{form}" for form in FORMS] + ["lasso-HQS", "nnls-ADMM", "tv1-ADMM", "tv2-PDHG"]
NAMES += ["FixedPoint-Picard", "RootFind-Newton"]


def _single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def _solver(case):
    return eqx.tree_at(lambda s: (s.rtol, s.atol), case.solver, (1e-4, 1e-6))


def _inexact_dtypes(tree):
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return {str(x.dtype) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)}


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays(name):
    case = {**CASES, **SMOOTH_CASES}[name]
    theta, y0 = _single(case.theta), _single(case.y0)
    theta = jax.tree.map(lambda x: x, theta)
    if name.startswith("tv"):
        case = case._replace(build=_single_tv(name))
    sol = case.solve(theta, y0=y0, solver=_solver(case))
    assert sol.result == jinv.RESULTS.successful
    assert _inexact_dtypes((sol.value, sol.dual, sol.stats)) == {"float32"}
    exact = {**CASES, **SMOOTH_CASES}[name]
    np.testing.assert_allclose(sol.value, exact.solve(exact.theta).value, atol=3e-3)
    loss = lambda t: jnp.sum(case.solve(t, y0=y0, solver=_solver(case)).value)
    for adjoint in (None, jinv.UnrollAdjoint()) if name == "lasso-FISTA" else (None,):
        grad = jax.grad(lambda t, a=adjoint: loss(t) if a is None else _unrolled(case, t, y0))(
            theta
        )
        assert _inexact_dtypes(grad) == {"float32"}
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grad))


def _unrolled(case, theta, y0):
    adjoint = jinv.UnrollAdjoint()
    return jnp.sum(case.solve(theta, adjoint, y0=y0, solver=_solver(case)).value)


def _single_tv(name):
    def build(theta):
        K = jinv.operators.FiniteDifference(theta["data"].shape, dtype=jnp.float32)
        f = jinv.data_terms.least_squares(None, theta["data"])
        L1, L2 = jinv.prox.L1, lambda w: jinv.prox.GroupL2(w, axis=0)
        h = (L1 if name.startswith("tv1") else L2)(theta["weight"])
        if name.endswith("PDHG"):
            return jinv.Composite(proximable=f, penalty=h, operator=K)
        return jinv.Composite(f, penalty=h, operator=K)

    return build


def test_python_floats_adopt_the_dtype_of_the_data():
    problem = jinv.FixedPoint(lambda y, a: a * jnp.cos(y))
    solver = SMOOTH_CASES["FixedPoint-Picard"].solver
    loose = eqx.tree_at(lambda s: s.atol, solver, 1e-6)
    sol = jinv.solve(problem, loose, jnp.zeros(2, jnp.float32), 0.5)
    assert sol.value.dtype == jnp.float32
    assert jinv.solve(problem, solver, 0.0, 0.5).value.dtype == jnp.float64
    assert _inexact_dtypes(SMOOTH) == {"float64"}


def test_complex_single_precision():
    b = jnp.asarray([3.0 + 4.0j, 0.1j, 1.0], jnp.complex64)
    f, g = jinv.data_terms.least_squares(None, b), jinv.prox.L1(1.0)
    for form in ("FISTA", "PDHG", "ADMM", "DouglasRachford"):
        solver = type(CASES[f"lasso-{form}"].solver)()
        sol = jinv.solve(FORMS[form](f, g), solver, jnp.zeros(3, jnp.complex64))
        assert sol.value.dtype == jnp.complex64
        assert _inexact_dtypes(sol.stats) == {"float32"}
        np.testing.assert_allclose(sol.value, [2.4 + 3.2j, 0, 0], atol=1e-3)
