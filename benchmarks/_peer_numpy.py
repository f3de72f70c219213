"""Plain NumPy contenders: the floor that any framework should beat, and the harness's own test."""

import os
import sys
import time

import numpy as np

from ._contender import AbstractContender, NotAvailable, image_metrics
from ._problems import gradient, gradient_adjoint, transfer_function


VERSIONS = ("numpy", "scipy")


class _PrimalDual(AbstractContender):
    """PDHG for TV with the exact data step, in the benchmark's precision.

    Source: Chambolle & Pock, "A first-order primal-dual algorithm for convex problems with
    applications to imaging" (2011), Algorithm 1.
    """

    def __init__(self, problem, params):
        self.y = problem.data["y"]
        self.lam, self.boundary = problem.params["lam"], problem.params["boundary"]
        self.tau, self.sigma = params["tau"], params["sigma"]
        half = (self.y.shape[0], self.y.shape[1] // 2 + 1)
        transfer = (
            transfer_function(problem.data["psf"], self.y.shape)
            if "psf" in problem.data
            else np.ones(half)
        )
        kind = np.result_type(self.y.dtype, np.complex64)
        self.back = (np.conj(transfer) * np.fft.rfft2(self.y)).astype(kind)
        self.energy = (np.abs(transfer) ** 2).astype(self.y.dtype)

    def restart(self):
        self.x, self.x_bar = self.y.copy(), self.y.copy()
        self.p = np.zeros((2, *self.y.shape), self.y.dtype)

    def run(self, num_steps):
        for _ in range(num_steps):
            p = self.p + self.sigma * gradient(self.x_bar, self.boundary)
            self.p = p / np.maximum(1, np.sqrt(np.sum(p**2, axis=0)) / self.lam)
            right = np.fft.rfft2(self.x - self.tau * gradient_adjoint(self.p, self.boundary))
            x = np.fft.irfft2(
                (right + self.tau * self.back) / (1 + self.tau * self.energy), s=self.y.shape
            ).astype(self.y.dtype)
            self.x, self.x_bar = x, 2 * x - self.x

    def metrics(self, problem):
        return image_metrics(problem, self.x)


class _Faulty(_PrimalDual):
    """Fails in a chosen way after a chosen number of windows: tests that failures are kept."""

    def __init__(self, problem, params):
        if params["how"] == "lack":
            raise NotAvailable("there is none here")
        super().__init__(problem, {"tau": 0.35, "sigma": 0.35})
        self.how, self.calls_left = params["how"], params["calls"]

    def run(self, num_steps):
        super().run(num_steps)
        self.calls_left -= 1
        if self.calls_left > 0:
            return
        if self.how == "raise":
            raise RuntimeError("a deliberate failure")
        if self.how == "exit":
            print("a deliberate crash", file=sys.stderr, flush=True)
            os._exit(3)
        if self.how == "hang":
            time.sleep(3600)
        self.x = self.x * np.nan


METHODS = {"PDHG": _PrimalDual, "faulty": _Faulty}
