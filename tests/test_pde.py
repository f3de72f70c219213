"""Data sets of operator learning: the fields' covariances, the solvers against exact solutions and
independent ones, and what the files on disk survive."""

import math
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.fft
import scipy.integrate
import scipy.special

import jinv
from jinv import pde
from jinv.pde import GaussianField


# Most functions run once.
pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
QUIET = {"key": KEY, "progress": False}


def grid(n, periodic=False):
    x = np.arange(n) / n if periodic else np.linspace(0, 1, n)
    return np.meshgrid(x, x, indexing="ij")


def order(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


# Gaussian fields


def _covariance(field, shape, points):
    """The closed form: the sum over eigenfunctions, one real one at a time."""
    periodic = field.boundary == "periodic"
    dim = len(shape)
    sigma = field.tau ** (field.alpha - dim / 2) if field.sigma is None else field.sigma
    total = 0.0
    lines = [np.fft.fftfreq(n) * n if periodic else np.arange(n) for n in shape]
    modes = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, dim)
    modes = modes[np.lexsort((*modes.T[::-1], (modes**2).sum(1)))][1:]
    for k in modes[: field.num_modes]:
        variance = sigma**2 * ((2 if periodic else 1) ** 2 * np.pi**2 * k @ k + field.tau**2)
        variance = sigma**2 * (variance / sigma**2) ** -field.alpha
        if periodic:
            angle = 2 * np.pi * points @ k
            total = total + variance * np.cos(angle[:, None] - angle[None, :])
        else:
            function = np.sin if field.boundary == "dirichlet" else np.cos
            wave = np.prod(np.where(k > 0, math.sqrt(2), 1) * function(np.pi * points * k), axis=1)
            total = total + variance * np.outer(wave, wave)
    return total


@pytest.mark.parametrize(
    "field, shape, at",
    [
        (GaussianField(2.0, 3.0), (7, 7), "nodes"),
        (GaussianField(2, 5), (6, 8), "cells"),
        (GaussianField(2, 3, 1, num_modes=12), (7, 7), "nodes"),
        (GaussianField(1.5, 4.0, 2.0), (12,), "nodes"),
        (GaussianField(2, 3, boundary="dirichlet"), (6, 8), "nodes"),
        (GaussianField(1.5, 4.0, 2.0, "dirichlet"), (12,), "cells"),
        (GaussianField(2.5, 7, 49, "periodic"), (15,), "nodes"),
        (GaussianField(2.5, 7, boundary="periodic"), (6, 7), "nodes"),
        (GaussianField(2, 5, 25, "periodic"), (16,), "nodes"),
    ],
)
def test_fields_have_the_covariance_of_the_closed_form(field, shape, at):
    num = 8000
    keys = jax.random.split(KEY, num)
    draw = jax.jit(jax.vmap(lambda key: field.sample(shape, key=key, grid=at)))
    samples = np.asarray(draw(keys)).reshape(num, -1)
    if field.boundary == "periodic":
        lines = [np.arange(n) / n for n in shape]
    else:
        lines = [np.linspace(0, 1, n) if at == "nodes" else (np.arange(n) + 0.5) / n for n in shape]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(shape))
    exact = _covariance(field, shape, points)
    variance = np.diag(exact)
    # Standard errors of Gaussian samples; six of them, for some thousand entries.
    deviation = np.sqrt((np.outer(variance, variance) + exact**2) / num)
    assert (np.abs(samples.T @ samples / num - exact) <= 6 * deviation + 1e-12).all()
    assert (np.abs(samples.mean(axis=0)) <= 6 * np.sqrt(variance / num)).all()


def test_field_at_cells_is_the_published_cosine_transform():
    size, alpha, tau = 16, 2.0, 3.0
    noise = np.asarray(jax.random.normal(KEY, (size, size), jnp.float32), float)
    k = np.arange(size)
    decay = (np.pi**2 * (k[:, None] ** 2 + k**2) + tau**2) ** (-alpha / 2)
    table = size * tau ** (alpha - 1) * decay * noise
    table[0, 0] = 0
    expected = np.asarray(scipy.fft.idctn(table, norm="ortho"))
    found = GaussianField(alpha, tau).sample((size, size), key=KEY, grid="cells")
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_truncated_field_is_one_function_on_all_grids():
    field = GaussianField(2, 3, 1, num_modes=100)
    fine, coarse = (field.sample((n, n), key=KEY) for n in (41, 21))
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=1e-12)


# Darcy flow


def test_darcy_converges_to_a_manufactured_solution_at_second_order():
    errors = []
    for n in (17, 33, 65):
        x, y = grid(n)
        a = np.exp(np.sin(2 * x + y))
        a_x, a_y = 2 * a * np.cos(2 * x + y), a * np.cos(2 * x + y)
        s = lambda t: np.sin(np.pi * t)
        c = lambda t: np.pi * np.cos(np.pi * t)
        exact = s(x) * s(2 * y)
        flow = a_x * c(x) * s(2 * y) + 2 * a_y * s(x) * c(2 * y)
        u = pde.solve_darcy(a, 5 * np.pi**2 * a * exact - flow)
        errors.append(np.abs(u - exact).max())
    np.testing.assert_allclose(order(errors), 2, atol=0.1)


@pytest.mark.parametrize("low, high", [(3.0, 12.0), (1e-3, 1e3)])
def test_darcy_is_the_dense_solve_of_the_definition(low, high, rng):
    n = 11
    a = np.where(rng.random((n, n)) < 0.5, low, high)
    f = rng.standard_normal((n, n))
    matrix, rhs = np.eye(n * n), np.zeros(n * n)
    for i in range(1, n - 1):
        for j in range(1, n - 1):
            row = i * n + j
            matrix[row, row] = 0
            rhs[row] = f[i, j] / (n - 1) ** 2
            for k, l in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                face = (a[i, j] + a[k, l]) / 2
                matrix[row, row] += face
                matrix[row, k * n + l] -= face
    expected = np.linalg.solve(matrix, rhs).reshape(n, n)
    u = np.asarray(pde.solve_darcy(a, f))
    np.testing.assert_allclose(u, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    edges = np.concatenate([u[0], u[-1], u[:, 0], u[:, -1]])
    np.testing.assert_array_equal(edges, 0)
    # The matrix-free operator is the same matrix.
    inside = (n - 2) ** 2
    operator = pde.darcy_operator(jnp.asarray(a))
    dense = np.asarray(operator.as_matrix()).reshape(inside, inside)
    again = np.linalg.solve(dense, f[1:-1, 1:-1].ravel()).reshape(n - 2, n - 2)
    np.testing.assert_allclose(again, u[1:-1, 1:-1], rtol=1e-9, atol=1e-12)


def test_darcy_of_a_constant_medium_is_the_series():
    # The torsion function of the square at its centre, to the error of the scheme.
    odd = np.arange(1, 60, 2)
    p, q = np.meshgrid(odd, odd)
    series = 16 / np.pi**4 * np.sum((-1.0) ** ((p + q) // 2 - 1) / (p * q * (p**2 + q**2)))
    u = pde.solve_darcy(np.full((65, 65), 2.0))
    assert math.isclose(2 * u[32, 32], series, rel_tol=1e-3)


def test_two_phase_data_are_the_recipe():
    data = pde.darcy_two_phase(40, 63, stride=2, **QUIET)
    assert data.inputs.shape == data.outputs.shape == (40, 32, 32)
    assert set(np.unique(data.inputs)) == {3.0, 12.0}
    assert 0.4 < np.mean(data.inputs == 12) < 0.6
    # The standard deviation of the published set's like, measured with other code.
    assert abs(np.std(data.outputs) / 3.85e-3 - 1) < 0.1
    field = GaussianField(2, 3).sample((63, 63), key=jax.random.fold_in(KEY, 5))
    a = np.where(field >= 0, 12.0, 3.0)
    np.testing.assert_array_equal(data.inputs[5], a[::2, ::2])
    np.testing.assert_allclose(data.outputs[5], pde.solve_darcy(a)[::2, ::2], rtol=1e-12)
    np.testing.assert_allclose(data.coordinates[0], np.linspace(0, 1, 32))


def test_other_darcy_media():
    rough = pde.darcy_rough(3, 17, **QUIET)
    assert set(np.unique(rough.inputs)) == {2.0, 12.0}
    smooth = pde.darcy_smooth(3, 17, **QUIET)
    field = GaussianField(2, 3).sample((17, 17), key=jax.random.fold_in(KEY, 1))
    np.testing.assert_allclose(smooth.inputs[1], np.exp(field), rtol=1e-12)
    waves = pde.darcy_multiscale(200, 9, num_scales=2, **QUIET)
    # At the origin every wave is 1 + 1/2, and then 1.
    np.testing.assert_allclose(waves.inputs[:, 0, 0], 1.5**2)
    assert waves.inputs.min() >= 0.25**2 and waves.inputs.max() <= 1.5**4
    assert len(np.unique(waves.inputs[:, 3, 4])) == 200


def test_multiscale_coefficient_is_the_formula():
    data = pde.darcy_multiscale(1, 9, num_scales=3, **QUIET)
    draws = jax.random.uniform(jax.random.fold_in(KEY, 0), (3,), jnp.float32)
    x, y = grid(9)
    a = np.ones((9, 9))
    for k, draw in enumerate(np.asarray(draws, float), start=1):
        omega = np.pi * 2 ** (k - 1) * (1 + draw / 2)
        a *= (1 + np.cos(omega * (x + y)) / 2) * (1 + np.sin(omega * (y - 3 * x)) / 2)
    np.testing.assert_allclose(data.inputs[0], a, rtol=1e-12)


# Burgers' equation


def _cole_hopf(x, time, viscosity):
    """From sin(2 pi x): u = -2 nu (log phi)_x, where phi solves the heat equation from
    exp(z cos(2 pi x))."""
    k = np.arange(1, 200)[:, None]
    terms = 2 * scipy.special.ive(k, 1 / (4 * np.pi * viscosity))
    terms = terms * np.exp(-viscosity * (2 * np.pi * k) ** 2 * time)
    phi = scipy.special.ive(0, 1 / (4 * np.pi * viscosity))
    phi = phi + np.sum(terms * np.cos(2 * np.pi * k * x), axis=0)
    slope = -np.sum(terms * 2 * np.pi * k * np.sin(2 * np.pi * k * x), axis=0)
    return -2 * viscosity * slope / phi


@pytest.mark.parametrize(
    "viscosity, size, error", [(0.1, 64, 1e-9), (0.01, 256, 3e-9), (0.004, 512, 3e-7)]
)
def test_burgers_is_the_cole_hopf_solution(viscosity, size, error):
    x = np.arange(size) / size
    u0 = jnp.sin(2 * jnp.pi * x)
    u = pde.solve_burgers(u0, viscosity=viscosity, time=0.5, num_steps=2 * size)
    np.testing.assert_allclose(u, _cole_hopf(x, 0.5, viscosity), rtol=0, atol=error)


def test_burgers_is_of_fourth_order_in_time():
    x = np.arange(128) / 128
    exact = _cole_hopf(x, 0.5, 0.02)
    u0, errors = jnp.sin(2 * jnp.pi * x), []
    for num_steps in (40, 80, 160):
        u = pde.solve_burgers(u0, viscosity=0.02, time=0.5, num_steps=num_steps)
        errors.append(np.abs(u - exact).max())
    assert (order(errors) > 3.7).all(), errors


def test_burgers_data():
    options = {"viscosity": 0.1, **QUIET}
    data = pde.burgers(5, 64, stride=2, num_frames=4, batch_size=2, **options)
    assert data.inputs.shape == (5, 32) and data.outputs.shape == (5, 4, 32)
    np.testing.assert_allclose(data.coordinates[0], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(data.coordinates[1], np.arange(32) / 32)
    last = pde.burgers(5, 64, **options)
    assert last.outputs.shape == (5, 64) and len(last.coordinates) == 1
    np.testing.assert_allclose(data.outputs[:, -1], last.outputs[:, ::2], atol=1e-8)
    np.testing.assert_allclose(np.mean(last.outputs, axis=1), 0, atol=1e-12)
    field = GaussianField(2, 5, 25, "periodic").sample(64, key=jax.random.fold_in(KEY, 4))
    np.testing.assert_allclose(last.inputs[4], field, atol=1e-12)
    alone = pde.solve_burgers(field, viscosity=0.1, time=1.0, num_steps=640)
    np.testing.assert_allclose(last.outputs[4], alone, atol=1e-12)


def test_burgers_with_zero_ends_is_the_cole_hopf_solution():
    nu, field = 0.03, GaussianField(3, 3, 20, "dirichlet")
    data = pde.burgers(3, 129, field=field, viscosity=nu, final_time=0.5, num_frames=2, **QUIET)
    np.testing.assert_allclose(data.coordinates[1], np.linspace(0, 1, 129))
    k, fine, mode = np.arange(1, 128), np.linspace(0, 1, 4097), np.arange(4097)
    for u0, u in zip(np.asarray(data.inputs), np.asarray(data.outputs[:, 1]), strict=True):
        assert np.all(u[[0, -1]] == 0) and np.all(u0[[0, -1]] == 0) and np.abs(u0).max() > 0.1
        sines = np.asarray(scipy.fft.dst(u0[1:-1], type=1)) / 128
        potential = (1 - np.cos(np.pi * np.outer(fine, k))) @ (sines / (np.pi * k))
        terms = np.asarray(scipy.fft.dct(np.exp(-potential / (2 * nu)), type=1)) / 4096
        terms[[0, -1]] /= 2
        terms *= np.exp(-nu * (np.pi * mode) ** 2 * 0.5)
        angles = np.pi * np.outer(data.coordinates[1], mode)
        exact = 2 * nu * (np.sin(angles) @ (np.pi * mode * terms)) / (np.cos(angles) @ terms)
        np.testing.assert_allclose(u, exact, rtol=0, atol=1e-8)
    coarse = pde.burgers(3, 129, field=field, viscosity=nu, final_time=0.5, stride=4, **QUIET)
    np.testing.assert_array_equal(coarse.inputs, data.inputs[:, ::4])
    np.testing.assert_allclose(coarse.outputs, data.outputs[:, 1, ::4], atol=1e-8)


def test_burgers_differentiates(rng):
    u0, v = jnp.sin(2 * jnp.pi * jnp.arange(32.0) / 32), jnp.asarray(rng.standard_normal(32))
    solve = lambda u: pde.solve_burgers(u, viscosity=0.05, time=0.2, num_steps=40)
    loss = lambda u: jnp.sum(jnp.cos(3 * solve(u)))
    slope = (loss(u0 + 1e-5 * v) - loss(u0 - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(jax.grad(loss)(u0) @ v, slope, rtol=1e-6)
    lanes = jnp.stack([u0, v / 4])
    for lane, u in zip(lanes, jax.jit(jax.vmap(solve))(lanes), strict=True):
        np.testing.assert_allclose(u, solve(lane), atol=1e-13)


# Navier-Stokes equations


def test_taylor_green_vortex_decays_exactly():
    x, y = grid(16, periodic=True)
    swirl = np.cos(2 * np.pi * x) * np.sin(2 * np.pi * y)
    exact, errors = swirl * np.exp(-8 * np.pi**2 * 0.01), []
    for num_steps in (10, 20, 40):
        w = pde.solve_navier_stokes(
            jnp.asarray(swirl), viscosity=0.01, time=1.0, num_steps=num_steps
        )
        errors.append(np.abs(w - exact).max())
    np.testing.assert_allclose(order(errors), 2, atol=0.05)  # no convection: Crank-Nicolson's
    assert errors[-1] < 3e-5


def _flow(size):
    x, y = grid(size, periodic=True)
    forcing = 0.1 * (np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y)))
    w = np.cos(2 * np.pi * (2 * x - y)) + np.sin(2 * np.pi * (x + 2 * y))
    return w + np.sin(2 * np.pi * x + 1), forcing


def _reference(w, forcing, viscosity, time):
    """SciPy's DOP853, and the product on a grid of twice the points: another way to
    keep it free of aliasing. The modes are those below a third."""
    n = len(w)
    k = np.fft.fftfreq(n) * n
    kx, ky = 2 * np.pi * k[:, None], 2 * np.pi * k[None, :]
    squares = kx**2 + ky**2
    keep = (np.abs(k)[:, None] < n / 3) & (np.abs(k)[None, :] < n / 3)
    inverse = np.where(squares > 0, 1 / np.where(squares > 0, squares, 1), 0)

    def fine(f):
        wide = np.zeros((2 * n, 2 * n), complex)
        places = np.fft.fftfreq(n, 1 / n).astype(int)
        wide[np.ix_(places, places)] = 4 * f
        return np.fft.ifft2(wide).real

    def slope(_, flat):
        w = flat[: n * n].reshape(n, n) + 1j * flat[n * n :].reshape(n, n)
        w = w * keep
        u, v = fine(1j * ky * inverse * w), fine(-1j * kx * inverse * w)
        product = np.fft.fft2(u * fine(1j * kx * w) + v * fine(1j * ky * w)) / 4
        places = np.fft.fftfreq(n, 1 / n).astype(int)
        change = -product[np.ix_(places, places)] * keep - viscosity * squares * w
        change = change + np.fft.fft2(forcing)
        return np.concatenate([change.real.ravel(), change.imag.ravel()])

    start = np.fft.fft2(w)
    start = np.concatenate([start.real.ravel(), start.imag.ravel()])
    options = {"method": "DOP853", "rtol": 1e-9, "atol": 1e-9, "t_eval": [time]}
    end = scipy.integrate.solve_ivp(slope, (0, time), start, **options).y[:, 0]
    return np.fft.ifft2((end[: n * n] + 1j * end[n * n :]).reshape(n, n)).real


def test_navier_stokes_is_an_independent_solution():
    w, forcing = _flow(16)
    exact, found = _reference(w, forcing, 5e-3, 1.0), []
    for num_steps in (200, 400, 800):
        options = {"viscosity": 5e-3, "time": 1.0, "num_steps": num_steps}
        found.append(pde.solve_navier_stokes(jnp.asarray(w), jnp.asarray(forcing), **options))
    errors = [relative(f, exact) for f in found]
    np.testing.assert_allclose(order(errors), 1, atol=0.05)
    assert relative(2 * found[2] - found[1], exact) < 2e-5, errors


def test_navier_stokes_balances_energy():
    # dE/dt = -nu <w, w> + <psi, f>, where E = <psi, w> / 2: convection neither makes nor takes it.
    w, forcing = _flow(32)
    step, viscosity = 1e-5, 1e-3
    options = {"viscosity": viscosity, "time": step, "num_steps": 1}
    after = pde.solve_navier_stokes(jnp.asarray(w), jnp.asarray(forcing), **options)
    k = np.fft.fftfreq(32) * 32
    squares = 4 * np.pi**2 * (k[:, None] ** 2 + k**2)
    inverse = np.where(squares > 0, 1 / np.where(squares > 0, squares, 1), 0)
    psi = lambda w: np.fft.ifft2(np.fft.fft2(w) * inverse).real
    energy = lambda w: np.mean(psi(w) * w) / 2
    rate = (energy(after) - energy(w)) / step
    expected = -viscosity * np.mean(w**2) + np.mean(psi(w) * forcing)
    np.testing.assert_allclose(rate, expected, rtol=1e-4)
    change = np.mean(np.asarray(after) - w)
    np.testing.assert_allclose(change, 0, atol=1e-15)


def test_navier_stokes_data():
    short = {"final_time": 0.3, "num_frames": 3, "step_size": 0.01}
    data = pde.navier_stokes(3, 32, stride=2, batch_size=2, **short, **QUIET)
    assert data.inputs.shape == (3, 16, 16) and data.outputs.shape == (3, 3, 16, 16)
    np.testing.assert_allclose(data.coordinates[0], [0.1, 0.2, 0.3])
    field = GaussianField(2.5, 7, math.sqrt(2 * 7**3), "periodic")
    w = field.sample((32, 32), key=jax.random.fold_in(KEY, 2))
    np.testing.assert_allclose(data.inputs[2], w[::2, ::2], atol=1e-12)
    x, y = grid(32, periodic=True)
    forcing = jnp.asarray(0.1 * (np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y))))
    end = pde.solve_navier_stokes(w, forcing, viscosity=1e-3, time=0.3, num_steps=30)
    np.testing.assert_allclose(data.outputs[2, -1], end[::2, ::2], atol=1e-11)


# The Helmholtz equation


def test_helmholtz_converges_to_a_manufactured_solution_at_second_order():
    errors = []
    for n in (17, 33, 65):
        x, y = grid(n)
        c = 1 + 0.3 * np.sin(2 * x - y)
        exact = np.cos(np.pi * x) * np.cos(2 * np.pi * y)
        source = (5 * np.pi**2 - (3.0 / c) ** 2) * exact
        u = pde.solve_helmholtz(c, source, frequency=3)
        errors.append(np.abs(u - exact).max())
    np.testing.assert_allclose(order(errors), 2, atol=0.1)


def test_helmholtz_with_a_flux_is_the_plane_wave():
    errors = []
    for n in (21, 41, 81):
        _, y = grid(n)
        exact = -np.cos(8.0 * y) / (8.0 * np.sin(8.0))
        u = pde.solve_helmholtz(np.full((n, n), 2.0), flux=1.0, frequency=16.0)
        errors.append(np.abs(u - exact).max())
    np.testing.assert_allclose(order(errors), 2, atol=0.1)


def test_helmholtz_flux_enters_where_it_is_said(rng):
    # Tested with the constant function: (omega / c)^2 int u = - int g, exactly.
    flux = rng.standard_normal(12)
    u = pde.solve_helmholtz(np.ones((13, 13)), flux=flux, frequency=5.0)
    total = np.trapezoid(np.trapezoid(u)) / 12**2
    np.testing.assert_allclose(25 * total, -flux.mean(), rtol=1e-10)
    mirrored = pde.solve_helmholtz(np.ones((13, 13)), flux=flux[::-1], frequency=5.0)
    np.testing.assert_allclose(mirrored, u[::-1], rtol=1e-8, atol=1e-12)


def test_helmholtz_data():
    data = pde.helmholtz(2, 41, stride=2, **QUIET)
    field = GaussianField(2, 3, 1, num_modes=100)
    c = 20 + np.tanh(field.sample((41, 41), key=jax.random.fold_in(KEY, 1)))
    np.testing.assert_allclose(data.inputs[1], c[::2, ::2], rtol=1e-12)
    flux = np.abs((np.arange(40) + 0.5) / 40 - 0.5) < 0.15
    assert flux.sum() == 12
    u = pde.solve_helmholtz(c, flux=flux.astype(float), frequency=1000)
    np.testing.assert_allclose(data.outputs[1], u[::2, ::2], rtol=1e-8, atol=1e-10)


# All data sets


MAKERS = {
    "darcy_two_phase": lambda num, **kw: pde.darcy_two_phase(num, 9, **kw),
    "darcy_rough": lambda num, **kw: pde.darcy_rough(num, 9, **kw),
    "darcy_smooth": lambda num, **kw: pde.darcy_smooth(num, 9, **kw),
    "darcy_multiscale": lambda num, **kw: pde.darcy_multiscale(num, 9, **kw),
    "burgers": lambda num, **kw: pde.burgers(num, 32, viscosity=0.2, final_time=0.1, **kw),
    "navier_stokes": lambda num, **kw: pde.navier_stokes(
        num, 12, final_time=0.02, num_frames=2, step_size=0.01, **kw
    ),
    "helmholtz": lambda num, **kw: pde.helmholtz(num, 9, frequency=30, **kw),
}


@pytest.mark.parametrize("name", MAKERS)
def test_keys_say_what_is_drawn(name):
    make = MAKERS[name]
    data = make(4, **QUIET)
    for x, y in zip(jax.tree.leaves(data), jax.tree.leaves(make(4, **QUIET)), strict=True):
        np.testing.assert_array_equal(x, y)
    fewer = make(2, **QUIET)
    np.testing.assert_allclose(fewer.inputs, data.inputs[:2], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(fewer.outputs, data.outputs[:2], rtol=1e-9, atol=1e-12)
    other = make(2, key=jax.random.key(1), progress=False)
    assert relative(other.inputs, np.asarray(fewer.inputs)) > 1e-3
    assert relative(data.inputs[1], np.asarray(data.inputs[0])) > 1e-3
    assert [x.size for x in data.coordinates] == [*data.outputs.shape[1:]]
    ways = {"batch_size": 3} if name in ("burgers", "navier_stokes") else {"workers": 3}
    again = make(4, **ways, **QUIET)
    np.testing.assert_allclose(again.outputs, data.outputs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_float32_is_the_same_data(name):
    make = MAKERS[name]
    double = make(2, **QUIET)
    with jax.enable_x64(False):
        single = make(2, **QUIET)
    for x, y in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert x.dtype == jnp.float32 and y.dtype == jnp.float64
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_progress_is_shown_on_request(capsys):
    pde.darcy_rough(2, 5, key=KEY)
    MAKERS["burgers"](3, key=KEY, batch_size=2)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "3/3" in shown
    pde.darcy_rough(2, 5, **QUIET)
    assert not capsys.readouterr().err


ones = np.ones((5, 5))
periodic = GaussianField(2, 5, 25, "periodic")
zero_ends = GaussianField(2, 5, 25, "dirichlet")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: GaussianField(0.0, 3.0), "`alpha`"),
        (lambda: GaussianField(2.0, -3.0), "`tau`"),
        (lambda: GaussianField(2.0, 3.0, 0.0), "`sigma`"),
        (lambda: GaussianField(2.0, 3.0, num_modes=0), "`num_modes`"),
        (lambda: GaussianField(2, 3, boundary="periodic", num_modes=4), "`num_modes`"),
        (lambda: periodic.sample((0, 4), key=KEY), "shape"),
        (lambda: periodic.sample((1, 4), key=KEY), "`shape`"),
        (lambda: pde.solve_darcy(np.ones((4, 5))), "`coefficient`"),
        (lambda: pde.solve_darcy(np.ones((2, 2))), "`coefficient`"),
        (lambda: pde.solve_darcy(-ones), "`coefficient`"),
        (lambda: pde.solve_darcy(np.nan * ones), "`coefficient`"),
        (lambda: pde.solve_darcy(ones, np.ones(5)), "`source`"),
        (lambda: pde.solve_darcy(ones, np.inf), "`source`"),
        (lambda: pde.darcy_operator(jnp.ones((4, 5))), "`coefficient`"),
        (lambda: pde.darcy_rough(0, 9, **QUIET), "`num`"),
        (lambda: pde.darcy_rough(2, 2, **QUIET), "`size`"),
        (lambda: pde.darcy_rough(2, 9, stride=3, **QUIET), "`stride`"),
        (lambda: pde.darcy_rough(2, 9, stride=0, **QUIET), "`stride`"),
        (lambda: pde.darcy_rough(2, 9, workers=0, **QUIET), "`workers`"),
        (lambda: pde.darcy_two_phase(2, 9, values=(12, 0), **QUIET), "`values`"),
        (lambda: pde.darcy_multiscale(2, 9, num_scales=0, **QUIET), "`num_scales`"),
        (lambda: pde.burgers(0, 16, **QUIET), "`num`"),
        (lambda: pde.burgers(2, 3, **QUIET), "`size`"),
        (lambda: pde.burgers(2, 16, stride=3, **QUIET), "`stride`"),
        (lambda: pde.burgers(2, 16, stride=4, field=zero_ends, **QUIET), "`stride`"),
        (lambda: pde.burgers(2, 16, viscosity=0.0, **QUIET), "`viscosity`"),
        (lambda: pde.burgers(2, 16, final_time=0.0, **QUIET), "`final_time`"),
        (lambda: pde.burgers(2, 16, num_frames=0, **QUIET), "`num_frames`"),
        (lambda: pde.burgers(2, 16, step_size=-1.0, **QUIET), "`step_size`"),
        (lambda: pde.burgers(2, 16, batch_size=0, **QUIET), "`batch_size`"),
        (lambda: pde.burgers(2, 16, field=GaussianField(2, 3), **QUIET), "`field`"),
        (lambda: pde.burgers(4, 32, viscosity=1e-3, **QUIET), "`size` 32 does not resolve"),
        (
            lambda: pde.burgers(
                2, 256, field=GaussianField(2, 5, 1e4, "periodic"), step_size=0.1, **QUIET
            ),
            "`step_size` 0.1 is too long",
        ),
        (
            lambda: pde.solve_burgers(jnp.ones(8), viscosity=-1.0, time=1.0, num_steps=2),
            "`viscosity`",
        ),
        (lambda: pde.solve_burgers(jnp.ones(8), viscosity=1, time=0.0, num_steps=2), "`time`"),
        (
            lambda: pde.solve_burgers(jnp.ones(8), viscosity=1, time=1.0, num_steps=0),
            "`num_steps`",
        ),
        (lambda: pde.navier_stokes(0, 16, **QUIET), "`num`"),
        (lambda: pde.navier_stokes(2, 3, **QUIET), "`size`"),
        (lambda: pde.navier_stokes(2, 16, num_frames=0, **QUIET), "`num_frames`"),
        (lambda: pde.navier_stokes(2, 16, stride=5, **QUIET), "`stride`"),
        (lambda: pde.navier_stokes(2, 16, final_time=-1.0, **QUIET), "`final_time`"),
        (lambda: pde.navier_stokes(2, 16, step_size=0.0, **QUIET), "`step_size`"),
        (lambda: pde.navier_stokes(2, 16, viscosity=0.0, **QUIET), "`viscosity`"),
        (lambda: pde.navier_stokes(2, 16, field=GaussianField(2, 3), **QUIET), "`field`"),
        (
            lambda: pde.navier_stokes(
                1,
                16,
                field=GaussianField(2, 5, 1e9, "periodic"),
                final_time=10.0,
                num_frames=1,
                step_size=0.1,
                **QUIET,
            ),
            "`step_size` 0.1 is too long",
        ),
        (
            lambda: pde.solve_navier_stokes(
                jnp.ones((4, 4)), jnp.ones((4, 6)), viscosity=1.0, time=1.0, num_steps=1
            ),
            "forcing",
        ),
        (lambda: pde.solve_helmholtz(np.ones((4, 5)), frequency=1.0), "`speed`"),
        (lambda: pde.solve_helmholtz(0 * ones, frequency=1.0), "`speed`"),
        (lambda: pde.solve_helmholtz(ones, np.ones(4), frequency=1.0), "`source`"),
        (lambda: pde.solve_helmholtz(ones, flux=np.ones(5), frequency=1.0), "`flux`"),
        (lambda: pde.solve_helmholtz(ones, frequency=0.0), "`frequency`"),
        (lambda: pde.helmholtz(2, 9, frequency=-1.0, **QUIET), "`frequency`"),
        (lambda: pde.helmholtz(2, 2, **QUIET), "`size`"),
        (lambda: pde.helmholtz(2, 9, stride=3, **QUIET), "`stride`"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


@pytest.mark.slow
def test_multigrid_solves_the_same_systems_in_a_batch():
    draw = lambda i: GaussianField(2, 3).sample((65, 65), key=jax.random.fold_in(KEY, i))
    a = jnp.where(jax.vmap(draw)(jnp.arange(4)) >= 0, 12.0, 3.0)
    solver = jinv.linear.PCG(1e-10, 0.0, preconditioner=jinv.linear.Multigrid())
    solve = lambda a: lx.linear_solve(pde.darcy_operator(a), jnp.ones((63, 63)), solver).value
    for u, lane in zip(jax.jit(jax.vmap(solve))(a), a, strict=True):
        expected = np.asarray(pde.solve_darcy(lane))[1:-1, 1:-1]
        np.testing.assert_allclose(u, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.slow
def test_the_reference_set_has_the_reference_statistics():
    """1000 + 100 samples on 64 x 64 of 127 x 127 nodes; the figure is one of other code."""
    data = pde.darcy_two_phase(1100, 127, stride=2, **QUIET)
    assert data.outputs.shape == (1100, 64, 64)
    assert abs(np.std(data.outputs[:1000]) / 3.85e-3 - 1) < 0.03


# Files


CALLS = []


def _count(num, size, *, key, scale=1.0, workers=1, progress=True):
    """A data set that says how often it was made."""
    CALLS.append(num)
    x = scale * jax.random.normal(key, (num, size))
    return pde.OperatorData(x, 2 * x, (jnp.arange(size) / size,))


@pytest.fixture
def made():
    CALLS.clear()
    return lambda: len(CALLS)


def test_cache_gives_back_what_was_made(tmp_path, made):
    folder = tmp_path / "new" / "folder"
    options: Any = {"key": KEY, "scale": 2.0}
    first = pde.cached(folder, _count, 3, 4, **options)
    again = pde.cached(folder, _count, 3, size=4, workers=7, progress=False, **options)
    assert made() == 1
    assert jax.tree.structure(first) == jax.tree.structure(again)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    assert [p.name.startswith("_count-") for p in folder.iterdir()] == [True]
    others: Any = ({**options, "key": jax.random.key(1)}, {"key": KEY}, {**options, "scale": 3})
    for other in others:
        pde.cached(folder, _count, 3, 4, **other)
    with jax.enable_x64(False):
        assert pde.cached(folder, _count, 3, 4, **options).inputs.dtype == jnp.float32
    assert made() == 5 and len(list(folder.iterdir())) == 5


def test_cache_refuses_damaged_and_exchanged_files(tmp_path, made):
    make = lambda seed, **kw: pde.cached(tmp_path, _count, 3, 4, key=jax.random.key(seed), **kw)
    first = make(0)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    middle = content.index(b"arr_0.npy") + 150
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for wrong in (content[:-40], b"", b"not an archive", flipped):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{path.name}.*overwrite=True"):
            make(0)
        assert path.read_bytes() == wrong
    # A sound archive with other numbers than it was sealed with.
    with np.load(path.parent / path.name if path.write_bytes(content) else path) as archive:
        arrays = {**archive, "arr_1": archive["arr_1"] + 1}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"{path.name}: damaged"):
        make(0)
    path.write_bytes(content)
    make(1)
    (other,) = set(tmp_path.iterdir()) - {path}
    shutil.copy(other, path)
    with pytest.raises(ValueError, match=f"{path.name}: exchanged"):
        make(0)
    assert made() == 2
    np.testing.assert_array_equal(make(0, overwrite=True).inputs, first.inputs)
    np.testing.assert_array_equal(make(0).inputs, first.inputs)
    assert made() == 3


def test_cache_names_what_it_cannot_hold(tmp_path):
    wrong: Any = (lambda num: None, 3, GaussianField(2, 3).sample, tmp_path.exists)
    for make in wrong:
        with pytest.raises((ValueError, TypeError), match="make"):
            pde.cached(tmp_path, make, 1)
    with pytest.raises(ValueError, match="`scale`"):
        pde.cached(tmp_path, _count, 1, 2, key=KEY, scale=object())
    with pytest.raises(ValueError, match="OperatorData"):
        pde.cached(tmp_path, math.sqrt, 4.0)
    with pytest.raises(ZeroDivisionError):
        pde.cached(tmp_path, _fails, field=GaussianField(2, 3), values=(1, 2.5), x=np.ones(2))
    assert not list(tmp_path.iterdir())


def _fails(field, values, x):
    raise ZeroDivisionError
