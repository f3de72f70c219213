"""Forward models: adjoints, algebra, derivatives, and values against NumPy and SciPy."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal

from jinv import operators as ops


REAL = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
DOUBLE = ("float64",)
BOTH = (*REAL, "complex128")
# Compiling is nearly all of the time of these tests; the others use the default options.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def _array(rng, shape, dtype):
    x = rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=shape)
    return jnp.asarray(x.astype(dtype))


def _mask(rng, shape, p=0.5):
    mask = rng.uniform(size=shape) < p
    mask[(0,) * len(shape)] = True
    return jnp.asarray(mask)


def _convolution(kernel, shape, **options):
    def make(rng, dtype):
        return ops.Convolution(_array(rng, kernel, dtype), shape, **options)

    return make


def _difference(shape, **options):
    return lambda rng, dtype: ops.FiniteDifference(shape, dtype=dtype, **options)


def _fourier(shape, coils=None, **options):
    def make(rng, dtype):
        maps = None if coils is None else _array(rng, (coils, *shape), dtype)
        return ops.FourierSampling(_mask(rng, shape), coils=maps, dtype=dtype, **options)

    return make


def _stack(rng, dtype):
    blur = ops.Convolution(_array(rng, (3, 3), dtype), (5, 4))
    return ops.Stack((blur, ops.FiniteDifference((5, 4), dtype=dtype), 2 * blur))


def _blocks(rng, dtype):
    blur = ops.Convolution(_array(rng, (3,), dtype), (5,))
    return ops.BlockDiagonal((blur, ops.Diagonal(_array(rng, (2, 3), dtype))))


def _downsampling(shape, factor, kernel=None, **options):
    def make(rng, dtype):
        k = _array(rng, kernel, dtype) if isinstance(kernel, tuple) else kernel
        return ops.Downsampling(shape, factor, kernel=k, dtype=dtype, **options)

    return make


OPERATORS = [
    ("mask", lambda rng, dtype: ops.Mask(_mask(rng, (4, 5)), dtype=dtype), BOTH),
    (
        "mask-colour",
        lambda rng, dtype: ops.Mask(_mask(rng, (4, 3)), shape=(4, 3, 2), dtype=dtype),
        REAL,
    ),
    ("diagonal", lambda rng, dtype: ops.Diagonal(_array(rng, (4, 5), dtype)), BOTH),
    *(
        (f"convolution-{name}-{method}", _convolution(*args, **kw, method=method), dtypes)
        for method in ("fft", "direct")
        for name, args, kw, dtypes in [
            ("circular", ((3, 2), (5, 6)), {}, BOTH),
            ("zero", ((3, 4), (5, 6)), {"boundary": "zero"}, BOTH),
            ("full", ((3, 2), (4, 5)), {"boundary": "zero", "mode": "full"}, BOTH),
            ("colour", ((3, 2), (4, 5, 2)), {}, REAL),
            ("axes", ((2, 3), (4, 2, 3)), {"axes": (2, 0), "boundary": "zero"}, DOUBLE),
            ("3d", ((2, 3, 2), (3, 4, 2)), {}, DOUBLE),
            ("large", ((5, 7), (3, 4)), {"boundary": "zero"}, DOUBLE),
        ]
    ),
    *(
        (f"difference-{name}-{boundary}", _difference(*args, boundary=boundary, **kw), dtypes)
        for boundary in ("neumann", "circular", "zero")
        for name, args, kw, dtypes in [
            ("2d", ((4, 5),), {}, BOTH),
            ("colour", ((4, 5, 2),), {"axes": (0, 1)}, REAL),
            ("3d", ((3, 1, 4),), {"axes": (2, 0, 1)}, DOUBLE),
            ("2pixels", ((2,),), {}, DOUBLE),
        ]
    ),
    ("downsampling-plain", _downsampling((4, 6), 2), BOTH),
    ("downsampling-box", _downsampling((4, 6, 2), (2, 3), "box"), BOTH),
    ("downsampling-kernel", _downsampling((4, 6, 2), (2, 3), (3, 3)), BOTH),
    ("downsampling-fft", _downsampling((8, 8), 2, (8, 7)), REAL),
    ("downsampling-axis", _downsampling((2, 6), 3, (4,), axes=1), DOUBLE),
    ("fourier", _fourier((4, 5)), COMPLEX),
    ("fourier-centred", _fourier((4, 5), centred=True), COMPLEX),
    ("fourier-coils", _fourier((4, 3), coils=2), COMPLEX),
    ("fourier-coils-centred", _fourier((4, 3), coils=2, centred=True), COMPLEX),
    ("stack", _stack, BOTH),
    ("blocks", _blocks, BOTH),
]
MAKE = {name: make for name, make, _ in OPERATORS}
CASES = [(name, dtype) for name, _, dtypes in OPERATORS for dtype in dtypes]
every_case = pytest.mark.parametrize("name, dtype", CASES, ids=map("-".join, CASES))


def _bound(operator):
    norm = ops.norm_bound(operator)
    assert norm is not None
    return norm


def _gram(operator):
    spectrum = ops.gram_spectrum(operator)
    assert spectrum is not None
    return spectrum


def _like(rng, structure):
    return jax.tree.map(lambda s: _array(rng, s.shape, s.dtype), structure)


def _flat(tree):
    return np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(tree)])


def _close(a, b, dtype="float64", factor=1.0):
    a, b = _flat(a), _flat(b)
    tolerance = factor * (1e-6 if dtype in ("float32", "complex64") else 1e-13)
    scale = max(np.linalg.norm(a), np.linalg.norm(b), 1e-30)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * scale, np.linalg.norm(a - b) / scale


# Contracts of every operator


@ft.cache
def _evaluated(name, dtype):
    """Everything the contracts below look at, in one compilation per operator."""
    rng = np.random.default_rng(list(f"{name}{dtype}".encode()))
    A = MAKE[name](rng, dtype)
    x, x2 = _like(rng, A.in_structure()), _like(rng, A.in_structure())
    y, y2 = _like(rng, A.out_structure()), _like(rng, A.out_structure())

    @ft.partial(jax.jit, compiler_options=QUICK)
    def evaluate(A, x, x2, y, y2):
        pair = lambda a, b: jax.tree.map(lambda *leaves: jnp.stack(leaves), a, b)
        spectrum = ops.gram_spectrum(A)
        return {
            "Ax": A.mv(x),
            "A*y": A.adjoint_mv(y),
            "A*Ax": A.normal_mv(x),
            "T": A.T.mv(y),
            "conj": lx.conj(A).mv(x),
            "adjoint": ops.adjoint(A).mv(y),
            "TT": A.T.T.mv(x),
            "conj conj": lx.conj(lx.conj(A)).mv(x),
            "by JAX": jax.linear_transpose(A.mv, A.in_structure())(y)[0],
            "combined": A.mv(jax.tree.map(lambda a, b: 2.5 * a - b, x, x2)),
            "Ax2": A.mv(x2),
            "A*y2": A.adjoint_mv(y2),
            "vmap A": jax.vmap(A.mv)(pair(x, x2)),
            "vmap A*": jax.vmap(A.adjoint_mv)(pair(y, y2)),
            "matrix": A.as_matrix(),
            "matrix T": A.T.as_matrix(),
            "norm": ops.norm_bound(A),
            "gram": None if spectrum is None else spectrum.apply(x),
            "solve": None if spectrum is None else (0.5 * spectrum + 0.25).solve(x),
        }

    return A, x, y, evaluate(A, x, x2, y, y2)


def _typed(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@every_case
def test_adjoint(name, dtype):
    A, x, y, got = _evaluated(name, dtype)
    assert _typed(got["Ax"]) == _typed(A.out_structure())
    assert _typed(got["A*y"]) == _typed(A.in_structure())
    assert {leaf.dtype for leaf in jax.tree.leaves((x, y))} == {jnp.dtype(dtype)}
    left, right = np.vdot(_flat(got["Ax"]), _flat(y)), np.vdot(_flat(x), _flat(got["A*y"]))
    gap = abs(complex(left) - complex(right))
    scale = np.linalg.norm(_flat(got["Ax"])) * np.linalg.norm(_flat(y))
    assert gap <= (1e-6 if dtype in ("float32", "complex64") else 1e-13) * scale


@every_case
def test_matrix_and_transposes(name, dtype):
    A, x, y, got = _evaluated(name, dtype)
    matrix = np.asarray(got["matrix"])
    assert matrix.shape == (A.out_size(), A.in_size()) and matrix.dtype == dtype
    _close(matrix @ _flat(x), got["Ax"], dtype)
    _close(matrix.T @ _flat(y), got["T"], dtype)
    _close(matrix.conj() @ _flat(x), got["conj"], dtype)
    _close(matrix.conj().T @ _flat(y), got["adjoint"], dtype)
    _close(got["A*y"], got["adjoint"], dtype)
    _close(matrix.conj().T @ (matrix @ _flat(x)), got["A*Ax"], dtype)
    _close(got["TT"], got["Ax"], dtype)
    _close(got["conj conj"], got["Ax"], dtype)
    _close(got["matrix T"], matrix.T, dtype)
    assert A.T.in_structure() == A.out_structure()
    # JAX's transposition of `mv` must agree with the adjoint written by hand.
    _close(got["by JAX"], got["T"], dtype)


@every_case
def test_linearity_and_vmap(name, dtype):
    _, _, _, got = _evaluated(name, dtype)
    combined = jax.tree.map(lambda a, b: 2.5 * a - b, got["Ax"], got["Ax2"])
    _close(got["combined"], combined, dtype, factor=5)
    for together, first, second in (("vmap A", "Ax", "Ax2"), ("vmap A*", "A*y", "A*y2")):
        for i, alone in enumerate((first, second)):
            _close(jax.tree.map(lambda leaf, i=i: leaf[i], got[together]), got[alone], dtype)


@every_case
def test_closed_form_norm_and_spectrum(name, dtype):
    A, x, _, got = _evaluated(name, dtype)
    matrix = np.asarray(got["matrix"], np.complex128)
    factor = 20 if dtype in ("float64", "complex128") else 10
    known = not (
        (isinstance(A, ops.FiniteDifference | ops.Convolution) and A.boundary == "zero")
        or isinstance(A, ops.Stack | ops.BlockDiagonal)
        or (isinstance(A, ops.Downsampling) and (A.box or A.blur is not None))
        or (isinstance(A, ops.FourierSampling) and A.coils is not None)
    )
    assert (got["solve"] is not None) == known
    if known:
        gram = matrix.conj().T @ matrix
        _close(got["gram"], gram @ _flat(x), dtype, factor)
        solved = np.linalg.solve(0.5 * gram + 0.25 * np.eye(len(gram)), _flat(x))
        _close(got["solve"], solved, dtype, factor)
        assert _typed(got["solve"]) == _typed(x)
    closed = known or isinstance(A, ops.FiniteDifference | ops.Downsampling | ops.BlockDiagonal)
    assert (got["norm"] is not None) == closed
    if closed:
        _close(got["norm"], np.linalg.norm(matrix, 2), dtype, factor)
        assert got["norm"].dtype == jnp.finfo(dtype).dtype


@pytest.mark.parametrize(
    "name",
    ["mask", "diagonal", "convolution-zero-fft", "convolution-zero-direct", "stack", "blocks"]
    + ["convolution-circular-fft", "convolution-full-direct", "downsampling-kernel"]
    + ["fourier-coils-centred"],
)
def test_derivatives_in_the_arrays(name, rng):
    """Every operator is linear in its arrays (or bilinear in two): differences are exact."""
    A = MAKE[name](rng, "complex128")
    arrays, static = eqx.partition(A, eqx.is_inexact_array)
    x, y = _like(rng, A.in_structure()), _like(rng, A.out_structure())
    tangent = _like(rng, arrays)

    def value(arrays):
        out = eqx.combine(arrays, static).mv(x)
        pairs = zip(jax.tree.leaves(y), jax.tree.leaves(out), strict=True)
        return sum(jnp.sum((a.conj() * b).real) for a, b in pairs)

    @jax.jit
    def derivatives(arrays, tangent):
        along = lambda step: value(jax.tree.map(lambda a, t: a + step * t, arrays, tangent))
        gradient = jax.grad(value)(arrays)
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(tangent), strict=True)
        backward = sum(jnp.sum((g * t).real) for g, t in pairs)
        forward = jax.jvp(value, (arrays,), (tangent,))[1]
        return (along(1.0) - along(-1.0)) / 2, forward, backward

    expected, forward, backward = derivatives(arrays, tangent)
    np.testing.assert_allclose([forward, backward], [expected, expected], rtol=1e-10)


@pytest.mark.parametrize("name", MAKE)
def test_wrong_inputs_are_refused(name, rng):
    A = MAKE[name](rng, next(d for n, d in CASES if n == name and d in DOUBLE + COMPLEX[1:]))
    grow = lambda tree: jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), tree)
    narrow = lambda tree: jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, "float32"), tree)
    for wrong in (grow, narrow):
        with pytest.raises(ValueError, match="expected an input of shape"):
            jax.eval_shape(A.mv, wrong(A.in_structure()))
        with pytest.raises(ValueError, match="expected an input of shape"):
            jax.eval_shape(A.adjoint_mv, wrong(A.out_structure()))


# Values


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("sizes", [(3, 5), (4, 2), (12, 9)])
def test_convolution_against_scipy(method, sizes, rng):
    shape = (12, 9)
    k, x = rng.normal(size=sizes), rng.normal(size=shape)
    full = scipy.signal.convolve(x, k, mode="full", method="direct")

    def make(**options):
        return ops.Convolution(jnp.asarray(k), shape, method=method, **options)

    np.testing.assert_allclose(
        make(boundary="zero", mode="full").mv(jnp.asarray(x)), full, atol=1e-12
    )
    start = [s // 2 for s in sizes]
    same = full[start[0] : start[0] + shape[0], start[1] : start[1] + shape[1]]
    np.testing.assert_allclose(make(boundary="zero").mv(jnp.asarray(x)), same, atol=1e-12)
    ours = make().mv(jnp.asarray(x))
    periodic = np.zeros(shape)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            periodic += k[i, j] * np.roll(x, (i - start[0], j - start[1]), (0, 1))
    np.testing.assert_allclose(ours, periodic, atol=1e-12)
    if all(s % 2 for s in sizes):
        wrapped = scipy.ndimage.convolve(x, k, mode="wrap")
        np.testing.assert_allclose(ours, wrapped, atol=1e-12)


def test_convolution_over_chosen_axes(rng):
    k, x = rng.normal(size=(3, 4)), rng.normal(size=(5, 2, 6))
    A = ops.Convolution(jnp.asarray(k), x.shape, axes=(2, 0))
    for c in range(2):
        alone = ops.Convolution(jnp.asarray(k.T), (5, 6)).mv(jnp.asarray(x[:, c]))
        np.testing.assert_allclose(A.mv(jnp.asarray(x))[:, c], alone, atol=1e-12)


def test_convolution_methods_agree_in_float32(rng):
    k, x = _array(rng, (9, 9), "float32"), _array(rng, (40, 33), "float32")
    for boundary in ("circular", "zero"):
        made = [
            ops.Convolution(k, x.shape, boundary=boundary, method=m).mv(x)
            for m in ("fft", "direct")
        ]
        _close(*made, dtype="float32")


def test_convolution_auto(rng):
    small = ops.Convolution(_array(rng, (7, 7), "float32"), (32, 32))
    large = ops.Convolution(_array(rng, (9, 9), "float32"), (32, 32))
    assert small.symbol is None and small.kernel is not None
    assert large.kernel is None and large.symbol is not None


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_kernel_derivatives_twice(method, rng):
    x, k = jnp.asarray(rng.normal(size=(6, 5))), jnp.asarray(rng.normal(size=(3, 3)))

    def blur(k):
        return ops.Convolution(k, x.shape, method=method).mv(x)

    @jax.jit
    def derivatives(k):
        loss = lambda k: 0.5 * jnp.sum(blur(k) ** 2)
        return jax.jacfwd(blur)(k), jax.grad(loss)(k), jax.hessian(loss)(k)

    jacobian, gradient, hessian = derivatives(k)
    # Column (i, j) is the image shifted by the position of the tap.
    shifts = [np.roll(x, (i - 1, j - 1), (0, 1)) for i in range(3) for j in range(3)]
    matrix = np.stack([np.ravel(column) for column in shifts], axis=1)
    _close(jacobian.reshape(30, 9), matrix, factor=5)
    _close(gradient, matrix.T @ matrix @ np.ravel(k), factor=10)
    _close(hessian, matrix.T @ matrix, factor=10)


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_vmap_over_kernels(method, rng):
    x, kernels = jnp.asarray(rng.normal(size=(6, 5))), jnp.asarray(rng.normal(size=(2, 3, 3)))
    blur = jax.jit(lambda k: ops.Convolution(k, x.shape, method=method).mv(x))
    _close(jax.jit(jax.vmap(blur))(kernels), jnp.stack([blur(k) for k in kernels]))


def test_kernels():
    for kernel in (
        ops.gaussian_kernel(1.3, 5),
        ops.gaussian_kernel(1.3, 4, ndim=3),
        ops.motion_kernel(7.5, 0.4),
        ops.motion_kernel(0, 0),
        ops.disk_kernel(3),
        ops.disk_kernel(0.2),
    ):
        np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-14)
        assert kernel.min() >= 0
    assert ops.gaussian_kernel(jnp.float32(1.0), 3, dtype=jnp.float32).dtype == jnp.float32
    g = np.exp(-0.5 * (np.arange(-2, 3) / 1.3) ** 2)
    np.testing.assert_allclose(
        ops.gaussian_kernel(1.3, 5), np.outer(g, g) / g.sum() ** 2, rtol=1e-13
    )
    centre = lambda std: ops.gaussian_kernel(std, 5)[2, 2]
    slope, up, down = jax.jit(lambda s: (jax.grad(centre)(s), centre(s + 1e-5), centre(s - 1e-5)))(
        1.3
    )
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-6)


def test_motion_and_disk_against_sampling():
    length, angle, radius = 6.3, 0.7, 2.6
    t = (np.arange(400_000) + 0.5) / 400_000 - 0.5
    rows, cols = -t * length * np.sin(angle), t * length * np.cos(angle)
    kernel = ops.motion_kernel(length, angle)
    half = kernel.shape[0] // 2
    edges = np.arange(-half, half + 2) - 0.5
    counts = np.histogram2d(rows, cols, bins=(edges, edges))[0] / t.size
    np.testing.assert_allclose(kernel, counts, atol=1e-5)
    kernel = ops.disk_kernel(radius)
    half = kernel.shape[0] // 2
    fine = (np.arange((2 * half + 1) * 300) + 0.5) / 300 - half - 0.5
    inside = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2).astype(float)
    pixels = inside.reshape(2 * half + 1, 300, 2 * half + 1, 300).mean((1, 3))
    np.testing.assert_allclose(kernel, pixels / pixels.sum(), atol=1e-5)


@pytest.mark.parametrize("angle, line", [(0.0, np.s_[3, :]), (np.pi / 2, np.s_[:, 3])])
def test_motion_along_the_axes(angle, line):
    kernel = np.array(ops.motion_kernel(7, angle))
    np.testing.assert_allclose(kernel[line], np.full(7, 1 / 7), atol=1e-14)


def test_downsampling_against_numpy(rng):
    x, k = rng.normal(size=(6, 8, 3)), rng.normal(size=(3, 2))
    a = jnp.asarray(x)
    plain = ops.Downsampling(x.shape, (3, 2)).mv(a)
    np.testing.assert_array_equal(plain, x[::3, ::2])
    box = ops.Downsampling(x.shape, (3, 2), kernel="box").mv(a)
    np.testing.assert_allclose(box, x.reshape(2, 3, 4, 2, 3).mean((1, 3)), rtol=1e-13)
    blurred = ops.Convolution(jnp.asarray(k), x.shape).mv(a)
    both = ops.Downsampling(x.shape, (3, 2), kernel=jnp.asarray(k)).mv(a)
    np.testing.assert_allclose(both, blurred[::3, ::2], rtol=1e-13)


def test_difference_values(rng):
    x = rng.normal(size=(5, 4))
    a = jnp.asarray(x)
    np.testing.assert_array_equal(
        ops.FiniteDifference((5, 4)).mv(a)[0], np.diff(x, axis=0, append=x[-1:])
    )
    np.testing.assert_array_equal(
        ops.FiniteDifference((5, 4), boundary="circular").mv(a)[1],
        np.diff(x, axis=1, append=x[:, :1]),
    )
    np.testing.assert_array_equal(
        ops.FiniteDifference((5, 4), boundary="zero", axes=1).mv(a)[0],
        np.diff(x, axis=1, append=np.zeros((5, 1))),
    )


def test_fourier_against_numpy(rng):
    x, mask = rng.normal(size=(4, 5)) + 1j * rng.normal(size=(4, 5)), rng.uniform(size=(4, 5)) < 0.5
    coils = rng.normal(size=(3, 4, 5)) + 1j * rng.normal(size=(3, 4, 5))
    a, m = jnp.asarray(x), jnp.asarray(mask)
    expected = mask * np.fft.fft2(x, norm="ortho")
    np.testing.assert_allclose(ops.FourierSampling(m).mv(a), expected, atol=1e-14)
    centred = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x), norm="ortho"))
    np.testing.assert_allclose(
        ops.FourierSampling(m, centred=True).mv(a), mask * centred, atol=1e-14
    )
    many = ops.FourierSampling(m, coils=jnp.asarray(coils)).mv(a)
    np.testing.assert_allclose(many, mask * np.fft.fft2(coils * x, norm="ortho"), atol=1e-13)
    full = ops.FourierSampling(jnp.ones((4, 5), bool))
    np.testing.assert_allclose(full.adjoint_mv(full.mv(a)), x, atol=1e-14)


def test_boolean_masks_take_a_dtype():
    mask = jnp.array([True, False])
    assert ops.Mask(mask, dtype=jnp.float32).mv(jnp.ones(2, jnp.float32)).dtype == jnp.float32
    assert ops.Mask(mask).in_structure().dtype == jnp.float64
    A = ops.FourierSampling(mask, dtype=jnp.complex64)
    assert A.mask.dtype == jnp.float32 and A.in_structure().dtype == jnp.complex64


# lineax


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_algebra(dtype, rng):
    A = ops.Convolution(_array(rng, (3, 3), dtype), (4, 5))
    B = ops.Mask(_mask(rng, (4, 5)), dtype=dtype)
    x = _array(rng, (4, 5), dtype)
    c = 2j if dtype == "complex128" else 2.0

    @jax.jit
    def both(A, B, x):
        operators = (
            *(A @ B, A + B, A - B, 2 * A, A / 2, -A, A.T @ B, (A @ B).T, lx.conj(A)),
            *(ops.adjoint(A @ B), ops.adjoint(c * A), lx.materialise(A), lx.linearise(A)),
            *(lx.materialise(A.T), B.T, lx.conj(B)),
        )
        diagonals = lx.diagonal(A), lx.diagonal(B)
        return [(op.mv(x), op.as_matrix()) for op in operators], diagonals, A.as_matrix()

    got, diagonals, a = jax.tree.map(np.asarray, both(A, B, x))
    b = np.diag(diagonals[1])
    expected = (
        *(a @ b, a + b, a - b, 2 * a, a / 2, -a, a.T @ b, (a @ b).T, a.conj()),
        *((a @ b).conj().T, np.conj(c) * a.conj().T, a, a, a.T, b, b),
    )
    for (mv, matrix), reference in zip(got, expected, strict=True):
        _close(mv, reference @ _flat(x), factor=5)
        _close(matrix, reference, factor=5)
    _close(diagonals[0], np.diag(a))
    np.testing.assert_array_equal(diagonals[1], np.ravel(B.mask))
    assert lx.is_diagonal(B) and lx.is_symmetric(B) and not lx.is_symmetric(A)


def test_scalars_do_not_widen(rng):
    A, x = ops.Mask(jnp.ones(3, jnp.float32)), jnp.ones(3, jnp.float32)
    for operator in (0.5 * A, A / 2, A * jnp.float64(2), -A):
        assert operator.mv(x).dtype == jnp.float32


def test_diagonal_solve(rng):
    d, b = jnp.asarray(rng.uniform(1, 2, (3, 4))), jnp.asarray(rng.normal(size=(3, 4)))
    solution = lx.linear_solve(ops.Diagonal(d), b, lx.Diagonal())
    np.testing.assert_allclose(solution.value, b / d, rtol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: ops.Convolution(a, (5, 4)),
        lambda a: ops.Convolution(a, (5, 4), method="fft", boundary="zero"),
        lambda a: ops.Stack(
            (ops.Convolution(a, (5, 4)), ops.FiniteDifference((5, 4), dtype=a.dtype))
        ),
        lambda a: ops.FourierSampling(
            jnp.arange(20).reshape(5, 4) % 3 == 0, coils=_maps(a), dtype=jnp.complex128
        ),
    ],
    ids=["convolution", "convolution-fft", "stack", "coils"],
)
def test_solve_and_its_derivative(make, rng):
    a = jnp.asarray(rng.normal(size=(3, 3)))
    structure = make(a).in_structure()
    b, w = _array(rng, structure.shape, structure.dtype), _array(rng, (5, 4), structure.dtype)

    def solve(a):
        A = make(a)
        normal = ops.adjoint(A) @ A + jnp.asarray(0.1, structure.dtype) * lx.IdentityLinearOperator(
            structure
        )
        normal = lx.TaggedLinearOperator(normal, lx.positive_semidefinite_tag)
        return lx.linear_solve(normal, b, lx.CG(rtol=1e-13, atol=1e-13)).value

    def dense(a):
        matrix = make(a).as_matrix()
        eye = jnp.eye(20, dtype=matrix.dtype)
        return jnp.linalg.solve(matrix.conj().T @ matrix + 0.1 * eye, b.reshape(-1)).reshape(5, 4)

    def value(fn):
        return lambda a: jnp.sum((w.conj() * fn(a)).real)

    @jax.jit
    def both(a):
        return solve(a), dense(a), jax.grad(value(solve))(a), jax.grad(value(dense))(a)

    solved, reference, gradient, expected = both(a)
    np.testing.assert_allclose(solved, reference, atol=1e-9)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8)


def _maps(a):
    grid = jnp.arange(40.0).reshape(2, 5, 4)
    size = 1 + a[1, 1] * grid / 40
    return jax.lax.complex(size * jnp.cos(grid * a[0, 0]), size * jnp.sin(grid * a[0, 0]))


# Norms


@pytest.mark.parametrize(
    "name", ["convolution-full-fft", "fourier-coils", "stack", "mask", "difference-2d-zero"]
)
def test_norms_against_svd(name):
    A, _, _, got = _evaluated(name, "complex128")
    norm = jax.jit(lambda A: ops.operator_norm(A, rtol=1e-8, max_steps=40))(A)
    assert norm.dtype == jnp.float64
    np.testing.assert_allclose(norm, np.linalg.norm(np.asarray(got["matrix"]), 2), rtol=1e-7)


@pytest.mark.parametrize("boundary", ["neumann", "circular", "zero"])
@pytest.mark.parametrize("shape", [(1,), (5,), (6, 7), (1, 4)])
def test_difference_norm(boundary, shape):
    K = ops.FiniteDifference(shape, boundary=boundary)
    expected = np.linalg.norm(np.asarray(jax.jit(K.as_matrix)()), 2)
    np.testing.assert_allclose(_bound(K), expected, rtol=1e-13, atol=1e-15)


def test_estimated_norm(rng):
    blur = ops.Convolution(ops.gaussian_kernel(1.5, 9, dtype=jnp.float32), (24, 24))
    mask = ops.Mask(_mask(rng, (24, 24)), dtype=jnp.float32)
    A = mask @ blur
    assert ops.norm_bound(A) is None
    exact = np.linalg.norm(np.asarray(A.as_matrix(), np.float64), 2)
    traces = []

    @jax.jit
    def estimate(A, rtol, key):
        traces.append(rtol)
        return ops.operator_norm(A, rtol=rtol, key=key)

    key = jax.random.key(0)
    norm = estimate(A, 1e-4, key)
    assert norm.dtype == jnp.float32
    assert exact * (1 - 2e-3) <= float(norm) <= exact * (1 + 1e-6)
    np.testing.assert_allclose(ops.operator_norm(A), norm, rtol=1e-6)
    np.testing.assert_allclose(estimate(A, 1e-4, jax.random.key(7)), norm, rtol=2e-3)
    np.testing.assert_allclose(estimate(A, 1e-7, key), exact, rtol=1e-5)
    assert len(traces) == 1


def test_norm_has_no_derivative(rng):
    x = _mask(rng, (5, 4))

    @jax.jit
    @jax.grad
    def slope(k):
        blur = ops.Convolution(k, (5, 4))
        return ops.operator_norm(ops.Mask(x) @ blur, max_steps=4) + ops.operator_norm(blur)

    assert not np.any(np.asarray(slope(jnp.ones((3, 3)))))


def test_norm_of_lineax_operators(rng):
    m = jnp.asarray(rng.normal(size=(6, 4)))
    A = lx.MatrixLinearOperator(m)
    K = ops.FiniteDifference((4, 3))
    norm, expected = float(_bound(K)), np.linalg.norm(np.asarray(m), 2)
    for operator, factor in ((3 * K, 3), (-2 * K, 2), (K / -4, 0.25), (-K, 1), (K.T, 1)):
        np.testing.assert_allclose(_bound(operator), factor * norm, rtol=1e-14)
    estimate = jax.jit(lambda A: ops.operator_norm(A, rtol=1e-10, max_steps=20))
    np.testing.assert_allclose(estimate(A), expected, rtol=1e-9)
    blocks = ops.BlockDiagonal((3 * K, A))
    np.testing.assert_allclose(estimate(blocks), max(3 * norm, expected), rtol=1e-9)


def test_norm_vmap_zero_and_nan(rng):
    matrices = rng.normal(size=(5, 5, 5))
    matrices[3], matrices[4] = 0, np.nan

    @jax.jit
    @jax.vmap
    def norms(m):
        return ops.operator_norm(lx.MatrixLinearOperator(m), rtol=1e-9, max_steps=20)

    got = norms(jnp.asarray(matrices))
    expected = [np.linalg.norm(m, 2) for m in matrices[:3]]
    np.testing.assert_allclose(got[:3], expected, rtol=1e-8)
    assert got[3] == 0 and np.isnan(got[4])
    with pytest.raises(ValueError, match="max_steps"):
        ops.operator_norm(lx.MatrixLinearOperator(jnp.eye(2)), max_steps=0)


# Spectra


def _identity(shape, dtype):
    return lx.IdentityLinearOperator(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)))


@pytest.mark.parametrize("shape, axes", [
    ((1,), None), ((3,), None), ((8,), None), ((1, 5), None), ((5, 1), None), ((7, 8), None),
    ((2, 5, 4), (2, 0)), ((3, 4, 5), None), ((3, 2, 3), (1,)),
])  # fmt: skip
@pytest.mark.parametrize("boundary", ["neumann", "circular"])
def test_difference_spectrum_sizes(boundary, shape, axes, rng):
    K = ops.FiniteDifference(shape, axes=axes, boundary=boundary)
    b, y = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=shape))

    @jax.jit
    def evaluate(b, y, shift):
        """The transforms are differentiable, in the data and in the eigenvalues."""
        solve = lambda shift, b: (shift + _gram(K)).solve(b)
        solved, pull = jax.vjp(solve, shift, b)
        return solved, *pull(y), K.as_matrix()

    solved, slope, pulled, matrix = map(np.asarray, evaluate(b, y, 1.0))
    gram = np.eye(b.size) + matrix.T @ matrix
    _close(solved, np.linalg.solve(gram, _flat(b)), factor=5)
    expected = np.linalg.solve(gram, _flat(y))
    _close(pulled, expected, factor=5)
    np.testing.assert_allclose(slope, -np.sum(expected * _flat(solved)), rtol=1e-11)


def test_dct_against_scipy(rng):
    shape = (6, 9)
    x, g = rng.normal(size=shape), rng.uniform(1, 2, size=shape)
    coefficients = np.asarray(scipy.fft.dctn(x, norm="ortho"))
    expected = np.asarray(scipy.fft.idctn(g * coefficients, norm="ortho"))
    spectrum = ops.Spectrum(jnp.asarray(g), "dct", (0, 1))
    z = jnp.asarray(x + 2j * x)
    real, both, batched = jax.jit(
        lambda s, x, z, xs: (s.apply(x), s.apply(z), jax.vmap(s.apply)(xs))
    )(spectrum, jnp.asarray(x), z, jnp.asarray(np.stack([x, 2 * x])))
    np.testing.assert_allclose(real, expected, atol=1e-13)
    np.testing.assert_allclose(both, expected * (1 + 2j), atol=1e-13)
    np.testing.assert_allclose(batched, np.stack([expected, 2 * expected]), atol=1e-13)


def test_spectrum_algebra(rng):
    shape = (6, 5)
    k = jnp.asarray(rng.normal(size=(3, 3)))
    for method in ("fft", "direct"):
        A = ops.Convolution(k, shape, method=method)
        K = ops.FiniteDifference(shape, boundary="circular")
        eye = _identity(shape, "float64")
        stacked = _gram(ops.Stack((A, 0.5 * K, eye, -A / 2, 3 * eye @ A)))
        assert stacked.kind == "rfft"
        a, d = np.asarray(A.as_matrix()), np.asarray(K.as_matrix())
        gram = (1 + 0.25 + 9) * a.T @ a + 0.25 * d.T @ d + np.eye(30)
        b = jnp.asarray(rng.normal(size=shape))
        _close(stacked.solve(b), np.linalg.solve(gram, _flat(b)), factor=20)
        both = _gram(A) + 0.25 * _gram(K) + _gram(None)
        gram = a.T @ a + 0.25 * d.T @ d + np.eye(30)
        _close(both.solve(b), np.linalg.solve(gram, _flat(b)), factor=20)
    neumann = ops.FiniteDifference(shape)
    assert ops.gram_spectrum(ops.Stack((A, neumann))) is None
    assert ops.gram_spectrum(A @ A) is None
    with pytest.raises(ValueError, match="one transform"):
        _ = _gram(A) + _gram(neumann)
    with pytest.raises(ValueError, match="scales by a scalar"):
        _ = _gram(A) * jnp.ones(3)
    with pytest.raises(ValueError, match="complex arrays"):
        _gram(ops.FourierSampling(jnp.ones(4, bool))).solve(jnp.ones(4))
    tree = (jnp.ones(2), jnp.ones(3))
    scaled = (3 * _gram(_identity((2,), "float64"))).apply(tree)
    np.testing.assert_array_equal(scaled[1], 3 * np.ones(3))


# Bad arguments


@pytest.mark.parametrize("build, message", [
    (lambda: ops.Mask(jnp.ones(3, complex)), "mask must be real"),
    (lambda: ops.Mask(jnp.ones(3), shape=(4, 2)), "mask must have the leading axes"),
    (lambda: ops.Mask(jnp.ones(3), dtype=int), "dtype must be"),
    (lambda: ops.Diagonal(jnp.ones(3, complex), dtype=jnp.float64), "diagonal is complex"),
    (lambda: ops.Convolution(jnp.ones(3), (4,), boundary="wrap"), "boundary must be one of"),
    (lambda: ops.Convolution(jnp.ones(3), (4,), mode="valid"), "mode must be one of"),
    (lambda: ops.Convolution(jnp.ones(3), (4,), mode="full"), "mode='full' needs"),
    (lambda: ops.Convolution(jnp.ones(3), (4,), method="slow"), "method must be one of"),
    (lambda: ops.Convolution(jnp.ones(5), (4,)), "larger than the image"),
    (lambda: ops.Convolution(jnp.ones((3, 3)), (4,)), "kernel must have between"),
    (lambda: ops.Convolution(jnp.ones(3), (4, 4), axes=(0, 1)), "one axis per kernel axis"),
    (lambda: ops.Convolution(jnp.ones(3), (4, 4), axes=2), "axes must be distinct"),
    (lambda: ops.Convolution(jnp.ones(3, complex), (4,), dtype=float), "kernel is complex"),
    (lambda: ops.Downsampling((5, 4), 2), "factor must divide"),
    (lambda: ops.Downsampling((4, 4), 2, kernel="gauss"), "kernel must be None, 'box'"),
    (lambda: ops.Downsampling((4, 4), 0), "factor must be"),
    (lambda: ops.Downsampling((4, 4), (2, 2), axes=1), "factor must have one entry"),
    (lambda: ops.FiniteDifference((3, 0)), "shape must be"),
    (lambda: ops.FiniteDifference((3,), boundary="dirichlet"), "boundary must be one of"),
    (lambda: ops.FiniteDifference((3, 3), axes=(0, 0)), "axes must be distinct"),
    (lambda: ops.FourierSampling(jnp.ones(4, complex)), "mask must be a real"),
    (lambda: ops.FourierSampling(jnp.ones(4), dtype=float), "dtype must be complex"),
    (lambda: ops.FourierSampling(jnp.ones(4), coils=jnp.ones((2, 3), complex)), "coils must have"),
    (lambda: ops.Stack(()), "at least one operator"),
    (lambda: ops.Stack((_identity((2,), float), _identity((3,), float))), "one input structure"),
    (lambda: ops.BlockDiagonal([]), "at least one operator"),
    (lambda: ops.gaussian_kernel(1.0, 0), "size and ndim"),
    (lambda: ops.motion_kernel(-1, 0), "length must be"),
    (lambda: ops.disk_kernel(0), "radius must be"),
])  # fmt: skip
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
