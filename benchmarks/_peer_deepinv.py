"""deepinv's contenders, run in deepinv's own environment (it brings PyTorch)."""

# The peer is optional and may live elsewhere.
# pyright: reportMissingImports=false

import os

import deepinv
import numpy as np
import torch

from ._contender import AbstractContender, adjoint_error, image_metrics
from ._problems import ct_objective, ct_sinogram, psnr


VERSIONS = ("deepinv", "torch", "torchvision")

torch.set_num_threads(int(os.environ.get("JINV_BENCH_THREADS", "1")))
torch.set_grad_enabled(False)


def device():
    return "cpu", None


def _image(array):
    return torch.from_numpy(np.ascontiguousarray(array))[None, None]


class _Iterative(AbstractContender):
    """A deepinv optimiser, advanced through its own iteration; `forward` runs the same loop but
    cannot be resumed, so windows would have to start over.

    `new_prior` makes a prior without the warm start that `TVPrior` keeps between calls.
    """

    def __init__(self, solver, new_prior, start, y, physics, judge):
        self._solver, self._new_prior = solver, new_prior
        self._start, self._y, self._physics, self._judge = start, y, physics, judge

    def restart(self):
        self._optimiser = self._solver(self._new_prior())
        self._optimiser.eval()
        self._loop = self._optimiser.fixed_point
        self._state = self._loop.init_iterate_fn(
            self._y, self._physics, self._start, cost_fn=self._loop.iterator.cost_fn
        )
        self._count = 0

    def run(self, num_steps):
        for _ in range(num_steps):
            self._state = self._loop.single_iteration(
                self._state, self._count, self._y, self._physics
            )
            self._count += 1

    def metrics(self, problem):
        x = self._optimiser.get_output(self._state)
        return self._judge(problem, x[0, 0].numpy())


def _physics(problem):
    if "psf" not in problem.data:
        return deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.0))
    size = problem.data["y"].shape
    return deepinv.physics.BlurFFT(img_size=(1, *size), filter=_image(problem.data["psf"]))


def _neumann_only(problem):
    if problem.params["boundary"] != "neumann":
        raise ValueError(f"boundary: deepinv has 'neumann', got {problem.params['boundary']!r}.")


def _primal_dual(problem, params):
    """min 1/2 |Ax - y|^2 + lam |Kx|_12 with K the differences; the data step is exact."""
    _neumann_only(problem)
    y = _image(problem.data["y"])
    nabla = deepinv.optim.TVPrior()

    def solver(prior):
        return deepinv.optim.PDCP(
            K=nabla.nabla,
            K_adjoint=nabla.nabla_adjoint,
            data_fidelity=deepinv.optim.L2(),
            prior=prior,
            lambda_reg=problem.params["lam"],
            stepsize=params["tau"],
            stepsize_dual=params["sigma"],
            g_first=True,
        )

    start = (y, y, torch.zeros((*y.shape, 2), dtype=y.dtype))
    new_prior = lambda: deepinv.optim.L12Prior(l2_axis=-1)
    return _Iterative(solver, new_prior, start, y, _physics(problem), image_metrics)


def _with_total_variation(optimiser):
    """Proximal methods with the inner TV solver cut at `inner_steps` (deepinv's examples: 20)."""

    def setup(problem, params):
        _neumann_only(problem)
        y = _image(problem.data["y"])
        return _proximal(optimiser, problem, params, y, y, _physics(problem), image_metrics)

    return setup


def _proximal(optimiser, problem, params, start, y, physics, judge):
    def solver(prior):
        return optimiser(
            data_fidelity=deepinv.optim.L2(),
            prior=prior,
            lambda_reg=problem.params["lam"],
            stepsize=params["step_size"],
        )

    new_prior = lambda: deepinv.optim.TVPrior(n_it_max=params["inner_steps"])
    return _Iterative(solver, new_prior, (start, start), y, physics, judge)


def _projector(problem):
    """deepinv's rotate-and-sum projector with the exact adjoint, scaled to norm one by itself."""
    return deepinv.physics.Tomography(
        angles=torch.linspace(0, 180, problem.params["num_angles"] + 1)[:-1],
        img_width=problem.size,
        circle=False,
        normalize=True,
        adjoint_via_backprop=True,
    )


class _Projection(AbstractContender):
    """Calls of one operator, for its cost."""

    def __init__(self, problem, params):
        physics = _projector(problem)
        image = _image(problem.data["truth"])
        sinogram = physics.A(image)
        self._call = {
            "forward": lambda: physics.A(image),
            "adjoint": lambda: physics.A_adjoint(sinogram),
        }[params["direction"]]
        rng = np.random.default_rng(1)
        u = _image(rng.standard_normal(image.shape[2:]).astype(np.float32))
        v = torch.from_numpy(rng.standard_normal(sinogram.shape).astype(np.float32))
        self._error = adjoint_error(
            u.numpy(), v.numpy(), physics.A(u).numpy(), physics.A_adjoint(v).detach().numpy()
        )

    def restart(self):
        pass

    def run(self, num_steps):
        for _ in range(num_steps):
            self._call()

    def metrics(self, problem):
        return {"adjoint_error": self._error}


def _ct(problem):
    _neumann_only(problem)
    physics = _projector(problem)
    clean = physics.A(_image(problem.data["truth"]))[0, 0].numpy()
    sinogram = ct_sinogram(problem, clean)

    def judge(problem, x):
        projected = physics.A(_image(x))[0, 0].numpy()
        return {
            "objective": ct_objective(problem, x, projected, sinogram),
            "psnr": psnr(x, problem.data["truth"]),
        }

    return physics, _image(sinogram), judge


def _ct_with_total_variation(optimiser):
    def setup(problem, params):
        physics, sinogram, judge = _ct(problem)
        start = torch.zeros_like(_image(problem.data["truth"]))
        return _proximal(optimiser, problem, params, start, sinogram, physics, judge)

    return setup


METHODS = {
    "PDCP": _primal_dual,
    "PGD": _with_total_variation(deepinv.optim.PGD),
    "FISTA": _with_total_variation(deepinv.optim.FISTA),
    "ADMM": _with_total_variation(deepinv.optim.ADMM),
    "projection": _Projection,
    "CT ADMM": _ct_with_total_variation(deepinv.optim.ADMM),
    "CT FISTA": _ct_with_total_variation(deepinv.optim.FISTA),
}
