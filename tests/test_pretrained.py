"""Stored weights: what is saved is loaded, nothing is unpickled, and each damage is named."""

import hashlib
import io
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jinv
from jinv.pretrained import _store, load, names, read_record, save


RECORD = {
    "script": "tools/train.py",
    "seed": 0,
    "steps": 100,
    "commit": "0123abc",
    "accuracy": {"psnr": 30.5},
}


def network(width=4, seed=0, dtype=jnp.float32):
    return eqx.nn.MLP(3, 1, width, 1, key=jax.random.key(seed), dtype=dtype)


@pytest.fixture
def path(tmp_path):
    return save(tmp_path / "network", network(), RECORD)


def rewrite(path, change):
    """Changes the record beside the weights."""
    beside = path.with_suffix(".json")
    record = json.loads(beside.read_text())
    change(record)
    beside.write_text(json.dumps(record))


def exchange(path, content):
    """Puts other content into the weights, with a record that agrees."""
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(path, lambda record: record.update(sha256=digest, bytes=len(content)))


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


# What is saved is loaded.


@pytest.mark.parametrize("name", ["network", "network.npz", "network.json", "lpn_v1.5"])
def test_weights_come_back_exactly(tmp_path, name):
    model = network()
    path = save(tmp_path / name, model, RECORD)
    assert path.is_file() and path.suffix == ".npz"
    like = eqx.filter_eval_shape(network)
    for where in (path, str(path), path.with_suffix("")):
        assert bool(eqx.tree_equal(load(where, network(seed=1)), model))
        assert bool(eqx.tree_equal(load(where, like), model))


def test_all_kinds_of_arrays(tmp_path):
    model = {
        "double": jnp.asarray(np.random.default_rng(0).normal(size=(2, 3))),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "complex": jnp.array([1 + 2j], jnp.complex64),
        "scalar": jnp.float32(0.1),
        "empty": jnp.zeros((0, 2)),
        "count": np.arange(3),
        "mask": jnp.array([True, False]),
        "factor": 2.0,
    }
    like = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x, model)
    got = load(save(tmp_path / "kinds", model, RECORD), like)
    expected = {**model, "count": jnp.asarray(model["count"])}
    assert bool(eqx.tree_equal(got, expected))
    # A model that is one array has a leaf without a name.
    assert np.array_equal(load(save(tmp_path / "x", jnp.ones(2), RECORD), jnp.zeros(2)), [1, 1])


def test_single_precision_is_widened_for_double(path):
    model = load(path, network(dtype=jnp.float64))
    assert model.layers[0].weight.dtype == jnp.float64
    assert np.array_equal(model.layers[0].weight, network().layers[0].weight)


def test_the_record(path):
    record = read_record(path)
    assert record.items() >= RECORD.items()
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["leaves"][".layers[0].weight"] == {"shape": [4, 3], "dtype": "float32"}
    assert record["versions"]["jax"] == jax.__version__


def test_the_same_weights_are_the_same_bytes(tmp_path, path):
    again = save(tmp_path / "again", network(), RECORD)
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".json").read_text() == path.with_suffix(".json").read_text()


def test_names(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "WEIGHTS", tmp_path / "weights")
    assert names() == []
    (tmp_path / "weights").mkdir()
    for name in ("second", "first_v1.5"):
        save(tmp_path / "weights" / name, network(), RECORD)
    assert names() == ["first_v1.5", "second"]
    for name in names():
        assert bool(eqx.tree_equal(load(name, network(seed=1)), network()))
    with pytest.raises(ValueError, match=r"'third' is not among .* \(first_v1.5, second\)"):
        load("third", network())


def test_shipped_weights_are_sound():
    folder = pathlib.Path(jinv.__file__).parent / "pretrained" / "weights"
    files = {path.name for path in folder.glob("*")}
    assert files == {f"{name}{suffix}" for name in names() for suffix in (".npz", ".json")}
    for name in names():
        record, content = read_record(name), (folder / f"{name}.npz").read_bytes()
        assert record["sha256"] == hashlib.sha256(content).hexdigest()
        arrays = _store._arrays(folder / name, content, record["leaves"])
        assert all(np.isfinite(array).all() for array in arrays.values())


# What goes wrong.


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path):
    other = save(path.with_name("other"), network(seed=1), RECORD)
    path.write_bytes(other.read_bytes())


def cut_record(path):
    beside = path.with_suffix(".json")
    beside.write_text(beside.read_text()[:50])


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda path: path.unlink(), FileNotFoundError, r"network\.npz: there is no such file"),
        (
            lambda path: path.with_suffix(".json").unlink(),
            FileNotFoundError,
            r"network\.json: there is no such file",
        ),
        (truncate, ValueError, r"network\.npz: truncated or exchanged, it has \d+ bytes"),
        (lambda path: path.write_bytes(b""), ValueError, "truncated .* it has 0 bytes"),
        (flip, ValueError, r"network\.npz: damaged or exchanged, its SHA-256"),
        (swap, ValueError, "damaged or exchanged, its SHA-256"),
        (cut_record, ValueError, r"network\.json: not a readable record"),
        (
            lambda path: path.with_suffix(".json").write_bytes(b"\xff"),
            ValueError,
            "not a readable record",
        ),
        (
            lambda path: path.with_suffix(".json").write_text("3"),
            ValueError,
            "not a readable record",
        ),
        (
            lambda path: rewrite(path, lambda record: record.pop("sha256")),
            ValueError,
            "not a record of weights, it lacks sha256",
        ),
        (
            lambda path: exchange(path, b"PK\x03\x04 but no archive"),
            ValueError,
            "not a readable .npz file",
        ),
        (
            lambda path: exchange(path, npz(w=np.ones(2))),
            ValueError,
            r"not what its record says: \.layers.* is missing",
        ),
    ],
)
def test_damage_is_named(path, damage, error, message):
    damage(path)
    with pytest.raises(error, match=message):
        load(path, network())


def test_nothing_is_unpickled(path, tmp_path):
    class Payload:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "executed",)

    exchange(path, npz(**{".layers[0].weight": np.array([Payload()], object)}))
    with pytest.raises(ValueError, match="without pickle"):
        load(path, network())
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "like, message",
    [
        (network(5), r"weight has shape \(4, 3\), expected \(5, 3\)"),
        (network().layers[0], r"\.weight is missing; .* is unknown; .*; and \d more"),
        (
            eqx.tree_at(lambda m: m.layers[0].bias, network(), None),
            r"\.layers\[0\]\.bias is unknown",
        ),
        (network(dtype=jnp.float16), "has dtype float32, expected float16"),
    ],
)
def test_the_wrong_model(path, like, message):
    with pytest.raises(ValueError, match=rf"network\.npz does not fit `like`: .*{message}"):
        load(path, like)


def lacking(name):
    return {key: value for key, value in RECORD.items() if key != name}


@pytest.mark.parametrize(
    "model, record, message",
    [
        ({"w": jnp.zeros(2)}, lacking("seed"), "`record` must say .*; it lacks seed"),
        ({"w": jnp.zeros(2)}, {**RECORD, "accuracy": {1, 2}}, "`record` must be what JSON"),
        ({"w": jnp.zeros(2)}, {**RECORD, "accuracy": np.nan}, "`record` must be what JSON"),
        ({"w": 1.0}, RECORD, "`model` must have arrays"),
        ({"w": jnp.array([0, jnp.nan])}, RECORD, r"finite weights, \['w'\]"),
        ({"w": jnp.zeros(700_000)}, RECORD, "too large: its file would have 56.* limit is 5000000"),
    ],
)
def test_save_refuses(tmp_path, model, record, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "refused", model, record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ndim, n", [(2, 40), pytest.param(3, 12, marks=pytest.mark.slow)])
def test_trained_multigrid_takes_fewer_steps(ndim, n):
    shape = (n,) * ndim
    untrained = jinv.linear.Multigrid()
    trained = jinv.pretrained.multigrid(ndim)

    @eqx.filter_jit
    def reduction(rule, key):
        k = jinv.linear.random_coefficient(shape, key=key)
        operator = jinv.linear.heterogeneous_diffusion(k)
        source = jinv.linear.random_source(operator, key=key)
        return jinv.linear.convergence_loss(rule, operator, source, steps=4)

    keys = jax.random.split(jax.random.key(7), 3)
    means = [np.mean([reduction(rule, key) for key in keys]) for rule in (untrained, trained)]
    assert means[1] < 1.15 * means[0] < 0


@pytest.mark.parametrize("sweeps, gain", [(3, 1.0), (64, 1.03)])
def test_trained_factor_takes_fewer_steps(sweeps, gain):
    """With the sweeps of its training, and with exact triangular solves."""
    box = jinv.linear.poisson((32, 32))
    plain = jinv.linear.NeuralFactor(box, sweeps=sweeps)
    trained = jinv.pretrained.neural_factor(box, sweeps=sweeps)

    @eqx.filter_jit
    def reduction(factor, key):
        k = jinv.linear.random_coefficient((32, 32), key=key, smooth=True)
        operator = jinv.linear.heterogeneous_diffusion(k)
        source = jinv.linear.random_source(operator, key=key)
        return jinv.linear.convergence_loss(factor, operator, source, steps=15)

    keys = jax.random.split(jax.random.key(11), 4)
    means = [np.mean([reduction(rule, key) for key in keys]) for rule in (plain, trained)]
    assert means[1] < gain * means[0] < 0


def test_models_that_are_not_shipped():
    with pytest.raises(ValueError, match="ndim"):
        jinv.pretrained.multigrid(1)
    with pytest.raises(ValueError, match="ndim"):
        jinv.pretrained.dcdm(1, 1e-3, 0.0)


@pytest.mark.parametrize("name", ["photographs", "digits", "laplacian", "l1_16"])
def test_shipped_priors_are_exact_proxes(name):
    prior = jinv.pretrained.lpn(name, objective=False)
    shape = (11, 8) if name == "photographs" else prior.potential.shape
    y = 0.5 + 0.2 * jax.random.normal(jax.random.key(0), shape)
    size = y.size
    jacobian = jax.jit(jax.jacobian(lambda y: prior.potential.gradient(y)))(y).reshape(size, size)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-12)
    assert np.linalg.eigvalsh(jacobian)[0] >= prior.potential.strong_convexity - 1e-10
    # Two programs: what is compiled inside the prox rounds differently from what is not.
    gradient = jax.jit(lambda y: prior.potential.gradient(y))(y)
    np.testing.assert_allclose(prior.prox(y, prior.step_size), gradient, rtol=1e-13, atol=1e-15)
    # Twice the noise is the same network at half the scale.
    noise = jinv.pretrained.read_record(f"lpn_{name}")["noise"]
    scaled = jinv.pretrained.lpn(name, noise=2 * noise, objective=False)
    twice = scaled.prox(2 * y, scaled.step_size)
    np.testing.assert_allclose(twice, 2 * gradient, rtol=1e-10, atol=1e-12)


def test_prior_of_digits_rises_with_noise_and_with_blur():
    # The last 297 neither trained it nor chose its settings.
    held_out = jinv.data.digits(dtype=jnp.float64)[0][1500::6]
    prior = jax.jit(jax.vmap(jinv.pretrained.lpn("digits", step_size=1.0).prior))
    white = jax.random.normal(jax.random.key(0), held_out.shape)

    def blurred(width):
        kernel = jinv.operators.gaussian_kernel(width, 9, dtype=jnp.float64)
        return jax.vmap(jinv.operators.Convolution(kernel, (8, 8), boundary="zero").mv)(held_out)

    noise = [held_out + level * white for level in (0.05, 0.1, 0.2)]
    for worse in (noise, [blurred(width) for width in (1.0, 2.0)]):
        found = [prior(images) for images in (held_out, *worse)]
        assert all(np.all(result == jinv.RESULTS.successful) for _, result in found)
        rises = np.all(np.diff([value for value, _ in found], axis=0) > 0, axis=0)
        assert np.mean(rises) >= 0.95


@pytest.mark.parametrize("name", ["convolutional", "lipschitz"])
def test_shipped_denoiser_takes_any_size(name):
    y = jnp.full((9, 7), 0.5)
    denoiser = jax.jit(lambda y: jinv.pretrained.denoiser(name, noise=0.05).prox(y, 1.0))
    found = denoiser(y)
    assert found.shape == y.shape and float(jnp.max(jnp.abs(found - y))) < 0.2


@pytest.mark.parametrize("make", [jinv.pretrained.lpn, jinv.pretrained.denoiser])
def test_misuse_of_the_shipped_priors_is_named(make):
    with pytest.raises(ValueError, match="`name` must be one of"):
        make("paintings")
    with pytest.raises(ValueError, match="`noise` must be positive"):
        make(noise=-0.1)


@pytest.mark.parametrize("name", ["mgno", "fno", "multionet"])
def test_shipped_operators_know_darcy_flow(name):
    made = jinv.pde.darcy_two_phase(4, 127, key=jax.random.key(99), stride=2, progress=False)
    inputs, outputs = (jnp.asarray(x, jnp.float32) for x in (made.inputs, made.outputs))
    model, record = jinv.pretrained.operator(name), read_record(f"operator_{name}")
    found = eqx.filter_jit(lambda model, u: jax.lax.map(model, u))(model, inputs)
    assert found.dtype == jnp.float32 and record["accuracy"]["l2"] < 0.04
    errors = jax.vmap(jinv.train.relative_l2)(found, outputs)
    # New media, drawn as those of the record.
    np.testing.assert_array_less(errors, 2.5 * record["accuracy"]["l2"])
    on_boundary = found.at[:, 1:-1, 1:-1].set(0)
    np.testing.assert_array_equal(on_boundary, 0)


def test_operator_names():
    with pytest.raises(ValueError, match="`name` must be one of .*'mgno'.*got 'fourier'"):
        jinv.pretrained.operator("fourier")
