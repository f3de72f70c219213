"""The benchmark of learned proximal networks: its reference, and that its cases are distinct."""

import jax
import numpy as np
import pytest

from benchmarks import _lpn_ours, lpn
from benchmarks._lpn_problems import prox
from benchmarks._problems import make_problem


pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMS = {"side": 9, "channels": 8, "hidden": 5}


def test_the_reference_in_numpy_is_the_gradient_of_the_network():
    problem = make_problem("lpn_prox", 3, PARAMS, dtype="float64", seed=0)
    found = jax.vmap(_lpn_ours.network(problem).gradient)(problem.data["noisy"])
    np.testing.assert_allclose(found, prox(problem.data, problem.data["noisy"]), atol=1e-12)
    assert problem.objective(np.asarray(found)) < 1e-12


def test_a_training_step_is_judged_by_its_loss():
    problem = make_problem("lpn_step", 3, PARAMS, dtype="float64", seed=0)
    contender = _lpn_ours.METHODS["step"](problem, {})
    contender.restart()
    contender.run(1)
    metrics = contender.metrics(problem)
    assert metrics["error"] < 1e-12 and 0.01 < metrics["loss"] < 0.99


@pytest.mark.parametrize("smoke", [True, False])
def test_contenders_can_be_told_apart(smoke):
    for case in lpn.cases(smoke):
        labels = [(contender.library, contender.name) for contender in case.contenders]
        assert len(set(labels)) == len(labels)
