"""The imaging part of the benchmark of learned proximal networks, on tiny crops."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest

import jinv
from benchmarks import _lpn_imaging, _lpn_report
from benchmarks._lpn_imaging_cases import imaging_cases
from benchmarks._problems import make_problem
from benchmarks._report import report


pytestmark = pytest.mark.usefixtures("quick_compilation")

FEW = {"crops": 1, "tuning": 1, "photographs": 2}
TASKS = [
    {"task": "denoising", "noise": 0.05},
    {"task": "deblurring", "noise": 0.02},
    {"task": "inpainting", "noise": 0.02, "kept": 0.5},
    {"task": "sensing", "noise": 0.02, "kept": 0.25},
    {"task": "tomography", "noise": 0.5, "angles": 9},
]


def problem_of(task, size=12):
    return make_problem("imaging", size, {**task, **FEW}, dtype="float64", seed=0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["task"])
def test_data_terms_are_scaled_to_norm_one(task):
    problem = problem_of(task)
    assert not np.isclose(problem.data["truth"].mean(), problem.data["tuning"].mean())
    found = _lpn_imaging._Task(problem, "truth")
    fit = found.fit(found.data[0], found.mask[0])
    assert 0.9 < float(jnp.asarray(fit.lipschitz())) < 1.001
    if task["task"] in ("inpainting", "sensing"):
        assert abs(np.mean(problem.data["mask_truth"]) - task["kept"]) < 0.1
    # The truth explains the data up to the noise, of which the missing entries have none.
    expected = 0.5 * found.noise**2 * float(jnp.sum(found.mask[0]))
    assert 0.6 * expected < fit(found.truth[0]) < 1.5 * expected
    assert found.start(found.data[0], found.mask[0]).shape == (12, 12)


def test_tuning_goes_uphill_and_is_not_led_astray():
    asked = []

    def score(knob):
        asked.append(knob)
        return np.array([-10.0, np.nan if knob > 30 else -abs(np.log(knob / 7))])

    best, tried = _lpn_imaging.tune(score, 1.0, 1.5)
    assert best == pytest.approx(1.5**5) and len(asked) == len(set(asked)) == len(tried) == 8


def test_total_variation_is_tuned_and_judged_image_by_image():
    problem = problem_of(TASKS[0], 16)
    params = {"first": 10.0, "ratio": 2.0, "max_steps": 40}
    contender = _lpn_imaging.METHODS["tv"](problem, params)
    contender.restart()
    contender.run(1)
    metrics = contender.metrics(problem)
    noisy = jinv.metrics.psnr(contender._task.data, contender._task.truth)
    assert metrics["images"] == 2 and metrics["psnr"] > noisy and np.isnan(metrics["certified"])
    history = contender.history(problem)
    assert metrics["knob"] == history["knob"][int(np.argmax(history["tuning_psnr"]))]


def test_a_learned_prior_is_certified_and_a_denoiser_is_not():
    problem, params = problem_of(TASKS[0], 12), {"max_steps": 10}
    priors = ("lpn", "convolutional")
    found = {}
    for prior in priors:
        contender = _lpn_imaging.METHODS["learned"](problem, {"prior": prior, **params})
        contender.run(1)
        found[prior] = contender.metrics(problem)
        assert contender.n_weights > 100
    assert [found[prior]["certified"] for prior in priors] == [1.0, 0.0]


@pytest.mark.parametrize("smoke", [True, False])
def test_contenders_can_be_told_apart(smoke):
    for case in imaging_cases(smoke):
        labels = [contender.name for contender in case.contenders]
        assert labels and len(set(labels)) == len(labels)
        assert {contender.method for contender in case.contenders} <= set(_lpn_imaging.METHODS)


def test_the_report_has_a_table_of_its_own():
    method = {"library": "jinv", "name": "LPN, PGD", "params": {}, "n_weights": 3}
    metrics = {"images": 2.0, "psnr": 30.0, "psnr_sd": 2.0, "ssim": 0.9, "certified": None}
    outcome = {"result": "successful", "message": "", "num_steps": None, "metrics": metrics}
    times = {"compile_s": 1.0, "setup_s": 2.0, "run_s": [4.0], "cpu_s": [4.0]}
    cost = {**times, "window_steps": 1, "peak_bytes": None}
    origin = dict.fromkeys(("commit", "dirty", "backend", "device", "load_average"))
    record = {
        "benchmark": "lpn",
        "problem": {"name": "imaging", "size": 64, "params": dict(TASKS[0])},
        "method": method,
        "seed": 0,
        "dtype": "float64",
        "outcome": outcome,
        "cost": cost,
        "provenance": {**origin, "device": "cpu", "versions": {}, "threads": 1, "utc": "2026"},
    }
    (row,) = _lpn_report.rows([record])
    assert len(row) == len(_lpn_report.HEADER) and "30.00 ± 2.00" in row and 2.0 in row
    other = copy.deepcopy(record)
    other["problem"]["name"] = "imaging_prior"
    assert "30.00 ± 2.00" in report([record]) and "30.00 ± 2.00" not in report([other])
