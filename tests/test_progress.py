"""The progress meter: off by default, one bar under `vmap`."""

import jax
import jax.numpy as jnp
import pytest

import jinv

from .helpers import CASES


def _run(case, weight, meter):
    theta = {**case.theta, "weight": weight}
    return case.solve(theta, progress_meter=meter, max_steps=200).value


def test_silent_by_default(capfd):
    case = CASES["lasso-ProximalGradient"]
    jax.block_until_ready(_run(case, case.theta["weight"], None))
    jax.effects_barrier()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("batched", [False, True])
def test_one_bar(capfd, batched):
    case, meter = CASES["lasso-ProximalGradient"], jinv.TqdmProgressMeter(refresh_steps=20)
    run = jax.jit(lambda w: _run(case, w, meter))
    weights = jnp.asarray([0.1, 1.0, 100.0])
    jax.block_until_ready(jax.vmap(run)(weights) if batched else run(weights[0]))
    jax.effects_barrier()
    out, err = capfd.readouterr()
    assert out == "" and "residual=" in err
    # A bar that is closed ends its line; the slowest lane takes all steps.
    assert err.count("\n") == 1
    assert "200/200" in err.splitlines()[-1].split("\r")[-1]


def test_bars_are_closed_and_forgotten(capfd):
    from jinv._progress import _BARS

    case, meter = CASES["lasso-FISTA"], jinv.TqdmProgressMeter()
    for weight in (0.5, 1.0):
        jax.block_until_ready(_run(case, jnp.asarray(weight), meter))
    jax.effects_barrier()
    assert not _BARS._bars


def test_gradient_and_optimistix_with_a_meter(capfd):
    case, meter = CASES["lasso-FISTA"], jinv.TqdmProgressMeter()
    for adjoint in (jinv.ImplicitAdjoint(), jinv.UnrollAdjoint()):
        loss = lambda t, a=adjoint: jnp.sum(case.solve(t, a, progress_meter=meter).value)
        plain = lambda t, a=adjoint: jnp.sum(case.solve(t, a).value)
        got, expected = jax.grad(loss)(case.theta), jax.grad(plain)(case.theta)
        assert jnp.allclose(got["weight"], expected["weight"])
    jax.effects_barrier()
