"""Each failure is reached and says what to try; misuse is an error that names the argument."""

# Wrong types are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import lineax as lx
import numpy as np
import optimistix as optx
import pytest

import jinv
from jinv import RESULTS, prox, splitting
from jinv.data_terms import least_squares

from .helpers import CASES, FORMS, SMOOTH_CASES, Picard, matrix


pytestmark = pytest.mark.usefixtures("quick_compilation")

FISTA = splitting.FISTA()
LASSO = CASES["lasso-FISTA"]


def _fails(result, text, problem, solver, y0, args=None, **options):
    """Fails with this result; raises its text when told to throw."""
    sol = jinv.solve(problem, solver, y0, args, throw=False, **options)
    assert sol.result == result, str(sol.result)
    with pytest.raises(eqx.EquinoxRuntimeError, match=text):
        jax.block_until_ready(jinv.solve(problem, solver, y0, args, **options).value)
    return sol


def _quadratic(x, args):
    return 0.5 * jnp.sum(x**2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["data", "weight", "y0"])
def test_nan_in_the_input(form, where):
    case = CASES[f"lasso-{form}"]
    theta, y0 = dict(case.theta), case.y0
    if where == "y0":
        y0 = y0.at[2].set(jnp.nan)
    else:
        theta[where] = jnp.full_like(theta[where], jnp.nan)
    sol = case.solve(theta, y0=y0)
    assert sol.result == RESULTS.nan_in_input and sol.stats["num_steps"] == 0


def test_nan_in_args_is_told_by_its_name():
    text = "NaN in the initial guess, in the problem's arrays or in `args`"
    problem = jinv.Composite(lambda x, b: jnp.sum((x - b) ** 2))
    _fails(RESULTS.nan_in_input, text, problem, FISTA, jnp.ones(2), jnp.asarray([1.0, jnp.nan]))
    root = jinv.RootFind(lambda y, a: y - a)
    newton = optx.Newton(1e-6, 1e-6)
    _fails(RESULTS.nan_in_input, text, root, newton, jnp.ones(2), jnp.asarray([1.0, jnp.nan]))


def test_running_out_of_steps():
    text = "maximum number of steps was reached in the nonlinear solver"
    problem = jinv.Composite(lambda x, b: 0.5 * jnp.sum(jnp.asarray([1.0, 1e-3]) * (x - b) ** 2))
    solver = splitting.ProximalGradient(rtol=1e-10, atol=1e-10, step_size=1.0, check_every=7)
    late = RESULTS.nonlinear_max_steps_reached
    sol = _fails(late, text, problem, solver, jnp.zeros(2), jnp.ones(2), max_steps=20)
    # A multiple of `check_every`; the point is the last iterate.
    assert sol.stats["num_steps"] == 21
    np.testing.assert_allclose(sol.value, [1.0, 1 - (1 - 1e-3) ** 21], rtol=1e-12)
    for name in ("RootFind-optimistix", "FixedPoint-optimistix", "Minimise-optimistix"):
        case = SMOOTH_CASES[name]
        assert case.solve(case.theta, max_steps=1).result == late


def test_line_search_without_an_acceptable_step():
    # The curvature is beyond every step size that the search tries.
    problem = jinv.Composite(lambda x, _: 1e40 * jnp.sum(x**2))
    for solver in (FISTA, splitting.ProximalGradient()):
        _fails(
            RESULTS.unbounded_step, "line search found no acceptable", problem, solver, jnp.ones(2)
        )


def test_unbounded_below():
    problem = jinv.Composite(lambda x, _: -jnp.sum(jnp.exp(x)))
    text = "smooth term may be unbounded below"
    _fails(RESULTS.unbounded_step, text, problem, FISTA, jnp.ones(2))


@pytest.mark.parametrize("form", ["ProximalGradient", "FISTA"])
def test_too_large_a_step(form):
    solver = type(CASES[f"lasso-{form}"].solver)(step_size=10.0)
    text = "leave the step size unset"
    _fails(RESULTS.diverged, text, LASSO.build(LASSO.theta), solver, jnp.ones(5))


def test_too_large_steps_of_pdhg():
    case = CASES["lasso-PDHG-gradient"]
    solver = splitting.PDHG(primal_step=10.0, dual_step=10.0)
    _fails(RESULTS.diverged, "became infinite", case.build(case.theta), solver, jnp.ones(5))


def test_nan_of_a_function_at_an_iterate():
    problem = jinv.FixedPoint(lambda y, _: jnp.log(y - 0.5))
    _fails(RESULTS.diverged, "outside its domain", problem, Picard(), jnp.ones(2))


@pytest.mark.parametrize("solver", [splitting.ADMM(), splitting.HQS()])
def test_singular_subproblem_with_a_fast_transform(solver):
    # Differences and a sampled zero frequency leave nothing; the highest frequencies remain.
    K = jinv.operators.FiniteDifference((4,))
    f = least_squares(K, jnp.ones((1, 4)))
    problem = jinv.Composite(f, penalty=prox.L1(1.0), operator=K)
    text = "null spaces intersect only in zero"
    _fails(RESULTS.subproblem_failed, text, problem, solver, jnp.ones(4))


def test_subproblem_that_runs_out_of_steps():
    A = matrix(jnp.vander(jnp.linspace(0, 1, 9), 8))
    few = lx.CG(rtol=1e-12, atol=1e-12, max_steps=2)
    problem = jinv.Composite(least_squares(A, jnp.ones(9)), prox.L1(0.1))
    solver = splitting.ADMM(linear_solver=few, penalty=1e-6)
    _fails(RESULTS.subproblem_failed, "`linear_solver` with more", problem, solver, jnp.zeros(8))


def test_an_implicit_derivative_at_a_singular_solution_raises():
    problem = jinv.Minimise(lambda y, a: jnp.sum((y[0] - a) ** 2) + 0 * y[1])
    solve = lambda a: jnp.sum(
        jinv.solve(problem, optx.BFGS(1e-8, 1e-8), jnp.zeros(2), a, throw=False).value
    )
    with pytest.raises(Exception, match="(?s)linear solver returned non-finite"):
        jax.block_until_ready(jax.grad(solve)(1.0))


def test_no_result_is_unused():
    own = set(RESULTS._name_to_item) - set(optx.RESULTS._name_to_item)
    reached = {"nan_in_input", "unbounded_step", "diverged", "subproblem_failed"}
    reached = reached | {"out_of_range"}  # in test_lpn.py
    assert own == reached, "a new result needs a test that reaches it"


# Misuse: what is called, and what the message says.
P = jinv.Composite(_quadratic, prox.L1(1.0))
PENALISED = jinv.Composite(proximable=prox.L1(1.0), penalty=prox.L1(1.0))
K3 = jinv.operators.FiniteDifference((3,))
DATA = least_squares(None, jnp.ones(3))
MISUSE = {
    "integer y0": (lambda: jinv.solve(P, FISTA, jnp.ones(2, int)), "`y0` .*int64"),
    "text y0": (lambda: jinv.solve(P, FISTA, "zero"), "`y0` .*str"),
    "problem": (lambda: jinv.solve(_quadratic, FISTA, jnp.ones(2)), "`problem` .*function"),
    "solver": (lambda: jinv.solve(P, "fista", jnp.ones(2)), "jinv solver.*got str"),
    "optimistix solver for a composite": (
        lambda: jinv.solve(P, optx.BFGS(1e-3, 1e-3), jnp.ones(2)),
        "Composite is solved by a jinv solver, got BFGS",
    ),
    "root finder for a minimum": (
        lambda: jinv.solve(jinv.Minimise(_quadratic), optx.Newton(1e-3, 1e-3), jnp.ones(2)),
        "Minimise is solved by .*AbstractMinimiser, got Newton",
    ),
    "adjoint": (
        lambda: jinv.solve(P, FISTA, jnp.ones(2), adjoint=optx.ImplicitAdjoint()),
        "`adjoint` .*ImplicitAdjoint",
    ),
    "meter": (lambda: jinv.solve(P, FISTA, jnp.ones(2), progress_meter=True), "`progress_meter`"),
    "max_steps": (lambda: jinv.solve(P, FISTA, jnp.ones(2), max_steps=0), "`max_steps` .*got 0"),
    "float max_steps": (
        lambda: jinv.solve(P, FISTA, jnp.ones(2), max_steps=10.0),
        "`max_steps` .*got 10.0",
    ),
    "boolean max_steps": (
        lambda: jinv.solve(P, FISTA, jnp.ones(2), max_steps=True),
        "`max_steps` .*got True",
    ),
    "shape of y0": (
        lambda: jinv.solve(LASSO.build(LASSO.theta), FISTA, jnp.ones(4)),
        r"(?s)4.*5|5.*4",
    ),
    "shape of y0 and operator": (
        lambda: jinv.solve(
            jinv.Composite(DATA, penalty=prox.L1(1.0), operator=K3), splitting.ADMM(), jnp.ones(4)
        ),
        "`y0` must have the structure on which `operator` acts",
    ),
    "shape of the dual": (
        lambda: jinv.solve(
            jinv.Composite(DATA, penalty=prox.L1(1.0), operator=K3),
            splitting.ADMM(),
            jinv.PrimalDual(jnp.ones(3), jnp.ones(3)),
        ),
        "dual initial guess",
    ),
    "vector objective": (
        lambda: jinv.solve(jinv.Composite(lambda x, _: x), FISTA, jnp.ones(2)),
        "must be a real scalar, got shape",
    ),
    "empty composite": (lambda: jinv.Composite(), "at least one of"),
    "operator alone": (lambda: jinv.Composite(_quadratic, operator=K3), "without the `penalty`"),
    "proximable": (lambda: jinv.Composite(_quadratic, jnp.abs), "`proximable` must be a jinv"),
    "penalty": (lambda: jinv.Composite(_quadratic, penalty=jnp.abs), "`penalty` must be a jinv"),
    "FISTA with a penalty": (lambda: jinv.solve(PENALISED, FISTA, jnp.ones(2)), "PDHG or ADMM"),
    "FISTA without smooth": (
        lambda: jinv.solve(jinv.Composite(proximable=prox.L1(1.0)), FISTA, jnp.ones(2)),
        "FISTA needs a `smooth` term",
    ),
    "FISTA on a fixed point": (
        lambda: jinv.solve(jinv.FixedPoint(lambda y, _: y), FISTA, jnp.ones(2)),
        "FISTA solves jinv.Composite problems, got FixedPoint",
    ),
    "PDHG without penalty": (
        lambda: jinv.solve(P, splitting.PDHG(), jnp.ones(2)),
        "PDHG needs a `penalty`",
    ),
    "PDHG without Lipschitz constant": (
        lambda: jinv.solve(
            jinv.Composite(_quadratic, penalty=prox.L1(1.0)), splitting.PDHG(), jnp.ones(2)
        ),
        "give `primal_step` and `dual_step`",
    ),
    "one step of PDHG": (lambda: splitting.PDHG(primal_step=1.0), "both"),
    "ADMM with a function": (
        lambda: jinv.solve(P, splitting.ADMM(), jnp.ones(2)),
        "ADMM takes a least-squares DataTerm",
    ),
    "HQS without regulariser": (
        lambda: jinv.solve(jinv.Composite(DATA), splitting.HQS(), jnp.ones(3)),
        "HQS needs a `penalty` or a `proximable`",
    ),
    "DouglasRachford with smooth": (
        lambda: jinv.solve(
            jinv.Composite(DATA, prox.L1(1.0), penalty=prox.L1(1.0)),
            splitting.DouglasRachford(),
            jnp.ones(3),
        ),
        "takes no `smooth` term",
    ),
    "DouglasRachford without penalty": (
        lambda: jinv.solve(P, splitting.DouglasRachford(), jnp.ones(3)),
        "a `proximable` and a `penalty`",
    ),
    "history of an unrolled solve": (
        lambda: jinv.solve(P, FISTA, jnp.ones(2), adjoint=jinv.UnrollAdjoint(), save_history=True),
        "`save_history` is not available with UnrollAdjoint",
    ),
    "history of optimistix": (
        lambda: jinv.solve(
            jinv.Minimise(_quadratic), optx.BFGS(1e-3, 1e-3), jnp.ones(2), save_history=True
        ),
        "`save_history` is not available with optimistix",
    ),
    "one step of optimistix": (
        lambda: jinv.solve(
            jinv.Minimise(_quadratic),
            optx.BFGS(1e-3, 1e-3),
            jnp.ones(2),
            adjoint=jinv.OneStepAdjoint(),
        ),
        "for an optimistix solver use",
    ),
    "both modes of optimistix": (
        lambda: jinv.solve(
            jinv.Minimise(_quadratic),
            optx.BFGS(1e-3, 1e-3),
            jnp.ones(2),
            adjoint=jinv.UnrollAdjoint(mode="both"),
        ),
        "no UnrollAdjoint",
    ),
    "mode": (lambda: jinv.UnrollAdjoint(mode="sideways"), "`mode` must be one of|mode"),
    "checkpoints": (lambda: jinv.UnrollAdjoint(checkpoints=0), "`checkpoints` must be at least 1"),
    "terms": (lambda: jinv.NeumannAdjoint(terms=-1), "`terms` .*got -1"),
    "relaxation of ADMM": (lambda: splitting.ADMM(relaxation=2.0), "`relaxation` .*got 2.0"),
    "relaxation": (lambda: splitting.DouglasRachford(relaxation=0.0), "`relaxation` .*got 0.0"),
    "growth": (lambda: splitting.HQS(growth=0.9), "`growth` .*got 0.9"),
    "penalty of ADMM": (lambda: splitting.ADMM(penalty=0.0), "`penalty` .*got 0.0"),
    "step_size": (lambda: splitting.FISTA(step_size=-1.0), "`step_size` .*got -1.0"),
    "refresh_steps": (lambda: jinv.TqdmProgressMeter(refresh_steps=0), "refresh_steps"),
}


@pytest.fixture
def untyped():
    """The library's own checks, without the type checker of the test suite before them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_names_the_argument(name, untyped):
    call, text = MISUSE[name]
    with pytest.raises((ValueError, TypeError), match=text):
        call()


@pytest.mark.parametrize("name", sorted({type(c.solver).__name__ for c in CASES.values()}))
@pytest.mark.parametrize("field, value", [("rtol", -1e-3), ("atol", -1.0), ("rtol", float("nan"))])
def test_negative_tolerances(name, field, value):
    solver = getattr(splitting, name)
    with pytest.raises(ValueError, match=f"`{field}` must be non-negative, got"):
        solver(**{field: value})
    with pytest.raises(ValueError, match="`check_every` must be at least 1, got 0"):
        solver(check_every=0)


@pytest.mark.parametrize("form", FORMS)
def test_wrong_dtype_is_told(form):
    case = CASES[f"lasso-{form}"]
    theta = jax.tree.map(lambda x: x.astype(jnp.float32), case.theta)
    with pytest.raises((ValueError, TypeError), match="float32|float64"):
        case.solve(theta, y0=jnp.zeros(5, jnp.float64))
