"""SciPy's, ilupp's and pyamg's linear solvers, always in float64."""

# ilupp is optional, and pyamg comes without types.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false

import os
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse.linalg as sla

from ._linear_contender import MAX_STEPS, TOLERANCE, LinearContender, history_of
from ._linear_problems import faces_of, sparse_matrix
from ._work import cycle_entries, transform_entries


VERSIONS = ("scipy", "pyamg", "ilupp")


class _Sparse(LinearContender):
    compiles = False

    def __init__(self, problem, params):
        self.A = sparse_matrix(problem)
        self.unknown = problem.data["unknown"]
        self.rhs = problem.data["rhs"].astype(np.float64)[self.unknown]

    def relative(self, x) -> float:
        return float(np.linalg.norm(self.rhs - self.A @ x) / np.linalg.norm(self.rhs))

    def as_operator(self, function: Any) -> Any:
        make: Any = sla.LinearOperator
        return make(self.A.shape, matvec=function)


class _CG(_Sparse):
    """SciPy's CG; a subclass makes the preconditioner and counts its entries."""

    preconditioner: Any = None

    def entries(self) -> float:
        """Entries that one application of the preconditioner touches."""
        return 0.0

    def solve(self):
        self.num_steps = self._iterate(lambda x: None)
        self.matvecs = self.num_steps * (1 + self.entries() / self.A.nnz)

    def _iterate(self, look):
        count = 0

        def callback(x):
            nonlocal count
            count += 1
            look(x)

        self.value, _ = sla.cg(
            self.A,
            self.rhs,
            rtol=TOLERANCE,
            atol=0.0,
            maxiter=MAX_STEPS,
            M=self.preconditioner,
            callback=callback,
        )
        return count

    def history(self, problem):
        every = max(1, (self.num_steps or 0) // 200)
        residuals, count = [1.0], 0

        def look(x):
            nonlocal count
            count += 1
            if count % every == 0:
                residuals.append(self.relative(x))

        steps = self._iterate(look)
        if steps < every:
            return {}
        kept = every * (len(residuals) - 1)
        found = history_of(residuals, (self.matvecs or 0.0) * kept / steps, len(residuals))
        return {**found, "num_steps": [every * k for k in found["num_steps"]]}


class _Incomplete(_CG):
    """CG with an incomplete factorisation: IC(0) and ICT of ilupp, ILUT of SciPy's SuperLU."""

    def __init__(self, problem, params):
        super().__init__(problem, params)
        self.kind = params["kind"]
        if self.kind != "spilu":
            import ilupp

            self.ilupp = ilupp

    def set_up(self):
        if self.kind == "spilu":
            self.factor = sla.spilu(
                self.A.tocsc(),
                drop_tol=1e-3,
                fill_factor=10,
                diag_pivot_thresh=0.0,
                permc_spec="MMD_AT_PLUS_A",
                options={"SymmetricMode": True},
            )
            self.preconditioner = self.as_operator(self.factor.solve)
        elif self.kind == "IC(0)":
            self.preconditioner = self.ilupp.IChol0Preconditioner(self.A)
        else:
            make = self.ilupp.ICholTPreconditioner
            self.preconditioner = make(self.A, add_fill_in=10, threshold=1e-3)

    def entries(self):
        # Both factors of SuperLU are stored; Cholesky's one is used twice.
        return self.factor.nnz if self.kind == "spilu" else 2.0 * self.preconditioner.total_nnz


class _EmptyBox(_CG):
    """CG with the direct solver of the box without obstacles, by fast cosine and sine transforms.

    Per axis: closed walls have the second cosine transform, a closed and an open one the fourth
    (whose zero is half a cell away, not a whole one), a value one cell or half a cell away the
    first or second sine transform. Constant weights: the geometric mean of the axis.
    """

    def __init__(self, problem, params):
        super().__init__(problem, params)
        self.where = np.flatnonzero(self.unknown)
        self.workers = int(os.environ.get("JINV_BENCH_THREADS", "1"))
        self.transforms = []
        self.eigenvalues = np.zeros(self.unknown.shape)
        for axis, w in enumerate(faces_of(problem)):
            transform, kind, values = _axis(np.moveaxis(w, axis, 0))
            self.transforms.append((transform, kind))
            others = [a for a in range(w.ndim) if a != axis]
            self.eigenvalues += np.expand_dims(values, others)
        self.preconditioner = self.as_operator(self._apply)

    def _apply(self, r):
        x = np.zeros(self.unknown.shape)
        x.ravel()[self.where] = np.ravel(r)
        for axis, (transform, kind) in enumerate(self.transforms):
            forward = getattr(scipy.fft, transform)
            x = forward(x, kind, axis=axis, workers=self.workers, overwrite_x=True)
        x /= self.eigenvalues
        for axis, (transform, kind) in enumerate(self.transforms):
            back = getattr(scipy.fft, f"i{transform}")
            x = back(x, kind, axis=axis, workers=self.workers, overwrite_x=True)
        return x.ravel()[self.where]

    def entries(self):
        return transform_entries(self.eigenvalues.size)


def _axis(w):
    """Transform, its type and the eigenvalues of the axis with those faces, which comes first."""
    n, inner = w.shape[0] - 1, w[1:-1][w[1:-1] > 0]
    weight = float(np.exp(np.mean(np.log(inner))))
    lower, upper = w[0].any(), w[-1].any()
    if not lower and not upper:
        transform, kind, waves = "dct", 2, np.arange(n) / n
    elif lower and upper:
        # Half a cell away the weight is that of two cells' faces in a row, doubled.
        half = np.mean(w[0]) > 1.5 * np.mean(w[1]) if n > 1 else False
        transform, kind = "dst", 2 if half else 1
        waves = np.arange(1, n + 1) / (n if half else n + 1)
    elif upper:
        transform, kind, waves = "dct", 4, (np.arange(n) + 0.5) / n
    else:
        transform, kind, waves = "dst", 4, (np.arange(n) + 0.5) / n
    return transform, kind, weight * (2 - 2 * np.cos(np.pi * waves))


class _Direct(_Sparse):
    """SuperLU; the entries of both factors are touched once."""

    def set_up(self):
        self.factor = sla.splu(
            self.A.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def solve(self):
        self.value, self.num_steps = self.factor.solve(self.rhs), 1
        self.matvecs = self.factor.nnz / self.A.nnz


class _Algebraic(_Sparse):
    """pyamg with its defaults, as a solver (`accel` null) or as the preconditioner of its CG."""

    def __init__(self, problem, params):
        import pyamg

        super().__init__(problem, params)
        self.accel = params["accel"]
        self.make = {
            "Ruge-Stuben": pyamg.ruge_stuben_solver,
            "smoothed aggregation": pyamg.smoothed_aggregation_solver,
        }[params["kind"]]

    def set_up(self):
        self.hierarchy = self.make(self.A)

    def solve(self):
        self.residuals = []
        self.value = self.hierarchy.solve(
            self.rhs, tol=TOLERANCE, accel=self.accel, maxiter=300, residuals=self.residuals
        )
        self.num_steps = len(self.residuals) - 1
        # A product in each step, for the residual or for CG, and the first residual.
        each = 1 + cycle_entries(self.hierarchy) / self.A.nnz
        self.matvecs = 1 + self.num_steps * each

    def history(self, problem):
        relative = np.asarray(self.residuals) / np.linalg.norm(self.rhs)
        return history_of(relative.tolist(), self.matvecs or 0.0)


METHODS = {
    "CG": _CG,
    "CG incomplete": _Incomplete,
    "CG box transform": _EmptyBox,
    "splu": _Direct,
    "pyamg": _Algebraic,
}
