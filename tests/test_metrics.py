"""Metrics against scikit-image, hand-computed values and finite differences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics
from jax.test_util import check_grads

from jinv import metrics


PAPER = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
WINDOWS = {"gaussian": PAPER, "uniform": {}}
ERRORS = [metrics.mse, metrics.mae, metrics.psnr, metrics.snr, metrics.relative_error]
# What scikit-image itself promises for float64.
EXACT = 1e-10


def pair(rng, shape=(24, 31), noise=0.2):
    reference = rng.random(shape)
    return reference + noise * rng.standard_normal(shape), reference


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    "shape, data_range", [((24, 31), 1.0), ((11, 40), 7.3), ((19, 17, 3), 2.0), ((16, 16, 1), 0.5)]
)
def test_ssim_is_that_of_skimage(rng, window, shape, data_range):
    x, reference = pair(rng, shape)
    expected: Any = skimage.metrics.structural_similarity(
        x,
        reference,
        data_range=data_range,
        channel_axis=-1 if len(shape) == 3 else None,
        **WINDOWS[window],
    )
    assert abs(metrics.ssim(x, reference, data_range, window=window) - expected) < EXACT


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_of_photographs(window):
    from jinv import data

    x = np.asarray(data.photograph("chelsea", grey=False, shape=96))
    blurred = np.asarray((x + np.roll(x, 1, 0) + np.roll(x, 1, 1)) / 3)
    expected: Any = skimage.metrics.structural_similarity(
        blurred, x, data_range=1.0, channel_axis=-1, **WINDOWS[window]
    )
    assert abs(metrics.ssim(blurred, x, window=window) - expected) < EXACT


def test_ssim_of_equal_and_of_opposite_images(rng):
    x, _ = pair(rng)
    assert abs(metrics.ssim(x, x) - 1) < 1e-12
    assert metrics.ssim(1 - x, x) < -0.8


@pytest.mark.parametrize("window, shape", [("gaussian", (12, 12, 3)), ("uniform", (13, 12))])
def test_ssim_gradient(rng, window, shape):
    x, reference = (jnp.asarray(a) for a in pair(rng, shape))
    fn = jax.jit(lambda x, r, peak: metrics.ssim(x, r, peak, window=window))
    check_grads(fn, (x, reference, 1.3), order=1, modes=("fwd", "rev"))


def test_ssim_gradient_of_larger_colour_images_in_float64(rng):
    # Written with convolutions, this very case used to crash XLA's CPU backend.
    x, reference = pair(rng, (64, 64, 3))
    assert np.all(np.isfinite(jax.jit(jax.grad(metrics.ssim))(x, reference)))


def test_ssim_on_flat_images():
    flat = jnp.full((16, 16), 0.7)
    assert abs(metrics.ssim(flat, flat) - 1) < 1e-10
    assert np.all(jnp.isfinite(jax.jit(jax.grad(metrics.ssim))(flat, flat)))


def test_ssim_float32_stays_close(rng):
    x, reference = pair(rng, (64, 64))
    value = metrics.ssim(x.astype("float32"), reference.astype("float32"))
    assert value.dtype == jnp.float32
    assert abs(float(value) - float(metrics.ssim(x, reference))) < 1e-5


def test_psnr_and_mse_are_those_of_skimage(rng):
    x, reference = pair(rng)
    expected = skimage.metrics.peak_signal_noise_ratio(reference, x, data_range=2.5)
    assert abs(metrics.psnr(x, reference, 2.5) - expected) < EXACT
    assert abs(metrics.mse(x, reference) - skimage.metrics.mean_squared_error(x, reference)) < EXACT


def test_hand_computed_values():
    x, reference = jnp.array([3.0, 4.5, 0.0]), jnp.array([3.0, 4.0, 0.0])
    assert abs(metrics.mse(x, reference) - 0.25 / 3) < 1e-15
    assert abs(metrics.mae(x, reference) - 0.5 / 3) < 1e-15
    assert abs(metrics.relative_error(x, reference) - 0.1) < 1e-15
    assert abs(metrics.snr(x, reference) - 20) < 1e-12


def test_complex_arrays_use_the_modulus():
    x, reference = jnp.array([3 + 4j, 1j]), jnp.array([0j, 1j])
    assert metrics.mse(x, reference) == 12.5
    assert metrics.mae(x, reference) == 2.5
    assert metrics.relative_error(x, reference) == 5.0
    for fn in ERRORS:
        assert not jnp.iscomplexobj(fn(x, reference))


def test_snr_is_the_relative_error_in_decibels(rng):
    x, reference = pair(rng)
    decibels = -20 * np.log10(metrics.relative_error(x, reference))
    assert abs(metrics.snr(x, reference) - decibels) < 1e-12


@pytest.mark.parametrize("fn", ERRORS + [metrics.ssim])
def test_transforms(rng, fn):
    x, reference = (jnp.asarray(a) for a in pair(rng, (4, 14, 15)))
    single = jnp.stack([fn(a, b) for a, b in zip(x, reference, strict=True)])
    assert np.allclose(jax.vmap(fn)(x, reference), single, rtol=1e-12)
    assert np.allclose(jax.jit(fn)(x[0], reference[0]), single[0], rtol=1e-12)
    check_grads(jax.jit(fn), (x[0], reference[0]), order=1)


@pytest.mark.parametrize("fn", ERRORS + [metrics.ssim])
def test_float32_stays_float32(rng, fn):
    x, reference = (a.astype(np.float32) for a in pair(rng))
    assert fn(x, reference).dtype == jnp.float32


def test_a_new_data_range_does_not_retrace(rng):
    x, reference = pair(rng)
    traces = []

    @jax.jit
    def both(x, reference, peak):
        traces.append(None)
        return metrics.psnr(x, reference, peak) + metrics.ssim(x, reference, peak)

    values = [both(x, reference, peak) for peak in (1.0, 2.0, 255.0)]
    assert len(traces) == 1 and len({float(value) for value in values}) == 3


def test_equal_arrays():
    x = jnp.ones((12, 12))
    assert metrics.psnr(x, x) == jnp.inf and metrics.snr(x, x) == jnp.inf
    for fn in (metrics.mse, metrics.mae, metrics.relative_error):
        assert fn(x, x) == 0
        assert np.all(jax.grad(fn)(x, x) == 0)


@pytest.mark.parametrize("fn", ERRORS + [metrics.ssim])
def test_bad_pairs_are_refused(fn):
    x = jnp.ones((12, 12))
    with pytest.raises(ValueError, match=r"`reference` must have the shape of `x`, \(12, 12\)"):
        fn(x, x[:-1])
    with pytest.raises(ValueError, match="`reference` must have the dtype of `x`, float64"):
        fn(x, x.astype(jnp.float32))


def test_integers_are_refused():
    x = np.zeros((12, 12), np.uint8)
    with pytest.raises(Exception, match="floating point or complex|Type-check"):
        metrics.mse(x, x)
    with pytest.raises(ValueError, match="divide 8 bit images by 255"):
        metrics._error.checked_pair(x, x)


@pytest.mark.parametrize("data_range", [0.0, -1.0, 0])
def test_data_range_must_be_positive(data_range):
    x = jnp.ones((12, 12))
    for fn in (metrics.psnr, metrics.ssim):
        with pytest.raises(ValueError, match="`data_range` must be positive"):
            fn(x, x, data_range)


def test_bad_images_for_ssim():
    with pytest.raises(ValueError, match="at least 11 x 11 pixels .* got 10 x 20"):
        metrics.ssim(jnp.ones((10, 20)), jnp.ones((10, 20)))
    with pytest.raises(ValueError, match="at least 7 x 7"):
        metrics.ssim(jnp.ones((6, 20)), jnp.ones((6, 20)), window="uniform")
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, channels\)"):
        metrics.ssim(jnp.ones(20), jnp.ones(20))
