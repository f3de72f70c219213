"""Model choice, batches made ahead, mixed precision, several seeds, and a run that is killed."""

import errno
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jinv import nn, train


pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(7)
# The same for all, so that they compile once.
SGD, ADAM = optax.sgd(0.1), optax.adam(1e-2)


def assert_same(got, expected):
    assert bool(eqx.tree_equal(got.state, expected.state))
    assert bool(eqx.tree_equal(got.model, expected.model))
    assert got.history == expected.history


# Early stop. The weight falls by 0.1 in each step from 1, and is best after six.


def slope(w, batch, key):
    return w


def nothing(key, step):
    return 0.0


def distance(w):
    return {"distance": abs(w - 0.42), "other": -w}


def fall(num_steps=20, loss: Any = slope, **options: Any):
    options = {"validate": distance, "monitor": "distance", "log_every": 1, **options}
    options = {"optimiser": SGD, "key": KEY, "progress": False, **options}
    batches = options.pop("batches", nothing)
    return train.fit(loss, jnp.array(1.0), batches, num_steps=num_steps, **options)


def test_the_best_model_is_returned_and_the_run_stops():
    fitted = fall(patience=3)
    assert int(fitted.state.step) == 9 and fitted.complete
    assert [record["step"] for record in fitted.history] == list(range(1, 10))
    assert fitted.model == fall(6, monitor=None).model
    np.testing.assert_allclose(fitted.model, 0.4)
    whole = fall()
    assert int(whole.state.step) == 20 and whole.model == fitted.model
    # Fewer records: of 4 and 8 steps the first is better.
    seldom = fall(patience=1, log_every=4)
    np.testing.assert_allclose(seldom.model, 0.6)
    assert int(seldom.state.step) == 8


def test_the_averaged_model_is_chosen():
    fitted = fall(ema_decay=0.5)
    best = min(fitted.history, key=lambda record: record["validation_distance"])
    until = fall(best["step"], ema_decay=0.5, monitor=None)
    assert fitted.model == until.state.averaged != until.state.model


def test_of_equal_records_the_first_is_kept():
    fitted = fall(validate=lambda w: {"steps": max(float(w), 0.65)}, monitor="steps", patience=2)
    assert int(fitted.state.step) == 6
    np.testing.assert_allclose(fitted.model, 0.6)


def test_a_validation_that_is_not_finite_is_never_the_best():
    until = lambda w: {"distance": distance(w)["distance"] if w < 0.65 else jnp.nan}
    np.testing.assert_allclose(fall(validate=until, patience=4).model, 0.4)
    # Without a finite one the patience ends too, and there is no best model.
    never = fall(validate=lambda w: {"distance": jnp.inf}, patience=4)
    assert int(never.state.step) == 4 and never.model == never.state.model


@pytest.mark.parametrize("stop", [3, 8])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.filterwarnings("ignore:interrupted after step")
def test_early_stop_and_best_model_are_exact_under_resume(tmp_path, stop, error):
    stops = [stop]

    def batches(key, step):
        if [step] == stops:
            stops.clear()
            raise error
        return 0.0

    options = {"batches": batches, "host_batches": True, "patience": 3, "ema_decay": 0.2}
    options |= {"checkpoint": tmp_path, "save_every": 2}
    if error is MemoryError:
        with pytest.raises(error):
            fall(**options)
    else:
        assert not fall(**options).complete
    whole = fall(patience=3, ema_decay=0.2)
    assert_same(fall(**options), whole)
    # A run that is over returns at once, and with more patience goes on.
    stops.append(int(whole.state.step))
    assert_same(fall(**options), whole)
    stops.clear()
    assert_same(fall(**options | {"patience": 5}), fall(patience=5, ema_decay=0.2))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"validate": None}, "`monitor` needs `validate`"),
        ({"monitor": None, "patience": 3}, "`patience` needs `monitor`"),
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
        ({"monitor": "loss"}, r"`monitor` must be one of .*\['distance', 'other'\], got 'loss'"),
        ({"prefetch": 1}, "`prefetch` needs `host_batches=True`"),
        ({"prefetch": -1, "host_batches": True}, "`prefetch` must not be negative"),
    ],
)
def test_wrong_options(change, message):
    with pytest.raises(ValueError, match=message):
        fall(**change)


def test_the_best_model_by_another_number_is_not_there(tmp_path):
    fall(4, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="`monitor` is 'other', .* best model by 'distance'"):
        fall(8, checkpoint=tmp_path, monitor="other")
    plain = fall(8, checkpoint=tmp_path, monitor=None)
    assert plain.model == plain.state.model
    with pytest.raises(ValueError, match="best model by None"):
        fall(9, checkpoint=tmp_path)


# Batches made ahead.

A = np.random.default_rng(0).normal(size=(22, 3))


def mean_square(w, batch, key):
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


def on_host(batches, num_steps=12, **options: Any):
    options = {"host_batches": True, "prefetch": 2, "log_every": 4, **options}
    options = {"optimiser": ADAM, "key": KEY, "progress": False, **options}
    return train.fit(mean_square, jnp.zeros(3), batches, num_steps=num_steps, **options)


def loaders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jinv-batches")]


class Lazy:
    """A variable of a file that counts what is read."""

    def __init__(self, values):
        self.values, self.shape, self.read = values, values.shape, []

    def __getitem__(self, index):
        self.read.append(index)
        return self.values[index]


@pytest.mark.parametrize("kind", ["array", "mapped", "other bytes", "hdf5", "lazy"])
def test_data_on_the_host_have_the_batches_of_epochs(kind, tmp_path):
    y, file = np.arange(22.0), None
    if kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        file = h5py.File(tmp_path / "data.h5", "w")
        file["x"] = A
        x = file["x"]
    elif kind in ("mapped", "other bytes"):
        np.save(tmp_path / "x.npy", A if kind == "mapped" else A.astype(">f8"))
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    else:
        x = A if kind == "array" else Lazy(A)
    batches = train.HostEpochs({"x": x, "y": y}, 5, KEY)
    device = train.Epochs({"x": jnp.asarray(A), "y": jnp.asarray(y)}, 5, KEY)
    assert batches.steps == device.steps == 4
    # Of any step, in any order.
    for step in (0, 7, 3, 4, 0):
        assert bool(eqx.tree_equal(jax.tree.map(jnp.asarray, batches(None, step)), device(0, step)))
    assert_same(on_host(batches), on_host(device, host_batches=False, prefetch=0))
    if isinstance(x, Lazy):
        assert len(x.read) == (5 + 12) * 5
    elif file is not None:
        file.close()


@pytest.mark.parametrize("devices", [None, 2])
def test_prefetching_changes_no_number(devices):
    drawn = lambda key, step: {"x": A[:8] + step, "y": np.asarray(jax.random.normal(key, (8,)))}
    devices = None if devices is None else jax.devices()[:devices]
    options = {"devices": devices, "log_every": 5}
    assert_same(on_host(drawn, **options), on_host(drawn, prefetch=0, **options))
    assert not loaders()


def test_batches_are_made_while_others_are_used_and_not_too_many():
    made, started = [], threading.Event()

    def batches(key, step):
        made.append((step, threading.current_thread().name))
        if step == 4:
            started.set()
        return {"x": A, "y": A[:, 0]}

    def validate(w):
        # After two steps, batch 4 is made without having been asked for, and 5 is not.
        assert started.wait(20) and len(made) <= 5
        started.set()
        return {}

    on_host(batches, 2, prefetch=2, log_every=2, validate=None)
    assert [step for step, _ in made] == [0, 1]
    made.clear()
    with pytest.raises(ValueError, match="stop here"):
        on_host(batches, 9, prefetch=3, log_every=2, validate=lambda w: (validate(w), _stop()))
    assert [step for step, _ in made] == list(range(5))
    assert all(name.startswith("jinv-batches") for _, name in made)


def _stop():
    raise ValueError("stop here")


def a_broken_file(step):
    if step == 6:
        raise OSError("the file is broken")
    return {"x": A, "y": A[:, 0]}


def test_an_error_of_the_loader_comes_with_its_traceback(tmp_path):
    options = {"checkpoint": tmp_path, "save_every": 2}
    with pytest.raises(OSError, match="the file is broken") as raised:
        on_host(lambda key, step: a_broken_file(step), **options)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert frames[-1].name == "a_broken_file" and "raise OSError" in str(frames[-1].line)
    assert not loaders()
    whole = lambda key, step: a_broken_file(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    assert_same(on_host(whole, **options), on_host(whole))


def test_an_interruption_leaves_no_thread_and_resumes_exactly(tmp_path):
    entered, held, interrupt = threading.Event(), threading.Event(), [True]

    def batches(key, step):
        # The loader is in the middle of a batch when the interruption comes.
        if interrupt and step == 5:
            entered.set()
            held.wait(20)
        return a_broken_file(0)

    def validate(w):
        if interrupt:
            assert entered.wait(20)
            threading.Timer(0.1, held.set).start()
            raise KeyboardInterrupt
        return {"first": w[0]}

    options = {"checkpoint": tmp_path, "validate": validate}
    with pytest.warns(RuntimeWarning, match="interrupted after step 4 of 12"):
        partial = on_host(batches, **options)
    assert held.is_set() and not loaders() and not partial.complete
    interrupt.clear()
    assert_same(on_host(batches, **options), on_host(batches, prefetch=0, validate=validate))


def test_data_on_the_host_inside_of_the_step():
    batches = train.HostEpochs({"x": A, "y": A[:, 0]}, 5, KEY)
    with pytest.raises(ValueError, match="`host_batches` must be True"):
        on_host(batches, host_batches=False, prefetch=0)
    with pytest.raises(ValueError, match="`batch_size` must be at most 22"):
        train.HostEpochs(A, 23, KEY)
    with pytest.raises(ValueError, match="same number of samples"):
        train.HostEpochs((A, A[:5]), 2, KEY)


# Mixed precision.


def single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


def operator(seed=0, channels=4):
    smoothing = [(1, 0), (1, 0)]
    options = {"channels": channels, "num_layers": 1, "smoothing": smoothing}
    return single(nn.mgno(**options, key=jax.random.key(seed)))


U = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32)
Y = (U + np.roll(U, 1, 1) + np.roll(U, 1, 2)).astype(np.float32)
PAIRS = jnp.asarray(U), jnp.asarray(Y)
MATCHING = train.OperatorMatching()
BATCHES = train.Minibatches(PAIRS, 8)


def test_gradients_in_mixed_precision_are_close_and_of_single_precision():
    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def gradient(model):
        return MATCHING(model, PAIRS, None)[0]

    networks = train.MixedPrecision(operator()), operator()
    models = [train.Normalised(network, *PAIRS) for network in networks]
    (value, half), (expected, full) = map(gradient, models)
    assert value.dtype == jnp.float32 and value == pytest.approx(float(expected), rel=1e-2)
    half, full = half.model.model, full.model
    assert jax.tree.structure(half) == jax.tree.structure(full)
    for got, exact in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert got.dtype == jnp.float32
        # It is computed in half precision, and not in a quarter.
        error = float(jnp.linalg.norm(got - exact) / jnp.linalg.norm(exact))
        assert 1e-4 < error < 2e-2


def test_all_of_the_network_and_nothing_else_is_in_half_precision():
    seen = []

    def network(u):
        seen.append(u.dtype)
        return u

    # In half precision this mean would be 1000 and all samples 996, 1000 or 1004.
    u = 1001 + jnp.asarray(U)
    model = train.Normalised(train.MixedPrecision(network), u, u)
    found = jax.vmap(model)(u)
    assert found.dtype == jnp.float32 and seen == [jnp.bfloat16]
    np.testing.assert_allclose(found, u, atol=0.02)
    pair = train.MixedPrecision(lambda u, index: {"value": u[index], "index": index})(u[0], 3)
    assert (pair["value"].dtype, pair["index"]) == (jnp.float32, 3)


def test_updates_far_below_half_precision_add_up():
    # Each is 1e-4 of the weight, where bfloat16 has steps of 4e-3.
    loss = lambda model, batch, key: jnp.sum(model(batch))
    model = single(eqx.nn.Linear(1, 1, use_bias=False, key=KEY))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.ones((1, 1), jnp.float32))
    options = {"num_steps": 50, "key": KEY, "optimiser": optax.sgd(1e-4, 0.0), "progress": False}
    batches = lambda key, step: jnp.ones(1, jnp.float32)
    fitted = train.fit(loss, train.MixedPrecision(model), batches, **options)
    np.testing.assert_allclose(fitted.model.model.weight, 1 - 50e-4, rtol=1e-6)
    leaves = jax.tree.leaves(eqx.filter(fitted.state, eqx.is_inexact_array))
    assert {str(leaf.dtype) for leaf in leaves} == {"float32"}
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), eqx.filter(model, eqx.is_array))
    lost = train.fit(
        lambda w, batch, key: jnp.sum(w.weight.astype(jnp.float32)), rounded, batches, **options
    )
    assert lost.model.weight == 1


def test_misuse_of_mixed_precision():
    with pytest.raises(ValueError, match="`dtype` must .* range of float32.* got float16"):
        train.MixedPrecision(jnp.sin, dtype=jnp.float16)
    with pytest.raises(ValueError, match="`dtype` must .* got int32"):
        train.MixedPrecision(jnp.sin, dtype=jnp.int32)
    with pytest.raises(ValueError, match="`model` must not have scales in half precision"):
        train.MixedPrecision({"inner": train.Normalised(jnp.sin, *PAIRS)})


# Several seeds.


def noisy_matching(model, batch, key):
    u, y = batch
    return MATCHING(model, (u + 0.1 * jax.random.normal(key, u.shape, u.dtype), y), None)


def test_an_ensemble_is_its_single_runs():
    seeds = jnp.arange(3)
    keys = jax.random.split(KEY, 3)
    models = [operator(seed) for seed in range(3)]
    stacked = eqx.filter_vmap(lambda seed: operator(seed))(seeds)
    step = train.TrainStep(noisy_matching, ADAM)
    states, metrics = train.fit_ensemble(step, stacked, BATCHES, num_steps=5, keys=keys)
    assert metrics["loss"].shape == (3, 5) and np.array_equal(states.step, [5, 5, 5])
    found = jax.tree.leaves(eqx.filter(states.averaged, eqx.is_array))
    for member, (model, key) in enumerate(zip(models, keys, strict=True)):
        alone = of_operator(5, model, key=key)
        np.testing.assert_allclose(metrics["loss"][member], losses(alone), rtol=2e-5)
        expected = jax.tree.leaves(eqx.filter(alone.model, eqx.is_array))
        for got, leaf in zip(found, expected, strict=True):
            np.testing.assert_allclose(got[member], leaf, atol=2e-5)
    assert len({round(float(last), 4) for last in metrics["loss"][:, -1]}) == 3


def test_members_of_an_ensemble_are_skipped_alone_and_live_on_several_devices():
    loss = lambda w, batch, key: jnp.sum((w - batch) ** 2)
    poisoned = lambda key, step: jnp.where(
        (step == 1) & jax.random.bernoulli(key), jnp.nan, jnp.ones(())
    )
    keys, starts = jax.random.split(KEY, 6), jnp.arange(6.0)[:, None]
    step = train.TrainStep(loss, optax.sgd(0.25))
    states, metrics = train.fit_ensemble(step, starts, poisoned, num_steps=3, keys=keys)
    skipped = np.asarray(states.skipped)
    assert set(skipped) == {0, 1}
    np.testing.assert_allclose(states.model[:, 0] - 1, (starts[:, 0] - 1) * 0.5 ** (3 - skipped))
    assert np.array_equal(~np.asarray(metrics["finite"][:, 1]), skipped == 1)
    placed = train.shard_batch((starts, keys), jax.devices()[:2])
    split, _ = train.fit_ensemble(step, placed[0], poisoned, num_steps=3, keys=placed[1])
    assert len(split.model.devices()) == 2 and not split.model.sharding.is_fully_replicated
    np.testing.assert_allclose(split.model, states.model, rtol=1e-12)


def test_misuse_of_an_ensemble():
    step, keys = train.TrainStep(slope, optax.sgd(0.1)), jax.random.split(KEY, 3)
    batches = lambda key, step: 0.0
    with pytest.raises(ValueError, match="`models` must have a first axis of 3 members"):
        train.fit_ensemble(step, jnp.ones(2), batches, num_steps=1, keys=keys)
    with pytest.raises(ValueError, match="`models` must have a first axis of one members|of one"):
        train.fit_ensemble(step, jnp.ones(2), batches, num_steps=1, keys=KEY)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1"):
        train.fit_ensemble(step, jnp.ones(3), batches, num_steps=0, keys=keys)


# A multigrid operator.


def of_operator(num_steps=6, model=None, **options: Any):
    options = {"optimiser": ADAM, "key": KEY, "progress": False, **options}
    options = {"log_every": 1, "save_every": 2, **options}
    model = operator() if model is None else model
    return train.fit(noisy_matching, model, BATCHES, num_steps=num_steps, **options)


def losses(fitted):
    return [record["loss"] for record in fitted.history]


def test_an_operator_on_two_devices_has_the_curve_of_one():
    one, two = of_operator(), of_operator(devices=jax.devices()[:2])
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    assert len(jax.tree.leaves(two.model)[0].devices()) == 2
    assert losses(one)[-1] < 0.95 * losses(one)[0]


@pytest.fixture
def folder(tmp_path):
    of_operator(4, checkpoint=tmp_path)
    return tmp_path


def test_a_full_disk_keeps_the_last_checkpoint(folder, monkeypatch):
    def full(self, step, **options):
        (folder / f"{step}.orbax-checkpoint-tmp").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        message = "6 could not be written .*No space left.*; the checkpoint of step 4 .* stands"
        with pytest.raises(OSError, match=message):
            of_operator(checkpoint=folder)
        with pytest.raises(OSError, match="step 2 .*; there is no checkpoint in .* yet"):
            of_operator(checkpoint=folder / "new")
    assert {"2", "4"} <= {path.name for path in folder.iterdir()}
    assert_same(of_operator(checkpoint=folder), of_operator())


# What orbax's other threads still wanted to say.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_cannot_be_written_keeps_the_last_checkpoint(tmp_path):
    # The system refuses files of more than 64 kB, as it refuses all of them on a full disk.
    resource = pytest.importorskip("resource")
    start = jax.random.normal(KEY, (20_000,))
    loss = lambda w, batch, key: jnp.sum(w**2)
    options: Any = {"optimiser": optax.sgd(0.1), "key": KEY, "progress": False, "log_every": 2}
    options |= {"checkpoint": tmp_path, "save_every": 2}
    train.fit(loss, start, lambda key, step: 0.0, num_steps=4, **options)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(
            OSError, match="step 6 .* too large.*; the checkpoint of step 4 .* stands"
        ):
            train.fit(loss, start, lambda key, step: 0.0, num_steps=8, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resumed = train.fit(loss, start, lambda key, step: 0.0, num_steps=8, **options)
    whole = {**options, "checkpoint": None}
    assert_same(resumed, train.fit(loss, start, lambda key, step: 0.0, num_steps=8, **whole))


def test_a_corrupt_checkpoint_keeps_the_one_before(folder):
    for path in (folder / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="4 cannot be read; without this folder"):
        of_operator(checkpoint=folder)
    (folder / "4").rename(folder / "damaged")
    assert_same(of_operator(checkpoint=folder), of_operator())


def test_the_checkpoint_of_another_operator_is_refused_and_stays(folder):
    with pytest.raises(ValueError, match=r"4 is of another model.*has shape .*4\), expected .*5\)"):
        of_operator(checkpoint=folder, model=operator(channels=5))
    assert_same(of_operator(checkpoint=folder), of_operator())


KILLED = """
import os, random, signal, sys, threading
import jax, numpy as np, optax
from jinv import nn, train

folder, seed, into = sys.argv[1:]
jax.config.update("jax_disable_most_optimizations", True)
u = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
data = u, u + np.roll(u, 1, 1)
options = {"channels": 4, "num_layers": 1, "smoothing": [(1, 0), (2, 0)]}
model = train.Normalised(nn.mgno(**options, key=jax.random.key(0)), *data)
epochs, matching = train.HostEpochs(data, 4, jax.random.key(1)), train.OperatorMatching()
error = jax.jit(lambda model: matching(model, data, None)[0])
rng = random.Random(seed)
calls, delay = rng.randint(4, 9), rng.uniform(0, 0.1)

def batches(key, step):
    global calls
    calls -= 1
    if seed != "whole" and not calls:
        # In the middle of whatever comes then: a step, a validation, a save.
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return epochs(key, step)

fitted = train.fit(
    matching, model, batches, optimiser=optax.adam(0.03), num_steps=80, key=jax.random.key(2),
    ema_decay=0.5, validate=lambda model: {"l2": error(model)}, monitor="l2", patience=30,
    host_batches=True, prefetch=2, checkpoint=folder, save_every=2, log_every=1, progress=False,
)
leaves = jax.tree.leaves((fitted.model, fitted.state))
arrays = [np.asarray(leaf) for leaf in leaves if hasattr(leaf, "shape")]
np.savez(into, *arrays, history=repr(fitted.history))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_five_times_has_the_numbers_of_one_that_is_not(tmp_path):
    def train_until(folder, seed):
        into = tmp_path / f"{seed}.npz"
        command = [sys.executable, "-c", KILLED, tmp_path / folder, seed, into]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        return into, ended

    reached = []
    for seed in range(5):
        _, ended = train_until("killed", str(seed))
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        steps = [int(path.name) for path in (tmp_path / "killed").iterdir() if path.name.isdigit()]
        reached.append(max(steps, default=0))
    # Every run went on from the one before, and none came to the end.
    assert reached == sorted(reached) and 0 < reached[0] < reached[-1] < 80
    into, ended = train_until("killed", "whole")
    assert ended.returncode == 0, ended.stderr
    last = into.rename(tmp_path / "resumed.npz")
    whole, ended = train_until("whole", "whole")
    assert ended.returncode == 0, ended.stderr
    with np.load(last) as got, np.load(whole) as expected:
        assert got.files == expected.files
        for name in got.files:
            np.testing.assert_array_equal(got[name], expected[name])
