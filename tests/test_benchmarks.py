"""The benchmark harness: records, worker protocol, interleaving, failures, references, reports."""

import copy
import importlib.util
import json
import subprocess
import sys

import cvxpy as cp
import jax
import numpy as np
import pytest

from benchmarks import (
    _figures,
    _fno_ours,
    _fno_problems,
    _problems,
    _reference,
    neural_operators,
)
from benchmarks.__main__ import load, main, names
from benchmarks._cases import Benchmark, Case, Contender, Settings, geometric_checkpoints
from benchmarks._harness import run_benchmark
from benchmarks._peer_cases import hypergradient_cases, splitting_cases
from benchmarks._records import append_records, check_record, read_records
from benchmarks._report import latest, report


SMALL = {
    "name": "tv_denoise",
    "size": 16,
    "params": {"boundary": "neumann", "lam": 0.1, "sigma": 0.1},
}


def numpy_contender(label="PDHG", **options):
    params = {"tau": 0.35, "sigma": 0.35}
    return Contender("numpy", "benchmarks._peer_numpy", "PDHG", params, label=label, **options)


def faulty(how, calls):
    params = {"how": how, "calls": calls}
    return Contender("numpy", "benchmarks._peer_numpy", "faulty", params, window_steps=2, label=how)


def run(contenders, folder, log=lambda line: None, settings=None, **case):
    """Records by method name, through real workers."""
    benchmark = Benchmark("test", "", lambda smoke: [Case(SMALL, contenders, **case)])
    settings = settings or Settings(repeats=3, smoke=True)
    (records,) = run_benchmark(benchmark, settings, log=log, references=folder)
    assert all(check_record(record) for record in records)
    return {record["method"]["name"]: record for record in records}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One run with every way to end, and its log."""
    folder, lines = tmp_path_factory.mktemp("references"), []
    contenders = [
        numpy_contender("first"),
        faulty("raise", 1),
        faulty("exit", 4),
        faulty("nan", 6),
        numpy_contender("second"),
        numpy_contender("absent", unavailable="there is none"),
        faulty("lack", 1),
    ]
    checkpoints = geometric_checkpoints(2000, 1.4)
    return run(contenders, folder, lines.append, checkpoints=checkpoints), lines


@pytest.fixture
def record(measured):
    return copy.deepcopy(measured[0]["first"])


def test_records_round_trip_and_are_only_appended(tmp_path, record):
    path = tmp_path / "deep" / "records.jsonl"
    append_records(path, [record])
    before = path.read_bytes()
    append_records(path, [record, record])
    assert path.read_bytes().startswith(before)
    assert read_records(path) == [record] * 3


def test_a_wrong_record_writes_nothing(tmp_path, record):
    path = tmp_path / "records.jsonl"
    append_records(path, [record])
    wrong = copy.deepcopy(record)
    del wrong["provenance"]["commit"]
    with pytest.raises(ValueError, match=r"provenance\.commit: missing"):
        append_records(path, [record, wrong])
    assert read_records(path) == [record]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: r.update(extra=1), "unknown fields"),
        (lambda r: r.update(schema_version=0), "schema_version: expected 1, got 0"),
        (lambda r: r.update(seed=True), "seed: expected int, got bool"),
        (lambda r: r.update(dtype="float16"), "dtype"),
        (lambda r: r["problem"].update(size="big"), "problem.size: expected int, got str"),
        (lambda r: r["outcome"].update(result="fine"), "outcome.result"),
        (lambda r: r["outcome"]["metrics"].update(psnr=float("nan")), "metrics.psnr"),
        (lambda r: r["outcome"]["metrics"].update(psnr="good"), "metrics.psnr"),
        (lambda r: r["cost"].update(run_s=[1.0]), "as many cpu_s as run_s"),
        (lambda r: r["cost"]["cpu_s"].__setitem__(0, -1.0), "times >= 0"),
        (lambda r: r.update(provenance=None), "expected an object"),
    ],
)
def test_schema_names_what_is_wrong(record, change, message):
    change(record)
    with pytest.raises(ValueError, match=message):
        check_record(record)


def test_reading_names_the_line(tmp_path, record):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record) + "\n" + '{"schema_version": 1, "ben')
    append_records(path, [record])
    assert len(path.read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="records.jsonl, line 2"):
        read_records(path)


def test_contenders_are_set_up_first_and_timed_in_turn(measured):
    _, lines = measured
    setting_up = [k for k, line in enumerate(lines) if line.endswith("setting up")]
    rounds = [k for k, line in enumerate(lines) if line.startswith("round")]
    assert len(setting_up) == 7 and len(rounds) == 3 and max(setting_up) < rounds[0]
    windows = [line.rsplit("/", 1)[-1] for line in lines if line.startswith("  window")]
    # "exit" uses its calls up: two in set-up, then it dies in the second round.
    assert windows == [*["first", "exit", "nan", "second"] * 2, "first", "nan", "second"]


def test_measurements_are_complete(measured):
    records, _ = measured
    for name in ("first", "second"):
        record = records[name]
        outcome, cost = record["outcome"], record["cost"]
        assert outcome["result"] == "successful"
        assert len(cost["run_s"]) == len(cost["cpu_s"]) == 3 and cost["window_steps"] == 50
        assert cost["compile_s"] >= 0 and cost["peak_bytes"] > 2**20
        path = outcome["trajectory"]
        lengths = {len(path[key]) for key in ("num_steps", "run_s", "cpu_s", "gap", "objective")}
        assert len(lengths) == 1 and path["num_steps"][-1] == outcome["num_steps"]
        assert np.all(np.diff(path["run_s"]) > 0)
        # It stops at the first checkpoint that meets the smallest target, never later.
        assert path["gap"][-1] <= 1e-5 < min(path["gap"][:-1])
        assert [entry["gap"] for entry in outcome["to_gap"]] == [1e-2, 1e-3, 1e-4, 1e-5]
        for entry in outcome["to_gap"]:
            k = path["num_steps"].index(entry["num_steps"])
            assert path["gap"][k] <= entry["gap"] < (path["gap"][:k] or [1])[-1]
        assert record["provenance"]["versions"]["numpy"] == np.__version__
    assert records["first"]["outcome"]["metrics"] == records["second"]["outcome"]["metrics"]


def test_failures_are_kept_with_their_message(measured):
    results = {name: record["outcome"] for name, record in measured[0].items()}
    assert results["raise"]["result"] == "failed"
    assert results["raise"]["message"] == "RuntimeError: a deliberate failure"
    assert results["exit"]["result"] == "crashed"
    assert results["exit"]["message"] == "worker ended with status 3: a deliberate crash"
    assert len(measured[0]["exit"]["cost"]["run_s"]) == 1
    assert results["nan"]["result"] == "non-finite"
    assert results["nan"]["metrics"]["objective"] is None
    assert (results["absent"]["result"], results["absent"]["message"]) == (
        "not available",
        "there is none",
    )
    assert (results["lack"]["result"], results["lack"]["message"]) == (
        "not available",
        "there is none here",
    )


def test_a_hanging_worker_is_stopped(tmp_path):
    settings = Settings(repeats=1, smoke=True, timeout_s=5.0)
    records = run([faulty("hang", 3)], tmp_path, settings=settings, reference=None)
    assert records["hang"]["outcome"]["result"] == "timeout"
    assert "no reply to 'run' within 5 s" in records["hang"]["outcome"]["message"]


def test_missing_peers_are_recorded(tmp_path, monkeypatch):
    peer = Contender("scico", "benchmarks._peer_scico", "PDHG")
    monkeypatch.setenv("JINV_BENCH_SCICO", str(tmp_path / "nowhere"))
    outcome = run([peer], tmp_path, reference=None)["PDHG"]["outcome"]
    assert outcome["result"] == "not installed"
    assert "JINV_BENCH_SCICO" in outcome["message"] and "does not exist" in outcome["message"]
    if importlib.util.find_spec("scico") is None:
        monkeypatch.setenv("JINV_BENCH_SCICO", sys.executable)
        outcome = run([peer], tmp_path, reference=None)["PDHG"]["outcome"]
        assert outcome["result"] == "not installed"
        assert "No module named 'scico'" in outcome["message"]


def test_an_unknown_method_is_named(tmp_path):
    stranger = Contender("numpy", "benchmarks._peer_numpy", "magic")
    outcome = run([stranger], tmp_path, reference=None)["magic"]["outcome"]
    assert outcome["result"] == "failed" and "expected one of" in outcome["message"]


def test_library_reference_is_the_best_found(tmp_path):
    record = run(
        [numpy_contender()],
        tmp_path,
        checkpoints=(1, 5, 20),
        reference="library",
        reference_steps=3000,
    )["PDHG"]
    exact = _reference.reference_of(SMALL, dtype="float32", seed=0, folder=tmp_path)
    assert exact is not None
    found = record["outcome"]["reference"]["values"]["objective"]
    np.testing.assert_allclose(found, exact["values"]["objective"], rtol=1e-6)
    # The extra iterations serve the optimum only: the result is the one at the last checkpoint.
    assert record["outcome"]["num_steps"] == 20
    last = record["outcome"]["trajectory"]["gap"][-1]
    assert record["outcome"]["metrics"]["gap"] == last > 1e-4


def test_report_and_figures_come_from_records(tmp_path, measured):
    records = list(measured[0].values())
    text = report(records)
    assert "## test: tv_denoise neumann 16" in text
    assert "| numpy | exit | crashed |" in text and "a deliberate crash" in text
    assert f"python {sys.version.split()[0]}" in text
    older = copy.deepcopy(records[0])
    older["provenance"]["utc"] = "2000-01-01T00:00:00+00:00"
    older["outcome"]["result"] = "time limit"
    assert latest([*records, older]) == records
    paths = _figures.save_figures(records, tmp_path)
    assert len(paths) == 3 and all(path.stat().st_size > 1000 for path in paths)


def test_command_line(tmp_path, capsys):
    assert "selftest" in names() and load("selftest").name == "selftest"
    assert main(["list"]) == 0
    assert "selftest" in capsys.readouterr().out
    path = tmp_path / "records.jsonl"
    arguments = ["run", "selftest", "--smoke", "--json", str(path), "--only", "numpy/PDHG"]
    assert main([*arguments, "--dtype", "float64", "--seed", "3"]) == 0
    (record,) = read_records(path)
    assert (record["dtype"], record["seed"], len(record["cost"]["run_s"])) == ("float64", 3, 2)
    capsys.readouterr()
    assert main(["report", str(path), "--no-figures"]) == 0
    assert "| numpy | PDHG | successful |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no benchmark 'nothing'"):
        main(["run", "nothing"])
    with pytest.raises(SystemExit, match="matches no contender"):
        main(["run", "selftest", "--smoke", "--json", str(path), "--only", "nobody"])


@pytest.mark.parametrize("boundary", ["neumann", "circular"])
def test_differences_and_their_adjoint(boundary, rng):
    x, p = rng.standard_normal((7, 7)), rng.standard_normal((2, 7, 7))
    left = np.sum(_problems.gradient(x, boundary) * p)
    right = np.sum(x * _problems.gradient_adjoint(p, boundary))
    np.testing.assert_allclose(left, right, rtol=1e-13)
    assert _problems.total_variation(np.ones((5, 5)), boundary) == 0
    step = np.repeat([[0.0, 1.0]], 4, axis=0).repeat(2, axis=1)
    expected = {"neumann": 4.0, "circular": 8.0}[boundary]
    assert _problems.total_variation(step, boundary) == expected


@pytest.mark.parametrize("boundary", ["neumann", "circular"])
@pytest.mark.parametrize("name, lam", [("tv_denoise", 0.1), ("tv_deblur", 0.01)])
def test_reference_agrees_with_a_cone_solver(name, lam, boundary, tmp_path):
    spec = {"name": name, "size": 16, "params": {"boundary": boundary, "lam": lam, "sigma": 0.05}}
    found = _reference.reference_of(spec, dtype="float64", seed=0, folder=tmp_path)
    assert found is not None
    problem = _problems.make_problem(**spec, dtype="float64", seed=0)
    eye = np.eye(256).reshape(256, 16, 16)
    differences = np.stack([_problems.gradient(e, boundary).reshape(2, 256) for e in eye], -1)
    forward = np.eye(256)
    if name == "tv_deblur":
        transfer = _problems.transfer_function(problem.data["psf"], (16, 16))
        forward = np.stack([_problems.circular_blur(e, transfer).ravel() for e in eye], -1)
    x = cp.Variable(256)
    variation = cp.sum(cp.norm(cp.vstack([differences[0] @ x, differences[1] @ x]), 2, axis=0))
    misfit = 0.5 * cp.sum_squares(forward @ x - problem.data["y"].ravel())
    program = cp.Problem(cp.Minimize(misfit + lam * variation))
    program.solve(solver=cp.CLARABEL)
    best, minimiser = float(np.asarray(program.value)), np.asarray(x.value).reshape(16, 16)
    np.testing.assert_allclose(found["values"]["objective"], best, rtol=1e-6)
    assert 0 <= found["certificate"]["relative_gap"] < 1e-6
    # The objective that judges contenders is the one that was minimised.
    np.testing.assert_allclose(problem.objective(minimiser), best, rtol=1e-6)
    again = _reference.reference_of(spec, dtype="float64", seed=0, folder=tmp_path)
    assert again == found and len(list(tmp_path.iterdir())) == 1


def test_lasso_reference_by_finite_differences():
    def outer(shift):
        lam = 0.1 * np.exp(shift)
        spec = {"name": "lasso", "size": 60, "params": {"data": "synthetic", "lam": lam}}
        return _reference._lasso_reference(_problems.make_problem(**spec, dtype="float64", seed=0))[
            "values"
        ]

    slope = (outer(1e-5)["outer_value"] - outer(-1e-5)["outer_value"]) / 2e-5
    np.testing.assert_allclose(outer(0.0)["hypergradient"], slope, rtol=1e-7)


@pytest.mark.slow
def test_tv_weight_reference_by_finite_differences():
    def outer(shift):
        params = {"boundary": "neumann", "lam": 0.1 * np.exp(shift), "sigma": 0.1}
        spec = {"name": "tv_weight", "size": 16, "params": params}
        problem = _problems.make_problem(**spec, dtype="float64", seed=0)
        return _reference._tv_weight_reference(problem)["values"]

    slope = (outer(1e-4)["outer_value"] - outer(-1e-4)["outer_value"]) / 2e-4
    np.testing.assert_allclose(outer(0.0)["hypergradient"], slope, rtol=1e-6)


def test_sinograms_share_their_noise():
    params = {"boundary": "neumann", "num_angles": 6, "lam": 1e-3, "sigma": 0.1}
    problem = _problems.make_problem("tv_ct", 32, params, dtype="float32", seed=0)
    truth = problem.data["truth"]
    assert truth.min() == 0 and 0.9 < truth.max() <= 1 and truth.dtype == np.float32
    clean = np.ones((6, 40), np.float32)
    noisy = _problems.ct_sinogram(problem, clean)
    np.testing.assert_array_equal(_problems.ct_sinogram(problem, clean.T), noisy.T)
    np.testing.assert_allclose(np.std(noisy - clean), 0.1, rtol=0.15)
    with pytest.raises(ValueError, match="clean"):
        _problems.ct_sinogram(problem, np.ones((5, 40)))
    half = _problems.ct_objective(problem, np.zeros((32, 32)), clean, 0 * clean)
    assert half == 0.5 * clean.size


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "nothing"}, "name: expected one of"),
        ({"size": 100}, "size: expected a divisor of 512"),
        ({"params": {"boundary": "odd", "lam": 1.0, "sigma": 0.1}}, "boundary"),
    ],
)
def test_bad_problems_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        problem = _problems.make_problem(**{**SMALL, **spec}, dtype="float32", seed=0)
        problem.objective(problem.data["y"])


def test_checkpoints():
    counts = geometric_checkpoints(500)
    assert counts[:5] == (1, 2, 3, 4, 5) and counts[-1] == 500
    assert all(b <= max(a + 1, round(1.1 * a)) for a, b in zip(counts, counts[1:], strict=False))
    with pytest.raises(ValueError, match="checkpoints"):
        Case(SMALL, [], checkpoints=(3, 2))
    with pytest.raises(ValueError, match="reference"):
        Case(SMALL, [], reference="guess")


@pytest.mark.parametrize("cases", [splitting_cases, hypergradient_cases])
@pytest.mark.parametrize("smoke", [True, False])
def test_peer_cases_are_distinguishable(cases, smoke):
    ours = lambda problem: [numpy_contender("ours")]
    for case in cases(smoke, ours):
        labels = [(contender.library, contender.name) for contender in case.contenders]
        assert len(set(labels)) == len(labels) and labels[0] == ("numpy", "ours")


@pytest.mark.skipif(importlib.util.find_spec("jaxopt") is None, reason="jaxopt is optional")
def test_jaxopt_hypergradient(tmp_path):
    benchmark = Benchmark("hypergradient", "", hypergradient_cases)
    settings = Settings(repeats=1, smoke=True, only="diabetes 10/jaxopt/FISTA 1e-06, lu")
    ((record,),) = run_benchmark(benchmark, settings, log=lambda line: None, references=tmp_path)
    assert record["outcome"]["result"] == "successful", record["outcome"]["message"]
    assert record["outcome"]["metrics"]["hypergradient_error"] < 1e-4
    assert record["cost"]["compile_s"] > 0


@pytest.mark.parametrize("smoke", [True, False])
def test_neural_operators_are_distinguishable(smoke):
    for case in neural_operators.cases(smoke):
        labels = [(contender.library, contender.name) for contender in case.contenders]
        assert len(set(labels)) == len(labels) and labels[0][0] == "jinv"


@pytest.mark.parametrize("channels, gated, gap", [(32, 1192801, 4416), (24, 671113, 2544)])
def test_fourier_operators_have_as_many_weights_as_neuraloperator(channels, gated, gap):
    counts = {
        kind: sum(int(np.prod(s)) for s in _fno_problems.shapes(kind, channels).values())
        for kind in _fno_problems.KINDS
    }
    assert counts["gated"] == gated and counts["plain"] == gated - gap


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("kind", ["gated", "plain"])
def test_fourier_operators_agree_with_their_reference(kind):
    problem = _problems.make_problem(
        "fno_infer", 2, {"side": 20, "channels": 3}, dtype="float64", seed=0
    )
    model = _fno_ours.network(problem, kind)
    found = np.asarray(jax.vmap(model)(problem.data["input"]))
    shapes = _fno_problems.shapes(kind, 3).values()
    assert model.num_weights == sum(int(np.prod(shape)) for shape in shapes)
    assert _fno_problems.error_of_output(problem, kind, found) < 1e-12
    assert _fno_problems.error_of_output(problem, kind, found + 1e-3 * np.max(found)) > 1e-4


@pytest.mark.usefixtures("quick_compilation")
def test_steps_of_operators_are_judged_by_two_losses():
    problem = _problems.make_problem(
        "fno_step", 2, {"side": 20, "channels": 2}, dtype="float64", seed=0
    )
    contender = _fno_ours.METHODS["step"](problem, {"kind": "gated"})
    contender.restart()
    contender.run(3)
    metrics = contender.metrics(problem)
    assert metrics["error"] < 1e-12 and len(contender.losses) == 10
    assert contender.losses[0] == metrics["first_loss"] > metrics["loss"] == contender.losses[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_an_action_is_its_peak():
    program = """
import numpy as np
from benchmarks._mgno_measures import resident_rise
kept = [np.ones(3000) for _ in range(4000)]
del kept
short = lambda: np.ones(5 << 20).sum() + np.ones(2 << 20).sum()
print(resident_rise(lambda: None), resident_rise(short), resident_rise(short))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    nothing, first, second = (int(word) / 2**20 for word in done.stdout.split())
    assert nothing < 1 and abs(first - 40) < 1 and abs(second - 40) < 1
