"""scico's contenders, run in scico's own environment (it caps the JAX version)."""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

import jax
import numpy as np
import scico.numpy as snp
from scico import functional, linop, loss
from scico.linop.xray import XRayTransform2D
from scico.optimize import ADMM, PDHG
from scico.optimize.admm import CircularConvolveSolver, LinearSubproblemSolver
from scico.optimize.pgm import PGM, AcceleratedPGM

from ._contender import AbstractContender, adjoint_error, image_metrics
from ._problems import ct_objective, ct_sinogram, psnr


VERSIONS = ("scico", "jax", "jaxlib")


def device():
    kind = jax.devices()[0]
    # The processor's own name says more than "cpu".
    return kind.platform, None if kind.platform == "cpu" else kind.device_kind


class _Iterative(AbstractContender):
    """A scico optimiser: rebuilt to restart (operators and their compiled code are kept).

    `params["statistics"]` is "default" (scico evaluates the objective at every iteration) or
    "minimal" (only the iteration number).
    """

    def __init__(self, make, params, judge):
        self._make, self._judge = make, judge
        if params["statistics"] == "minimal":
            self._options = {
                "itstat_options": {
                    "fields": {"Iter": "%d"},
                    "itstat_func": lambda solver: (solver.itnum,),
                }
            }
        else:
            self._options = {}

    def restart(self):
        self._solver = self._make(**self._options)

    def run(self, num_steps):
        self._solver.maxiter = num_steps
        jax.block_until_ready(self._solver.solve())

    def metrics(self, problem):
        return self._judge(problem, np.asarray(self._solver.minimizer()))


def _differences(problem):
    shape, dtype = problem.data["truth"].shape, problem.data["truth"].dtype
    circular = problem.params["boundary"] == "circular"
    return linop.FiniteDifference(
        shape, input_dtype=dtype, circular=circular, append=None if circular else 0
    )


def _misfit(problem):
    """1/2 |Ax - y|^2 with the operator, for both TV problems."""
    y = snp.asarray(problem.data["y"])
    if "psf" not in problem.data:
        return y, linop.Identity(y.shape, input_dtype=y.dtype)
    psf = problem.data["psf"]
    blur = linop.CircularConvolve(
        snp.asarray(psf),
        y.shape,
        input_dtype=y.dtype,
        h_center=[psf.shape[0] // 2, psf.shape[1] // 2],
    )
    return y, blur


def _admm(problem, params):
    y, forward = _misfit(problem)
    start, fidelity = y, loss.SquaredL2Loss(y=y, A=forward)
    return _admm_solver(problem, params, start, fidelity, image_metrics)


def _admm_solver(problem, params, start, fidelity, judge):
    differences = _differences(problem)
    penalty = problem.params["lam"] * functional.L21Norm()

    def make(**options):
        if params["subproblem"] == "fft":
            subproblem = CircularConvolveSolver()
        else:
            subproblem = LinearSubproblemSolver(
                cg_kwargs={"tol": params["cg_tol"], "maxiter": params["cg_steps"]}
            )
        return ADMM(
            f=fidelity,
            g_list=[penalty],
            C_list=[differences],
            rho_list=[params["rho"]],
            x0=start,
            subproblem_solver=subproblem,
            **options,
        )

    return _Iterative(make, params, judge)


def _pdhg(problem, params):
    """min f(x) + g(Cx) with f the data term: its prox is closed for denoising, CG otherwise."""
    y, forward = _misfit(problem)
    fidelity = loss.SquaredL2Loss(y=y, A=forward)
    differences = _differences(problem)
    penalty = problem.params["lam"] * functional.L21Norm()

    def make(**options):
        return PDHG(
            f=fidelity,
            g=penalty,
            C=differences,
            tau=params["tau"],
            sigma=params["sigma"],
            x0=y,
            **options,
        )

    return _Iterative(make, params, image_metrics)


def _proximal_gradient(solver):
    def setup(problem, params):
        y, forward = _misfit(problem)
        penalty = problem.params["lam"] * functional.IsotropicTVNorm(
            circular=problem.params["boundary"] == "circular",
            input_shape=y.shape,
            input_dtype=y.dtype,
        )
        fidelity = loss.SquaredL2Loss(y=y, A=forward)

        def make(**options):
            return solver(f=fidelity, g=penalty, L0=params["L0"], x0=y, **options)

        return _Iterative(make, params, image_metrics)

    return setup


def _projector(problem):
    """scico's parallel-beam projector scaled to norm one, with its default pixel spacing."""
    size, num_angles = problem.size, problem.params["num_angles"]
    angles = np.linspace(0, np.pi, num_angles, endpoint=False)
    raw = XRayTransform2D((size, size), angles, det_count=int(np.ceil(size * np.sqrt(2))))
    x = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    for _ in range(20):
        x = np.asarray(raw.T(raw(snp.asarray(x / np.linalg.norm(x)))))
    return raw, 1 / float(np.sqrt(np.linalg.norm(x)))


class _Projection(AbstractContender):
    """Calls of one operator, for its cost."""

    def __init__(self, problem, params):
        raw, _ = _projector(problem)
        image = snp.asarray(problem.data["truth"])
        sinogram = raw(image)
        self._call = {
            "forward": lambda: raw(image),
            "adjoint": lambda: raw.T(sinogram),
        }[params["direction"]]
        rng = np.random.default_rng(1)
        u = rng.standard_normal(image.shape).astype(np.float32)
        v = rng.standard_normal(sinogram.shape).astype(np.float32)
        self._error = adjoint_error(
            u, v, np.asarray(raw(snp.asarray(u))), np.asarray(raw.T(snp.asarray(v)))
        )

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            jax.block_until_ready(self._call())

    def metrics(self, problem):
        return {"adjoint_error": self._error}


def _ct(problem):
    raw, scale = _projector(problem)
    forward = scale * raw
    image = snp.asarray(problem.data["truth"])
    sinogram = ct_sinogram(problem, np.asarray(forward(image)))

    def judge(problem, x):
        projected = np.asarray(forward(snp.asarray(x)))
        return {
            "objective": ct_objective(problem, x, projected, sinogram),
            "psnr": psnr(x, problem.data["truth"]),
        }

    return forward, snp.asarray(sinogram), snp.zeros_like(image), judge


def _ct_admm(problem, params):
    forward, sinogram, start, judge = _ct(problem)
    fidelity = loss.SquaredL2Loss(y=sinogram, A=forward)
    return _admm_solver(problem, params, start, fidelity, judge)


def _ct_pdhg(problem, params):
    """Both the projector and the differences are dualised, so no iteration solves a system."""
    forward, sinogram, start, judge = _ct(problem)
    both = linop.VerticalStack([forward, _differences(problem)])
    terms = functional.SeparableFunctional(
        [loss.SquaredL2Loss(y=sinogram), problem.params["lam"] * functional.L21Norm()]
    )

    def make(**options):
        return PDHG(
            f=functional.ZeroFunctional(),
            g=terms,
            C=both,
            tau=params["tau"],
            sigma=params["sigma"],
            x0=start,
            **options,
        )

    return _Iterative(make, params, judge)


METHODS = {
    "ADMM": _admm,
    "PDHG": _pdhg,
    "PGM": _proximal_gradient(PGM),
    "APGM": _proximal_gradient(AcceleratedPGM),
    "projection": _Projection,
    "CT ADMM": _ct_admm,
    "CT PDHG": _ct_pdhg,
}
