"""Linear solves to a true relative residual of 1e-6: jinv, JAX, SciPy and algebraic multigrid."""

from ._cases import Benchmark, Case, Contender
from ._linear_contender import TOLERANCE


def _scipy(method, label, library="scipy", **params):
    module = "benchmarks._linear_scipy"
    return Contender(library, module, method, params, window_steps=1, label=label)


def _jax(method, label, **params):
    module, library = "benchmarks._linear_jax", method.split()[0]
    return Contender(library, module, method, params, window_steps=1, label=label)


def _ours(solver, label):
    module, params = "benchmarks._linear_ours", {"solver": solver}
    return Contender("jinv", module, "solver", params, window_steps=1, label=label)


def _contenders(problem):
    """All that fit: a large case keeps one of each kind, since all are in memory together."""
    flat, large = problem["params"]["dim"] == "2-D", _cells(problem) > 512**2
    found = [c for c in _everyone() if not _left_out(c, flat, large, problem["size"])]
    if problem["name"] == "anisotropic":
        found.append(_ours("Multigrid anisotropy", "PCG, Multigrid told of the anisotropy"))
    return found


def _left_out(contender, flat, large, size):
    if contender.method == "splu":
        # The factors of 64^3 unknowns need more than ten minutes and 4 GB.
        return not flat and size > 32
    if contender.params.get("kind") == "spilu":
        # In 3-D the factorisation of 32^3 unknowns takes minutes.
        return large or (not flat and size > 16)
    return large and contender.name in (
        "CG, BCOO",
        "CG, rtol = atol = 1e-6",
        "PCG, Chebyshev",
        "PCG, AlgebraicMultigrid of pyamg",
        "DCDM",
    )


def _everyone():
    incomplete = [("IC(0)", "ilupp"), ("ICT", "ilupp"), ("spilu", "scipy")]
    return [
        _scipy("CG", "CG"),
        *(_scipy("CG incomplete", f"CG, {kind}", lib, kind=kind) for kind, lib in incomplete),
        _scipy("CG box transform", "CG, transform of the box"),
        *(
            _scipy("pyamg", name + (" + CG" if accel else ""), "pyamg", kind=name, accel=accel)
            for name in ("Ruge-Stuben", "smoothed aggregation")
            for accel in (None, "cg")
        ),
        _scipy("splu", "splu"),
        _jax("jax.scipy CG", "CG"),
        _jax("jax.scipy CG", "CG float32", dtype="float32"),
        _jax("jax.scipy CG BCOO", "CG, BCOO"),
        _jax("lineax CG", "CG, rtol = atol = 1e-6", steps="own"),
        _jax("lineax CG", "CG, steps of SciPy's", steps="given"),
        _ours("PCG", "PCG"),
        _ours("Jacobi", "PCG, Jacobi"),
        _ours("Chebyshev", "PCG, Chebyshev"),
        _ours("Multigrid", "PCG, Multigrid"),
        _ours("Multigrid V", "PCG, Multigrid V"),
        _ours("Multigrid float32", "PCG, Multigrid float32"),
        _ours("Multigrid trained", "PCG, Multigrid trained"),
        _ours("Multigrid trained float32", "PCG, Multigrid trained float32"),
        _ours("Refinement", "Refinement, Multigrid"),
        _ours("AlgebraicMultigrid", "PCG, AlgebraicMultigrid"),
        _ours("AlgebraicMultigrid of pyamg", "PCG, AlgebraicMultigrid of pyamg"),
        _ours("DCDM", "DCDM"),
        _ours("DCDM Multigrid", "DCDM, Multigrid"),
    ]


def _problem(name, size, dim, **params):
    return {"name": name, "size": size, "params": {"dim": dim, **params}}


def _problems():
    for geometry in ("standard", "random"):
        for dim, sizes in {"2-D": (256, 512, 1024), "3-D": (64, 128)}.items():
            # The small sizes are for the growth with size, where DCDM fits.
            small = {"2-D": (64, 128), "3-D": (32,)}[dim] if geometry == "standard" else ()
            for size in (*small, *sizes):
                yield _problem("obstacles", size, dim, geometry=geometry)
    yield _problem("box", 512, "2-D")
    yield _problem("box", 64, "3-D")
    for coefficient in ("blobs", "blocks"):
        for dim, size in (("2-D", 256), ("2-D", 512), ("3-D", 64)):
            yield _problem("diffusion", size, dim, coefficient=coefficient, jump=1e3)
    yield _problem("anisotropic", 512, "2-D", ratio=100.0)


def _case(problem, contenders, history=True):
    return Case(
        problem,
        contenders,
        reference=None,
        long_s=10.0,
        tolerance=TOLERANCE,
        history=history,
    )


def _smoke():
    flat = _problem("obstacles", 24, "2-D", geometry="standard")
    deep = _problem("diffusion", 12, "3-D", coefficient="blocks", jump=1e3)
    cheap = {"scipy/CG, transform of the box", "pyamg/Ruge-Stuben + CG"}
    more = {"scipy/CG", "ilupp/CG, IC(0)", "jax.scipy/CG", "jinv/PCG, Multigrid"}
    # Whatever is compiled takes seconds, so only once.
    return [
        _case(problem, [c for c in _contenders(problem) if f"{c.library}/{c.name}" in names])
        for problem, names in ((flat, cheap | more), (deep, cheap | {"scipy/splu"}))
    ]


def cases(smoke: bool) -> list[Case]:
    if smoke:
        return _smoke()
    # Histories double the time of the slowest; at the largest sizes nobody needs them.
    return [
        _case(problem, _contenders(problem), history=_cells(problem) <= 512**2)
        for problem in _problems()
    ]


def _cells(problem):
    return problem["size"] ** int(problem["params"]["dim"][0])


BENCHMARK = Benchmark(
    "linear", "symmetric positive definite systems on grids to a residual of 1e-6", cases
)
