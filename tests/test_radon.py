"""X-ray transforms against closed forms, scikit-image and finite differences."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec as P

from jinv.operators import (
    AbstractOperator,
    FanBeam,
    ParallelBeam,
    ellipse_image,
    ellipse_sinogram,
    filtered_back_projection,
)


SPECIAL = np.array([0.0, np.pi / 2, np.pi / 4, 3 * np.pi / 4, np.pi, -0.3, 1.2, 2.9, 5.0])


def _parallel(shape, angles, dtype=jnp.float64, **kwargs):
    return ParallelBeam(shape, jnp.asarray(angles, dtype), **kwargs)


def _fan(shape, angles, dtype=jnp.float64, **kwargs):
    distances = {"source_distance": 3.0 * max(shape), "detector_distance": 1.7 * max(shape)}
    return FanBeam(shape, jnp.asarray(angles, dtype), **(distances | kwargs))


OPERATORS = {"parallel": _parallel, "fan": _fan}


@pytest.fixture(params=list(OPERATORS.values()), ids=list(OPERATORS))
def make(request):
    return request.param


def _equispaced(num, turn):
    return np.arange(num) * (turn / num)


def _error(got, expected):
    return float(np.linalg.norm(np.asarray(got) - expected) / np.linalg.norm(expected))


def _phantom(n):
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    return resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)


def _skimage_radon(image, degrees, circle):
    from skimage.transform import radon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return radon(image, degrees, circle=circle).T


def _ellipses(n):
    return jnp.array(
        [
            [1.0, 0.37 * n, 0.27 * n, 0.02 * n, -0.03 * n, 0.4],
            [-0.6, 0.12 * n, 0.07 * n, 0.1 * n, 0.05 * n, -0.9],
            [0.8, 0.06 * n, 0.06 * n, -0.15 * n, -0.08 * n, 0.0],
        ]
    )


def _gaussian(operator, x, y, width):
    """A blob and its line integrals, in the unit of `pixel_size`."""
    rows, columns = (np.asarray(a) for a in operator.geometry.pixels(operator.angles.dtype))
    image = np.exp(-((columns - x) ** 2 + (-rows - y) ** 2) / (2 * width**2))
    theta, s = (np.asarray(a) for a in operator.geometry.lines(operator.angles))
    t = s - x * np.cos(theta) - y * np.sin(theta)
    return jnp.asarray(image), np.sqrt(2 * np.pi) * width * np.exp(-(t**2) / (2 * width**2))


# --- The adjoint


@pytest.mark.parametrize(
    "shape, kwargs",
    [((9, 14), {}), ((13, 6), {"num_detectors": 7, "detector_spacing": 2.3}), ((1, 5), {})],
)
def test_adjoint_is_the_transpose(make, shape, kwargs):
    A = make(shape, SPECIAL, **kwargs)
    matrix = A.as_matrix()
    transposed = jax.vmap(lambda y: A.T.mv(y.reshape(A.out_structure().shape)).reshape(-1))(
        jnp.eye(matrix.shape[0])
    )
    np.testing.assert_allclose(transposed, matrix, rtol=0, atol=1e-13 * float(jnp.max(matrix)))
    assert jnp.all(matrix >= 0)


@pytest.mark.parametrize(
    "dtype, tolerance, shape, num_detectors, spacing, pixel",
    [
        (jnp.float64, 1e-13, (32, 32), None, 1.0, 1.0),
        (jnp.float32, 1e-6, (31, 45), 40, 0.3, 1.0),
        (jnp.float64, 1e-13, (45, 30), 41, 1.7, 0.6),
        (jnp.float32, 1e-6, (64, 17), 128, 0.05, 0.1),
    ],
)
def test_adjointness(make, getkey, dtype, tolerance, shape, num_detectors, spacing, pixel):
    angles = np.concatenate([SPECIAL, np.linspace(0, np.pi, 20)])
    lengths = {"num_detectors": num_detectors, "detector_spacing": spacing, "pixel_size": pixel}
    A = make(shape, angles, dtype, **lengths)
    x = jax.random.normal(getkey(), shape, dtype)
    y = jax.random.normal(getkey(), A.out_structure().shape, dtype)
    Ax, Aty = A.mv(x), A.adjoint_mv(y)
    assert Ax.dtype == Aty.dtype == dtype
    assert Ax.shape == A.out_structure().shape and Aty.shape == shape
    gap = abs(float(jnp.vdot(Ax, y) - jnp.vdot(x, Aty)))
    assert gap <= tolerance * float(jnp.linalg.norm(Ax) * jnp.linalg.norm(y))


# --- Truth


def test_axis_aligned_views_are_sums():
    image = np.random.default_rng(0).normal(size=(7, 7))
    A = _parallel((7, 7), [0.0, np.pi / 2, np.pi], num_detectors=7)
    down, across, up = np.asarray(A.mv(jnp.asarray(image)))
    np.testing.assert_allclose(down, image.sum(0), atol=1e-12)
    np.testing.assert_allclose(across, image.sum(1)[::-1], atol=1e-12)
    np.testing.assert_allclose(up, image.sum(0)[::-1], atol=1e-12)


def _grid(make, n, **kwargs):
    """The same physical scanner and object for each `n`."""
    if make is _fan:
        kwargs = {"source_distance": 2.0, "detector_distance": 1.0} | kwargs
    turn = 2 * np.pi if make is _fan else np.pi
    spacing = 1.0 / n * (1.5 if make is _fan else 1.0)
    return make(
        (n, n),
        _equispaced(60, turn) + 0.003,
        pixel_size=1 / n,
        detector_spacing=spacing,
        **kwargs,
    )


def test_smooth_images_converge_with_order_two(make):
    errors = []
    for n in (48, 96):
        A = _grid(make, n)
        image, exact = _gaussian(A, 0.08, -0.05, 0.08)
        errors.append(_error(A.mv(image), np.asarray(exact)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 1.9), (errors, orders)
    assert errors[-1] < 1.2e-3


def test_ellipses_converge_with_order_one(make):
    errors = []
    for n in (32, 128):
        A = _grid(make, n)
        image = ellipse_image(A, _ellipses(1))
        errors.append(_error(A.mv(image), np.asarray(ellipse_sinogram(A, _ellipses(1)))))
    order = np.log2(errors[0] / errors[-1]) / 2
    assert order > 0.9, errors
    assert errors[-1] < 8e-3


def test_ellipse_sinogram_is_quadrature_of_the_image(make):
    A = make((16, 16), [0.4, 2.0], num_detectors=9)
    theta, s = (np.asarray(a) for a in A.geometry.lines(A.angles))
    t = np.linspace(-20, 20, 40001)
    x = s[..., None] * np.cos(theta)[..., None] + t * np.sin(theta)[..., None]
    y = s[..., None] * np.sin(theta)[..., None] - t * np.cos(theta)[..., None]
    density = np.zeros_like(x)
    for value, a, b, x0, y0, phi in np.asarray(_ellipses(16)):
        u = (x - x0) * np.cos(phi) + (y - y0) * np.sin(phi)
        v = (y - y0) * np.cos(phi) - (x - x0) * np.sin(phi)
        density += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    expected = density.sum(-1) * (t[1] - t[0])
    np.testing.assert_allclose(ellipse_sinogram(A, _ellipses(16)), expected, atol=5e-3)


def test_fan_lines_pass_through_source_and_detector():
    A = _fan((8, 8), SPECIAL, num_detectors=5, detector_spacing=3.0)
    theta, s = (np.asarray(a) for a in A.geometry.lines(A.angles))
    R, T, beta = 24.0, 1.7 * 8, SPECIAL[:, None]
    u = (np.arange(5) - 2) * 3.0
    for along, across in ((-R, 0.0), (T, u[None, :])):
        x = along * np.sin(beta) + across * np.cos(beta)
        y = -along * np.cos(beta) + across * np.sin(beta)
        np.testing.assert_allclose(x * np.cos(theta) + y * np.sin(theta), s, atol=1e-12)


def test_no_less_accurate_than_skimage():
    n, degrees = 128, np.arange(0, 180, 2.0)
    A = _parallel((n, n), np.deg2rad(degrees))
    for image, exact in (
        (ellipse_image(A, _ellipses(n)), ellipse_sinogram(A, _ellipses(n))),
        _gaussian(A, 9.0, -13.0, 3.0),
        _gaussian(A, 9.0, -13.0, 10.0),
    ):
        exact = np.asarray(exact)
        theirs = _error(_skimage_radon(np.asarray(image), degrees, circle=False), exact)
        assert _error(A.mv(image), exact) < 1.02 * theirs


@pytest.mark.parametrize("n, circle", [(128, True), (127, True), (127, False)])
def test_agrees_with_skimage_radon(n, circle):
    degrees = np.arange(0, 180, 3.0)
    rows, columns = np.indices((n, n)) - n // 2
    image = _phantom(n) * (rows**2 + columns**2 < (n // 2) ** 2)
    theirs = _skimage_radon(image, degrees, circle)
    A = _parallel((n, n), np.deg2rad(degrees), num_detectors=n if circle else None)
    assert A.out_structure().shape == theirs.shape
    assert _error(A.mv(jnp.asarray(image)), theirs) < 0.006


def test_agrees_with_skimage_radon_on_a_rectangle():
    image = _phantom(96)[10:71]
    degrees = np.arange(0, 180, 7.0)
    theirs = _skimage_radon(image, degrees, circle=False)
    A = _parallel(image.shape, np.deg2rad(degrees))
    assert _error(A.mv(jnp.asarray(image)), theirs) < 0.008


def test_a_distant_source_is_a_parallel_beam():
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    image = jnp.asarray(_phantom(64), jnp.float32)
    parallel = _parallel((64, 64), angles, jnp.float32)
    exact = parallel.mv(image)
    for distance, tolerance in ((1e4, 1.5e-2), (1e7, 2e-3)):
        fan = _fan(
            (64, 64),
            angles,
            jnp.float32,
            source_distance=distance,
            detector_distance=3 * distance,
            detector_spacing=4.0,
            num_detectors=parallel.out_structure().shape[1],
        )
        assert _error(fan.mv(image), np.asarray(exact)) < tolerance


def test_opposite_parallel_views_mirror():
    image = jnp.asarray(np.random.default_rng(1).normal(size=(12, 15)))
    near, far = _parallel((12, 15), [0.7, 0.7 + np.pi], num_detectors=25).mv(image)
    np.testing.assert_allclose(near, far[::-1], atol=1e-11)


def test_lengths_scale():
    image = jnp.asarray(np.random.default_rng(2).normal(size=(12, 15)))
    for make in OPERATORS.values():
        scale = {"source_distance": 150.0, "detector_distance": 60.0} if make is _fan else {}
        large = {name: 4 * value for name, value in scale.items()}
        one = make((12, 15), SPECIAL, num_detectors=21, detector_spacing=1.3, **scale)
        four = make(
            (12, 15), SPECIAL, num_detectors=21, detector_spacing=5.2, pixel_size=4.0, **large
        )
        np.testing.assert_allclose(four.mv(image), 4 * one.mv(image), atol=1e-10)


# --- Filtered back-projection


def _psnr(got, image):
    return float(10 * np.log10(np.max(image) ** 2 / np.mean((np.asarray(got) - image) ** 2)))


def test_fbp_reconstructs(make):
    n = 96
    A = make((n, n), _equispaced(180, 2 * np.pi if make is _fan else np.pi))
    image = _phantom(n)
    reconstruction = filtered_back_projection(A, A.mv(jnp.asarray(image)))
    assert _psnr(reconstruction, image) > 26
    exact = np.asarray(ellipse_image(A, _ellipses(n)))
    reconstruction = filtered_back_projection(A, ellipse_sinogram(A, _ellipses(n)))
    assert _psnr(reconstruction, exact) > 25
    inside = (slice(n // 2 - 6, n // 2 + 2), slice(n // 2 - 4, n // 2 + 4))
    np.testing.assert_allclose(np.mean(reconstruction[inside]), np.mean(exact[inside]), atol=5e-3)


@pytest.mark.parametrize("window", ["ramp", "shepp-logan", "hann"])
def test_fbp_agrees_with_iradon(window):
    from skimage.transform import iradon

    n, degrees = 64, np.arange(0, 180, 2.0)
    A = _parallel((n, n), np.deg2rad(degrees))
    sinogram = A.mv(jnp.asarray(_phantom(n)))
    theirs = iradon(
        np.asarray(sinogram).T, degrees, filter_name=window, circle=False, output_size=n
    )
    assert _error(filtered_back_projection(A, sinogram, window=window), theirs) < 2e-3


def test_fbp_is_linear_and_keeps_float32():
    A = _parallel((16, 16), _equispaced(20, np.pi), jnp.float32)
    y = jnp.asarray(np.random.default_rng(3).normal(size=A.out_structure().shape), jnp.float32)
    out, pullback = jax.vjp(lambda y: filtered_back_projection(A, y, window="hann"), y)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(jnp.vdot(pullback(out)[0], y), jnp.vdot(out, out), rtol=1e-5)


# --- Derivatives


def _smooth_image(shape):
    rows, columns = np.indices(shape) / 3.0
    return jnp.asarray(np.sin(rows + 0.3) * np.cos(columns) + 0.2 * rows)


# Off every kink: these angles are irrational multiples of the grid's special directions.
REGULAR = np.array([0.1234, 0.6789, 1.0123, 2.2222, 4.4321])


def test_angle_derivatives_match_finite_differences(make, getkey):
    image = _smooth_image((11, 14))
    out = make((11, 14), REGULAR, num_detectors=23).out_structure().shape
    y = jax.random.normal(getkey(), out, jnp.float64)
    direction = jnp.array([1.0, -0.5, 0.3, 2.0, -1.0])

    def forward(angles):
        return jnp.vdot(make((11, 14), angles, num_detectors=23).mv(image), y)

    def backward(angles):
        return jnp.vdot(make((11, 14), angles, num_detectors=23).adjoint_mv(y), image)

    angles = jnp.asarray(REGULAR)
    eps = 1e-7
    for fn in (forward, backward):
        difference = (fn(angles + eps * direction) - fn(angles - eps * direction)) / (2 * eps)
        _, tangent = jax.jvp(fn, (angles,), (direction,))
        gradient = jax.jit(jax.grad(fn))(angles)
        np.testing.assert_allclose(tangent, difference, rtol=1e-6)
        np.testing.assert_allclose(jnp.vdot(gradient, direction), tangent, rtol=1e-12)


def test_angle_derivative_tends_to_the_truth(make):
    """The derivative of a smooth object's projections, not only that of the discretisation."""
    A = _grid(make, 128)

    def exact(angles):
        theta, s = A.geometry.lines(angles)
        t = s - 0.1 * jnp.cos(theta) + 0.07 * jnp.sin(theta)
        return np.sqrt(2 * np.pi) * 0.08 * jnp.exp(-(t**2) / (2 * 0.08**2))

    image, _ = _gaussian(A, 0.1, -0.07, 0.08)
    ones = jnp.ones_like(A.angles)
    replaced = lambda angles: jax.tree.unflatten(jax.tree.structure(A), [angles]).mv(image)
    _, got = jax.jvp(replaced, (A.angles,), (ones,))
    _, expected = jax.jvp(exact, (A.angles,), (ones,))
    assert _error(got, np.asarray(expected)) < 0.02


def test_image_derivatives_use_the_kernels(make, getkey):
    A = make((9, 7), SPECIAL)
    x = jax.random.normal(getkey(), (9, 7), jnp.float64)
    y = jax.random.normal(getkey(), A.out_structure().shape, jnp.float64)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
    near(jax.jvp(A.mv, (x,), (2 * x,))[1], 2 * A.mv(x))
    near(jax.vjp(A.mv, x)[1](y)[0], A.adjoint_mv(y))
    near(jax.vjp(A.adjoint_mv, y)[1](x)[0], A.mv(x))
    near(jax.linear_transpose(A.adjoint_mv, y)(x)[0], A.mv(x))
    loss = lambda x: 0.25 * jnp.sum(A.mv(x) ** 4)
    hvp = jax.jvp(jax.grad(loss), (x,), (x,))[1]
    near(hvp / 1e3, 3 * A.adjoint_mv(A.mv(x) ** 3) / 1e3)
    adjoint_loss = lambda y: 0.25 * jnp.sum(A.adjoint_mv(y) ** 4)
    hvp = jax.grad(lambda y: jnp.vdot(jax.grad(adjoint_loss)(y), y))(y)
    near(hvp / 1e3, 4 * A.mv(A.adjoint_mv(y) ** 3) / 1e3)
    jaxpr = str(jax.make_jaxpr(jax.grad(loss))(x))
    assert jaxpr.count("jinv_ray_transform") == 2 and "scatter" not in jaxpr


def test_mixed_second_derivatives(make, getkey):
    angles = jnp.asarray(REGULAR)
    x = jax.random.normal(getkey(), (7, 6), jnp.float64)
    dx = jax.random.normal(getkey(), (7, 6), jnp.float64)

    def loss(angles, x):
        return 0.5 * jnp.sum(make((7, 6), angles, num_detectors=11).mv(x) ** 2)

    image_gradient = jax.grad(loss, argnums=1)
    mixed = jax.grad(lambda angles: jnp.vdot(image_gradient(angles, x), dx))(angles)
    eps = 1e-6
    angle_gradient = jax.grad(loss)
    difference = (angle_gradient(angles, x + eps * dx) - angle_gradient(angles, x - eps * dx)) / (
        2 * eps
    )
    np.testing.assert_allclose(mixed, difference, rtol=1e-6)


# --- Transformations


def test_vmap_is_a_loop(make, getkey):
    A = make((9, 12), SPECIAL)
    xs = jax.random.normal(getkey(), (2, 3, 9, 12), jnp.float64)
    ys = jax.vmap(jax.vmap(A.mv))(xs)
    back = jax.jit(jax.vmap(jax.vmap(A.adjoint_mv), in_axes=1, out_axes=1))(ys)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(ys[i, j], A.mv(xs[i, j]), atol=1e-12)
            np.testing.assert_allclose(back[i, j], A.adjoint_mv(ys[i, j]), atol=1e-10)


def test_vmap_over_angles(make, getkey):
    angles = jnp.stack([jnp.asarray(REGULAR), jnp.asarray(REGULAR) + 0.4])
    xs = jax.random.normal(getkey(), (2, 9, 12), jnp.float64)
    fn = lambda angles, x: make((9, 12), angles, num_detectors=15).mv(x)
    one = np.stack([[fn(t, x) for x in xs] for t in angles])
    np.testing.assert_allclose(jax.vmap(fn)(angles, xs), one[[0, 1], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(
        jax.vmap(fn, in_axes=(0, None))(angles, xs[0]), one[:, 0], atol=1e-12
    )
    gradient = jax.grad(lambda x: jnp.sum(jax.vmap(fn, in_axes=(0, None))(angles, x) ** 2))(xs[0])
    expected = jax.grad(lambda x: sum(jnp.sum(fn(t, x) ** 2) for t in angles))(xs[0])
    np.testing.assert_allclose(gradient, expected, atol=1e-10)


def test_images_can_be_sharded(make, getkey):
    A = make((8, 8), SPECIAL)
    xs = jax.random.normal(getkey(), (4, 8, 8), jnp.float64)
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    normal = lambda xs: jax.vmap(lambda x: jax.grad(lambda x: jnp.sum(A.mv(x) ** 2))(x))(xs)
    sharded = jax.jit(jax.shard_map(normal, mesh=mesh, in_specs=P("i"), out_specs=P("i")))(xs)
    np.testing.assert_allclose(sharded, normal(xs), atol=1e-11)


def test_new_angles_do_not_retrace(make):
    traces = []

    @jax.jit
    def apply(A, x):
        traces.append(None)
        return A.mv(x)

    x = jnp.ones((6, 6))
    for shift in (0.0, 0.1, 0.2):
        apply(make((6, 6), SPECIAL + shift), x)
    assert len(traces) == 1


def test_memory_does_not_grow_with_angles(make):
    sizes = []
    for num in (10, 160):
        A = make((64, 64), _equispaced(num, np.pi), jnp.float32)
        fn = jax.jit(jax.grad(lambda x, A: 0.5 * jnp.sum(A.mv(x) ** 2)))
        x = jnp.ones((64, 64), jnp.float32)
        memory = fn.lower(x, A).compile().memory_analysis()
        assert memory is not None
        sizes.append(memory.temp_size_in_bytes)
    views = 150 * make((64, 64), [0.0]).out_structure().shape[1] * 4
    assert sizes[1] - sizes[0] < 5 * views


# --- Errors


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"shape": (4,)}, "shape"),
        ({"shape": (4, 0)}, "shape"),
        ({"angles": jnp.zeros((2, 2))}, "angles"),
        ({"angles": jnp.zeros(0)}, "angles"),
        ({"num_detectors": 0}, "num_detectors"),
        ({"detector_spacing": 0.0}, "detector_spacing"),
        ({"pixel_size": -1.0}, "pixel_size"),
        ({"pixel_size": float("nan")}, "pixel_size"),
        ({"dtype": jnp.complex64}, "dtype"),
        ({"dtype": jnp.float16}, "dtype"),
    ],
)
def test_bad_geometry(kwargs, match):
    kwargs = {"shape": (4, 4), "angles": jnp.zeros(3)} | kwargs
    shape, angles = kwargs.pop("shape"), kwargs.pop("angles")
    with pytest.raises(Exception, match=match):
        ParallelBeam(shape, angles, **kwargs)
    with pytest.raises(Exception, match=match):
        FanBeam(shape, angles, source_distance=30.0, detector_distance=0.0, **kwargs)


def test_bad_fan():
    with pytest.raises(ValueError, match="source_distance"):
        FanBeam((8, 8), jnp.zeros(3), source_distance=5.0, detector_distance=5.0)
    with pytest.raises(ValueError, match="detector_distance"):
        FanBeam((8, 8), jnp.zeros(3), source_distance=50.0, detector_distance=-5.0)


def test_bad_vectors(make):
    A = make((6, 5), SPECIAL)
    with pytest.raises(ValueError, match=r"\(6, 5\)"):
        A.mv(jnp.zeros((5, 6)))
    with pytest.raises(ValueError, match="float32"):
        A.mv(jnp.zeros((6, 5), jnp.float32))
    with pytest.raises(ValueError, match="adjoint"):
        A.adjoint_mv(jnp.zeros((6, 5)))
    with pytest.raises(ValueError, match="filtered_back_projection"):
        filtered_back_projection(A, jnp.zeros((6, 5)))


def test_unknown_window():
    A = _parallel((6, 5), SPECIAL)
    with pytest.raises(Exception, match="window"):
        filtered_back_projection(A, jnp.zeros(A.out_structure().shape), window="box")  # pyright: ignore


def test_dtype_defaults_to_that_of_the_angles():
    assert ParallelBeam((4, 4), jnp.zeros(2, jnp.float32)).in_structure().dtype == jnp.float32
    assert ParallelBeam((4, 4), np.zeros(2)).in_structure().dtype == jnp.float64
    assert ParallelBeam((4, 4), jnp.arange(2)).in_structure().dtype == jnp.float64
    A = ParallelBeam((4, 4), np.zeros(2), dtype=jnp.float32)
    assert A.mv(jnp.ones((4, 4), jnp.float32)).dtype == jnp.float32
    assert isinstance(A, AbstractOperator)
