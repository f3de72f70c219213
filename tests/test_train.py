"""Training: closed forms, exact resumption, several devices, and what stops a run."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jinv.nn._convolution import convolve
from jinv.train import Minibatches, TrainStep, fit, replicate, shard_batch
from jinv.train._compiled import Pace


pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(7)
A = jax.random.normal(jax.random.key(0), (24, 3))
B = jax.random.normal(jax.random.key(1), (24,))
SOLUTION = jnp.asarray(np.linalg.lstsq(A, B)[0])


def squares(w, batch, key):
    a, b = batch
    return jnp.mean(jnp.abs(a @ w - b) ** 2)


def everything(key, step):
    return A, B


def noisy(model, batch, key):
    """A loss with all that has to be resumed: dropout, noise, metrics."""
    x, y = batch
    keep = jax.random.bernoulli(key, 0.8, x.shape)
    error = jax.vmap(model)(jnp.where(keep, x, 0))[:, 0] - y
    return jnp.mean(error**2), {"largest": jnp.max(jnp.abs(error))}


def network(dtype=None):
    return eqx.nn.MLP(3, 1, 5, 1, jax.nn.tanh, key=jax.random.key(2), dtype=dtype)


ADAM = optax.adam(1e-2)
SAMPLES = Minibatches((A, B), 8)


def run(num_steps=23, batches: Any = SAMPLES, loss: Any = noisy, model: Any = None, **options: Any):
    options = {"optimiser": ADAM, "log_every": 5, "progress": False, "key": KEY, **options}
    model = network() if model is None else model
    return fit(loss, model, batches, num_steps=num_steps, **options)


def assert_same(got, expected):
    assert bool(eqx.tree_equal(got.state, expected.state))
    assert bool(eqx.tree_equal(got.model, expected.model))
    assert got.history == expected.history


class Interrupting:
    """Samples on the host like `SAMPLES`, with Ctrl-C before one of the steps."""

    def __init__(self, step, error: type[BaseException] = KeyboardInterrupt):
        self.step, self.error = step, error

    def __call__(self, key, step):
        if step == self.step:
            self.step = None
            raise self.error
        return SAMPLES(key, step)


# What is computed.


def test_least_squares_ends_at_the_normal_equations():
    rate = 12 / float(jnp.linalg.norm(A, 2)) ** 2
    fitted = run(400, everything, squares, jnp.zeros(3), optimiser=optax.sgd(rate))
    np.testing.assert_allclose(fitted.model, SOLUTION, atol=1e-10)
    assert fitted.history[-1]["gradient_norm"] < 1e-9


def test_random_batches_end_near_the_normal_equations():
    # Every batch has the same solution if the data are exact.
    exact = Minibatches((A, A @ SOLUTION), 8)
    fitted = run(400, exact, squares, jnp.zeros(3), optimiser=optax.adam(0.05))
    np.testing.assert_allclose(fitted.model, SOLUTION, atol=1e-6)


def test_complex_least_squares():
    a = jax.lax.complex(A, jax.random.normal(jax.random.key(3), A.shape))
    b = jax.lax.complex(B, -2 * B)
    rate = 12 / float(jnp.linalg.norm(a, 2)) ** 2
    w = jnp.zeros(3, complex)
    fitted = run(400, lambda key, step: (a, b), squares, w, optimiser=optax.sgd(rate))
    np.testing.assert_allclose(fitted.model, np.linalg.lstsq(a, b)[0], atol=1e-9)


def test_one_step_is_the_formula():
    w = jnp.array([1.0, -1.0, 2.0])
    step = TrainStep(squares, optax.sgd(0.1))
    state, metrics = eqx.filter_jit(step)(step.init(w), (A, B), key=KEY)
    gradient = 2 / 24 * A.T @ (A @ w - B)
    np.testing.assert_allclose(state.model, w - 0.1 * gradient, rtol=1e-13)
    np.testing.assert_allclose(metrics["loss"], np.mean((A @ w - B) ** 2), rtol=1e-13)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-13)
    assert (int(state.step), int(state.skipped)) == (1, 0)


def test_minibatches_sample_uniformly():
    batches = Minibatches({"index": jnp.arange(5), "square": jnp.arange(5) ** 2}, 50_000)
    batch = batches(KEY, 0)
    assert np.array_equal(batch["index"] ** 2, batch["square"])
    np.testing.assert_allclose(np.bincount(batch["index"]) / 50_000, 0.2, atol=0.01)


def test_average_follows_its_recursion():
    step = TrainStep(squares, optax.sgd(0.1), ema_decay=0.3)
    state = step.init(jnp.zeros(3))
    expected = np.zeros(3)
    for n in range(5):
        state, _ = step(state, (A, B), key=KEY)
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * np.asarray(state.model)
    np.testing.assert_allclose(state.averaged, expected, rtol=1e-6)
    assert not np.allclose(state.averaged, state.model)


@pytest.mark.parametrize("as_function", [False, True])
def test_only_the_trainable_is_trained(as_function):
    model = eqx.tree_at(lambda m: m.layers[0].bias, network(), np.full(5, 0.5))
    spec: Any = jax.tree.map(lambda _: False, model)
    spec = eqx.tree_at(lambda s: s.layers[1], spec, True)
    if as_function:
        spec = lambda leaf: eqx.is_array(leaf) and leaf.shape in [(1, 5), (1,)]
    trained = run(3, model=model, trainable=spec).model
    assert np.array_equal(trained.layers[0].weight, model.layers[0].weight)
    assert np.array_equal(trained.layers[0].bias, model.layers[0].bias)
    assert not np.any(trained.layers[1].weight == model.layers[1].weight)
    assert not np.any(trained.layers[1].bias == model.layers[1].bias)


def test_accumulated_gradients_are_those_of_the_large_batch():
    several = optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation()
    third = lambda key, step: (
        jax.lax.dynamic_slice_in_dim(A, step % 3 * 8, 8),
        jax.lax.dynamic_slice_in_dim(B, step % 3 * 8, 8),
    )
    small = run(12, third, squares, jnp.zeros(3), optimiser=several)
    large = run(4, everything, squares, jnp.zeros(3), optimiser=optax.adam(0.1))
    np.testing.assert_allclose(small.model, large.model, rtol=1e-6)


def test_history_has_the_means_and_the_validation():
    largest = lambda model: {"largest": jnp.max(jnp.abs(model))}
    options = {"optimiser": optax.sgd(0.1), "validate": largest}
    often = run(7, everything, squares, jnp.zeros(3), log_every=1, **options)
    seldom = run(7, everything, squares, jnp.zeros(3), log_every=4, **options)
    assert [record["step"] for record in seldom.history] == [4, 7]
    for name in ("loss", "gradient_norm"):
        values = [record[name] for record in often.history]
        expected = [np.mean(values[:4]), np.mean(values[4:])]
        np.testing.assert_allclose([r[name] for r in seldom.history], expected, rtol=1e-14)
    assert seldom.history[-1]["validation_largest"] == float(jnp.max(jnp.abs(seldom.model)))


@pytest.mark.parametrize("host_batches", [False, True])
def test_every_step_has_keys_of_its_own(host_batches):
    draw = lambda w, batch, key: (w**2, {"batch": batch, "own": jax.random.uniform(key)})
    batches = lambda key, step: jax.random.uniform(key)
    history = run(9, batches, draw, jnp.array(1.0), log_every=1, host_batches=host_batches).history
    assert len({record[name] for record in history for name in ("batch", "own")}) == 18


def test_single_precision_stays():
    data = Minibatches((A.astype(jnp.float32), B.astype(jnp.float32)), 8)
    fitted = run(2, data, model=network(jnp.float32), ema_decay=0.9)
    leaves = jax.tree.leaves(eqx.filter((fitted.state, fitted.model), eqx.is_inexact_array))
    assert {str(leaf.dtype) for leaf in leaves} == {"float32"}


# Transforms.


def test_a_fit_compiles_once():
    traces = []

    def counted(model, batch, key):
        traces.append(None)
        return noisy(model, batch, key)

    # A weakly typed weight would compile the second step again.
    weak = eqx.tree_at(lambda m: m.layers[1].bias, network(), jnp.full(1, 0.0))
    assert weak.layers[1].bias.weak_type
    for key in (KEY, jax.random.key(8)):
        run(5, loss=counted, model=weak, key=key, log_every=2)
    assert len(traces) == 1


def test_scan_and_vmap_are_the_loop():
    step = TrainStep(squares, ADAM)
    starts = jnp.stack([jnp.zeros(3), jnp.ones(3)])

    def train(w):
        body = lambda state, key: step(state, (A, B), key=key)
        return jax.lax.scan(body, step.init(w), jax.random.split(KEY, 6))

    states, metrics = jax.jit(jax.vmap(train))(starts)
    for lane, w in enumerate(starts):
        state, jitted = step.init(w), eqx.filter_jit(step)
        for n in range(6):
            state, alone = jitted(state, (A, B), key=KEY)
            np.testing.assert_allclose(metrics["loss"][lane, n], alone["loss"], rtol=1e-12)
        np.testing.assert_allclose(states.model[lane], state.model, rtol=1e-12)


@pytest.mark.parametrize("host_batches", [False, True])
def test_two_devices_compute_what_one_does(host_batches):
    options = {"host_batches": host_batches, "ema_decay": 0.9}
    one, two = run(**options), run(**options, devices=jax.devices()[:2])
    arrays = jax.tree.leaves(eqx.filter(two.state, eqx.is_array))
    assert all(len(x.devices()) == 2 and x.sharding.is_fully_replicated for x in arrays)
    for a, b in zip(arrays, jax.tree.leaves(eqx.filter(one.state, eqx.is_array)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    for got, expected in zip(two.history, one.history, strict=True):
        assert got == pytest.approx(expected, rel=1e-10)


def test_a_sharded_step_by_hand():
    devices = jax.devices()[:2]
    step = TrainStep(squares, ADAM)
    batch = shard_batch((A, B), devices)
    assert [x.addressable_shards[0].data.shape for x in batch] == [(12, 3), (12,)]
    start = step.init(jnp.ones(3))
    state, _ = eqx.filter_jit(step)(replicate(start, devices), batch, key=KEY)
    alone, _ = eqx.filter_jit(step)(start, (A, B), key=KEY)
    np.testing.assert_allclose(state.model, alone.model, rtol=1e-12)


def test_a_sharded_run_resumes_on_one_device(tmp_path):
    run(10, checkpoint=tmp_path, devices=jax.devices()[:2])
    resumed = run(checkpoint=tmp_path)
    np.testing.assert_allclose(resumed.history[-1]["loss"], run().history[-1]["loss"], rtol=1e-10)


# Resuming.

FULL = {"ema_decay": 0.9, "optimiser": optax.chain(optax.add_noise(0.1, 0.5, 3), ADAM)}


@pytest.mark.parametrize("stop", [1, 7, 10, 22])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, stop):
    options = {**FULL, "host_batches": True, "save_every": 5, "checkpoint": tmp_path}
    with pytest.warns(RuntimeWarning, match=f"interrupted after step {stop} of 23; the checkpoint"):
        partial = run(batches=Interrupting(stop), **options)
    assert int(partial.state.step) == stop and len(partial.history) == stop // 5
    resumed = run(batches=Interrupting(None), **options)
    assert_same(resumed, run(batches=SAMPLES, host_batches=True, **FULL))
    # Where batches are made does not matter either, and a complete run returns at once.
    assert_same(run(checkpoint=tmp_path, **FULL), resumed)


@pytest.fixture
def calls(monkeypatch):
    """How many steps each call takes."""
    found, timed = [], Pace.timed

    def noted(self, call, *args, count):
        found.append(count)
        return timed(self, call, *args, count=count)

    monkeypatch.setattr(Pace, "timed", noted)
    return found


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_number_of_steps_in_a_call_changes_no_bit(monkeypatch, calls, most):
    full = run(**FULL)
    assert sum(calls) == 23 and len(calls) < 10
    fewer = lambda self, done, *until: min(most, *(each - done % each for each in until))
    monkeypatch.setattr(Pace, "steps", fewer)
    calls.clear()
    assert_same(run(**FULL), full)
    assert sum(calls) == 23 and max(calls) == most


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="convolutions in loops are slow on CPUs")
@pytest.mark.parametrize("own", [True, False])
def test_steps_with_convolutions_of_xla_are_calls_of_their_own(calls, own):
    class Net(eqx.Module):
        weight: Any = eqx.field(default_factory=lambda: jnp.full((3, 3, 1, 1), 0.1))

        def __call__(self, x):
            if own:
                return convolve(x, self.weight, 1)
            layout = ("NHWC", "HWIO", "NHWC")
            act = jax.checkpoint(
                lambda x, w: jax.lax.conv_general_dilated(
                    x[None], w, (1, 1), "SAME", dimension_numbers=layout
                )[0]
            )
            return act(x, self.weight)

    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 1)))
    loss = lambda model, batch, key: jnp.mean((jax.vmap(model)(batch) - batch) ** 2)
    fitted = run(12, batches=lambda key, step: images, loss=loss, model=Net())
    assert sum(calls) == 12 and (max(calls) == 1) == (not own)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path):
    options = {**FULL, "host_batches": True, "save_every": 4, "checkpoint": tmp_path}
    with pytest.raises(MemoryError):
        run(batches=Interrupting(11, MemoryError), **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "8"]
    # A save that was cut off leaves a folder of another name, which is no checkpoint.
    (tmp_path / "11.orbax-checkpoint-tmp").mkdir()
    assert_same(run(checkpoint=tmp_path, **FULL), run(**FULL))


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    run(10, checkpoint=tmp_path)
    assert_same(run(20, checkpoint=tmp_path), run(20))


def test_interruption_in_the_validation_repeats_it(tmp_path):
    def validate(model, stop=[True]):  # noqa: B006
        if stop and model.layers[0].weight[0, 0] != network().layers[0].weight[0, 0]:
            stop.clear()
            raise KeyboardInterrupt
        return {"weight": model.layers[0].weight[0, 0]}

    with pytest.warns(RuntimeWarning, match="interrupted after step 5"):
        partial = run(checkpoint=tmp_path, validate=validate)
    assert partial.history == []
    assert_same(run(checkpoint=tmp_path, validate=validate), run(validate=validate))


def test_interruption_without_a_checkpoint_returns_what_there_is():
    with pytest.warns(RuntimeWarning, match="after step 3 of 23; there is no checkpoint"):
        partial = run(batches=Interrupting(3), host_batches=True)
    assert bool(eqx.tree_equal(partial.model, run(3).model))


def test_keys_of_the_old_kind_and_empty_arrays(tmp_path):
    model = {"w": jnp.zeros(3), "none": jnp.zeros((0, 2)), "count": jnp.arange(2), "key": KEY}
    loss = lambda m, batch, key: squares(m["w"], batch, key)
    options = {"loss": loss, "model": model, "key": jax.random.PRNGKey(3), "batches": everything}
    run(4, checkpoint=tmp_path, **options)
    assert_same(run(8, checkpoint=tmp_path, log_every=4, **options), run(8, log_every=4, **options))


# What goes wrong.


def poisoned(at, what=jnp.nan):
    """All data, but a value in them is not finite at some steps."""
    at = jnp.asarray(at, jnp.int32)
    return lambda key, step: (A, jnp.where(jnp.any(at == step), what, B))


@pytest.mark.parametrize("what", [jnp.nan, jnp.inf, 1e200])
def test_a_step_that_is_not_finite_changes_nothing(what):
    step = TrainStep(squares, ADAM, ema_decay=0.9)
    state, _ = step(step.init(jnp.ones(3)), (A, B), key=KEY)
    after, metrics = step(state, (A, B.at[3].set(what)), key=KEY)
    assert (int(after.step), int(after.skipped)) == (2, 1)
    assert not np.isfinite(metrics["loss"])
    undone = eqx.tree_at(lambda s: (s.step, s.skipped), after, (state.step, state.skipped))
    assert bool(eqx.tree_equal(undone, state))


def test_an_infinite_gradient_of_a_finite_loss_is_caught():
    root = lambda w, batch, key: jnp.sqrt(w)
    with pytest.raises(FloatingPointError, match=r"step 1 .* \(loss 0.0, .* gradient inf\)"):
        run(3, everything, root, jnp.array(0.0))


def test_infinite_weights_are_never_saved(tmp_path):
    # The loss and the gradient are finite, and the weights after the step would not be.
    huge = optax.sgd(1e308)
    with pytest.raises(FloatingPointError, match="step 1 .* no checkpoint in .* yet"):
        run(3, everything, squares, jnp.full(3, 100.0), optimiser=huge, checkpoint=tmp_path)
    state = TrainStep(squares, huge).init(jnp.full(3, 100.0))
    after, metrics = TrainStep(squares, huge)(state, (A, B), key=KEY)
    assert np.isfinite(metrics["gradient_norm"]) and not metrics["finite"]
    assert np.array_equal(after.model, state.model)


def test_half_precision_gradients_do_not_overflow_in_their_norm():
    loss = lambda w, batch, key: jnp.sum(1000 * w.astype(jnp.float32))
    step = TrainStep(loss, optax.sgd(1e-3))
    state, metrics = step(step.init(jnp.zeros(4, jnp.float16)), None, key=KEY)
    assert float(metrics["gradient_norm"]) == 2000 and metrics["finite"]
    np.testing.assert_allclose(state.model, -1, rtol=1e-3)


def test_nan_stops_and_the_checkpoint_stands(tmp_path):
    options = {"loss": squares, "model": jnp.zeros(3), "save_every": 4}
    with pytest.raises(FloatingPointError, match="step 11 .*checkpoint of step 8 in .* stands"):
        run(batches=poisoned([10]), checkpoint=tmp_path, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "8"]
    assert_same(
        run(checkpoint=tmp_path, batches=everything, **options), run(batches=everything, **options)
    )
    with pytest.raises(FloatingPointError, match="no checkpoint in .* yet"):
        run(batches=poisoned([1]), checkpoint=tmp_path / "new", **options)
    with pytest.raises(FloatingPointError, match="there is no `checkpoint`"):
        run(batches=poisoned([1]), **options)


def test_skipped_steps_can_be_allowed():
    options = {"loss": squares, "model": jnp.zeros(3), "max_skipped": 2}
    fitted = run(batches=poisoned([3, 10]), **options)
    assert int(fitted.state.skipped) == 2 and int(fitted.state.step) == 23
    assert bool(eqx.tree_equal(fitted.model, run(21, everything, squares, jnp.zeros(3)).model))
    assert all(np.isfinite(list(record.values())).all() for record in fitted.history)
    with pytest.raises(FloatingPointError, match="step 13 "):
        run(batches=poisoned([3, 10, 12]), **options)
    with pytest.raises(FloatingPointError, match="step 13 "):
        run(batches=poisoned([3, 10, 12, 13]), **options)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        ({"save_every": 0}, "`save_every` must be at least 1"),
        ({"log_every": -1}, "`log_every` must be at least 1"),
        ({"max_skipped": -1}, "`max_skipped` must not be negative"),
        ({"ema_decay": 1.0}, "`ema_decay` must be in"),
        ({"trainable": False}, "`trainable` must choose"),
        ({"devices": []}, "`devices` must be at least one device"),
        ({"devices": jax.devices()[:1] * 2}, "`devices` must be .* each once"),
        (
            {"devices": jax.devices()[:2], "batches": Minibatches((A, B), 5)},
            r"divisible by the 2 `devices`, got an array of shape \(5, 3\)",
        ),
        ({"loss": lambda m, batch, key: batch[1]}, r"`loss` must return a real .* shape \(8,\)"),
        (
            {"loss": lambda m, batch, key: jax.lax.complex(batch[1][0], 0.0)},
            "`loss` must return a real",
        ),
        (
            {"loss": lambda m, batch, key: (m(batch[0][0])[0], {"all": batch[1]})},
            r"scalars .* got 'all' of shape \(8,\)",
        ),
        (
            {"loss": lambda m, batch, key: (m(batch[0][0])[0], {"loss": 1.0})},
            "not named loss, gradient_norm or finite",
        ),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


@pytest.mark.parametrize(
    "data, size, message",
    [
        ((A, B[:5]), 2, r"`data` must be arrays .* got \[5, 24\]"),
        ((), 2, "`data` must be"),
        (jnp.zeros((0, 2)), 2, "`data` must be"),
        (A, 0, "`batch_size` must be at least 1"),
    ],
)
def test_wrong_data(data, size, message):
    with pytest.raises(ValueError, match=message):
        Minibatches(data, size)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    run(6, checkpoint=folder)
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"model": eqx.nn.MLP(3, 1, 4, 1, jax.nn.tanh, key=KEY)},
            r"another model.*\.model\.layers\[0\]\.weight has shape \(5, 3\), expected \(4, 3\)",
        ),
        ({"model": network(jnp.float32)}, "has dtype float64, expected float32"),
        ({"optimiser": optax.sgd(0.1)}, r"\.opt_state.* is unknown"),
        ({"ema_decay": 0.9}, r"\.average\..* is missing"),
        ({"key": jax.random.key(8)}, "another `key`"),
        ({"num_steps": 5}, "`num_steps` is 5, but `checkpoint` is at step 6"),
    ],
)
def test_the_checkpoint_of_something_else(checkpoint, change, message):
    with pytest.raises(ValueError, match=message):
        run(checkpoint=checkpoint, **change)


def test_a_checkpoint_that_cannot_be_read(tmp_path):
    run(6, checkpoint=tmp_path, save_every=3)
    for path in (tmp_path / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="6 cannot be read; without this folder"):
        run(checkpoint=tmp_path)
    (tmp_path / "6").rename(tmp_path / "damaged")
    assert_same(run(checkpoint=tmp_path), run())


def test_a_checkpoint_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`checkpoint` must be a folder"):
        run(checkpoint=tmp_path / "file")


# What is shown.


def test_progress(capfd):
    run(6)
    assert capfd.readouterr() == ("", "")
    run(6, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "6/6" in err and "loss=" in err
