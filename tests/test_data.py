"""Shipped photographs, the phantom against closed forms, and readers with every way to fail."""

import io
import os
import struct
import sys
import zlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import skimage.color
import skimage.data
import skimage.util
import tifffile
from jax.test_util import check_grads
from PIL import Image

from jinv import data


# Photographs

SHAPES = {
    "astronaut": (512, 512),
    "brick": (512, 512),
    "camera": (512, 512),
    "cell": (660, 550),
    "chelsea": (300, 451),
    "china": (427, 640),
    "clock": (300, 400),
    "coffee": (400, 600),
    "coins": (303, 384),
    "flower": (427, 640),
    "grass": (512, 512),
    "gravel": (512, 512),
    "hubble_deep_field": (872, 1000),
    "immunohistochemistry": (512, 512),
    "microaneurysms": (102, 102),
    "moon": (512, 512),
    "motorcycle": (500, 741),
    "page": (191, 384),
    "retina": (1411, 1411),
    "rocket": (427, 640),
    "text": (172, 448),
}


def test_names():
    assert data.photographs() == tuple(SHAPES) == tuple(sorted(SHAPES))


@pytest.mark.parametrize("name", SHAPES)
def test_every_photograph_opens(name):
    colour = data.photograph(name, grey=False, dtype=jnp.float32)
    grey = data.photograph(name)
    assert colour.shape == (*SHAPES[name], 3) and colour.dtype == jnp.float32
    assert grey.shape == SHAPES[name] and grey.dtype == jnp.float64
    for picture in (colour, grey):
        assert picture.min() >= 0 and picture.max() <= 1
        assert picture.max() - picture.min() > 0.3
    levels = np.unique(np.round(np.asarray(colour, dtype=np.float64) * 255, 3))
    assert np.allclose(levels, np.round(levels), atol=1e-3)


@pytest.mark.parametrize("name", ["camera", "astronaut", "retina", "clock", "coins"])
def test_photographs_are_those_of_skimage(name):
    theirs = getattr(skimage.data, name)()
    grey = skimage.color.rgb2gray(theirs) if theirs.ndim == 3 else theirs / 255
    assert np.allclose(data.photograph(name), grey, rtol=0, atol=1e-12)


@pytest.mark.parametrize("index, name", [(0, "china"), (1, "flower")])
def test_photographs_are_those_of_sklearn(index, name):
    import sklearn.datasets

    theirs = sklearn.datasets.load_sample_images().images[index] / 255
    assert np.allclose(data.photograph(name, grey=False), theirs, rtol=0, atol=1e-12)


def area_mean(picture, shape):
    """Integrates the piecewise constant picture over each new pixel, one axis at a time."""

    def weights(old, new):
        edges = np.linspace(0, old, new + 1)
        left = np.maximum(edges[:-1, None], np.arange(old))
        right = np.minimum(edges[1:, None], np.arange(1, old + 1))
        return np.maximum(right - left, 0) * new / old

    rows, columns = weights(picture.shape[0], shape[0]), weights(picture.shape[1], shape[1])
    return np.einsum("ai,bj,ij...->ab...", rows, columns, picture, optimize=True)


@pytest.mark.parametrize("shape", [(256, 256), (100, 77), (512, 512), (511, 300), (1, 1)])
def test_shrinking_is_the_exact_area_mean_of_the_centre(shape):
    full = np.asarray(data.photograph("astronaut", grey=False))
    height = min(512, round(512 * shape[0] / shape[1]))
    width = min(512, round(512 * shape[1] / shape[0]))
    top, left = (512 - height) // 2, (512 - width) // 2
    expected = area_mean(full[top : top + height, left : left + width], shape)
    small = data.photograph("astronaut", grey=False, shape=shape)
    assert np.allclose(small, expected, rtol=0, atol=1e-12)


def test_shrinking_by_a_whole_factor_gives_block_means():
    full = np.asarray(data.photograph("camera"))
    blocks = full.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.allclose(data.photograph("camera", shape=128), blocks, rtol=0, atol=1e-12)


def test_bad_photographs():
    with pytest.raises(ValueError, match="`name` must be one of astronaut, .* got 'lena'"):
        data.photograph("lena")
    with pytest.raises(ValueError, match="`shape` must be at most 512 x 512 .* got 600 x 600"):
        data.photograph("camera", shape=600)
    with pytest.raises(ValueError, match="`shape` must be positive"):
        data.photograph("camera", shape=(0, 3))
    with pytest.raises(ValueError, match="`dtype` must be a real floating-point type"):
        data.photograph("camera", dtype=jnp.uint8)


@pytest.mark.parametrize(
    "package, distribution, call",
    [
        ("skimage", "scikit-image", lambda: data.photograph("camera")),
        ("skimage", "scikit-image", lambda: data.faces()),
        ("skimage", "scikit-image", lambda: data.shepp_logan_image()),
        ("sklearn", "scikit-learn", lambda: data.photograph("china")),
        ("sklearn.datasets", "scikit-learn", lambda: data.digits()),
    ],
)
def test_missing_packages(monkeypatch, package, distribution, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {distribution}.*pip install "jinv\[images\]"'):
        call()


def test_split_holds_out_whole_photographs(getkey):
    train, test = data.train_test_photographs()
    assert test == ("astronaut", "camera", "coins", "flower", "motorcycle", "retina")
    key = getkey()
    splits = [(train, test), data.train_test_photographs(key=key)]
    for train, test in splits:
        assert len(train) == 14 and len(test) == 6
        assert set(train) | set(test) == set(data.photographs()) - {"clock"}
    assert splits[1] == data.train_test_photographs(key=key) != splits[0]


@pytest.mark.parametrize("shape, size", [((9, 7), 3), ((9, 7, 3), (2, 7)), ((5, 5), 5)])
def test_patches_are_crops(getkey, shape, size):
    image = jnp.arange(np.prod(shape)).reshape(shape)
    crops = jax.jit(lambda image, key: data.patches(image, size, key=key, num=40))(image, getkey())
    height, width = (size, size) if isinstance(size, int) else size
    assert crops.shape == (40, height, width, *shape[2:]) and crops.dtype == image.dtype
    seen = set()
    for crop in np.asarray(crops):
        i, j = np.unravel_index(crop.ravel()[0], shape)[:2]
        assert np.array_equal(crop, image[i : i + height, j : j + width])
        seen.add((int(i), int(j)))
    assert len(seen) <= (shape[0] - height + 1) * (shape[1] - width + 1)


def test_patches_reach_every_position_equally_often(getkey):
    crops = data.patches(jnp.arange(12).reshape(3, 4), 2, key=getkey(), num=6000)
    counts = np.bincount(np.asarray(crops[:, 0, 0]), minlength=7)[[0, 1, 2, 4, 5, 6]]
    assert counts.sum() == 6000
    # Five standard deviations of a binomial count.
    assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(6000 * 5 / 36))


def test_bad_patches(getkey):
    image = jnp.ones((4, 5))
    with pytest.raises(ValueError, match="`size` must be at most the image's 4 x 5 .* got 5 x 5"):
        data.patches(image, 5, key=getkey(), num=1)
    with pytest.raises(ValueError, match="`size` must be positive"):
        data.patches(image, 0, key=getkey(), num=1)
    with pytest.raises(ValueError, match="`num` must not be negative"):
        data.patches(image, 2, key=getkey(), num=-1)


def test_digits_and_faces():
    images, labels = data.digits(dtype=jnp.float32)
    assert images.shape == (1797, 8, 8) and images.dtype == jnp.float32
    assert images.min() == 0 and images.max() == 1 and np.all(images * 16 == jnp.round(images * 16))
    assert np.array_equal(np.unique(labels), np.arange(10))
    faces = data.faces()
    assert faces.shape == (100, 25, 25) and faces.min() >= 0 and faces.max() <= 1
    assert np.array_equal(faces, skimage.data.lfw_subset()[:100])


# The phantom


def test_phantom_by_the_table_at_single_points():
    n = 37
    phantom = np.asarray(data.shepp_logan(n))
    for i, j in np.ndindex(n, n):
        point = complex(-1 + (2 * j + 1) / n, 1 - (2 * i + 1) / n)
        value = 0.0
        for rho, a, b, x, y, angle in data.SHEPP_LOGAN_ELLIPSES:
            local = (point - complex(x, y)) * np.exp(-1j * np.radians(angle))
            value += rho * ((local.real / a) ** 2 + (local.imag / b) ** 2 <= 1)
        assert abs(phantom[i, j] - value) < 1e-12


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_phantom_has_exact_values(dtype):
    phantom = data.shepp_logan(256, dtype=dtype)
    assert phantom.dtype == dtype and phantom.shape == (256, 256)
    expected = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 1.0]).astype(dtype)
    assert np.array_equal(np.unique(phantom), expected)


def test_phantom_mass_converges_to_that_of_the_ellipses():
    exact = sum(np.pi * e.intensity * e.semi_x * e.semi_y for e in data.SHEPP_LOGAN_ELLIPSES)
    assert abs(4 * data.shepp_logan(1024).mean() - exact) < 1e-4 * exact


def test_phantom_agrees_with_the_picture_of_skimage():
    picture = data.shepp_logan_image()
    assert picture.shape == (400, 400) and picture.max() == 1 and picture.min() == 0
    differs = np.abs(np.asarray(data.shepp_logan(400) - picture)) > 0.01
    # Only pixels cut by an edge: 8 bits inside, and less than one pixel in a hundred differs.
    assert differs.mean() < 0.01
    assert data.shepp_logan_image(shape=(100, 50), dtype=jnp.float32).shape == (100, 50)


def test_sinogram_is_the_line_integral():
    angles, offsets = np.array([0.0, 0.4, 1.9, 3.0]), np.array([-0.93, -0.3, 0.01, 0.25, 0.66])
    sinogram = data.shepp_logan_sinogram(jnp.asarray(angles), jnp.asarray(offsets))
    s = (np.arange(400_000) + 0.5) / 200_000 - 1
    s = 1.4 * s
    for i, j in np.ndindex(sinogram.shape):
        direction = np.exp(1j * angles[i])
        points = direction * (offsets[j] + 1j * s)
        values = np.zeros(s.size)
        for rho, a, b, x, y, angle in data.SHEPP_LOGAN_ELLIPSES:
            local = (points - complex(x, y)) * np.exp(-1j * np.radians(angle))
            values += rho * ((local.real / a) ** 2 + (local.imag / b) ** 2 <= 1)
        # Each of at most twenty edges is met to within half a step.
        assert abs(sinogram[i, j] - 2.8 * values.mean()) < 20 * 0.5 * 2.8 / s.size


def test_sinogram_conserves_mass_and_is_symmetric():
    angles, offsets = jnp.linspace(0, jnp.pi, 7), jnp.linspace(-1, 1, 4001)
    sinogram = data.shepp_logan_sinogram(angles, offsets)
    mass = sinogram.sum(axis=1) * 2 / 4000
    exact = sum(np.pi * e.intensity * e.semi_x * e.semi_y for e in data.SHEPP_LOGAN_ELLIPSES)
    assert np.allclose(mass, exact, rtol=1e-4)
    opposite = data.shepp_logan_sinogram(angles + jnp.pi, -offsets)
    assert np.allclose(sinogram, opposite, atol=1e-6)


def test_sinogram_agrees_with_the_radon_transform_of_the_picture():
    from skimage.transform import radon

    n, degrees = 256, np.array([0.0, 30.0, 75.0])
    theirs = radon(np.array(data.shepp_logan(n)), degrees, circle=True).T
    # scikit-image turns about pixel n // 2, which is half a pixel from the centre of the square.
    offsets = (np.arange(n) - n // 2) * 2.0 / n
    half_pixel = (np.cos(np.radians(degrees)) - np.sin(np.radians(degrees))) / n
    for row, angle, shift in zip(theirs, np.radians(degrees), half_pixel, strict=True):
        ours = data.shepp_logan_sinogram(np.array([angle]), offsets + shift)[0] * n / 2
        assert np.linalg.norm(row - ours) < 0.03 * np.linalg.norm(ours)


def test_sinogram_dtype_and_derivative():
    angles, offsets = jnp.array([0.3, 1.0]), jnp.array([-0.2, 0.5])
    single = data.shepp_logan_sinogram(angles.astype("float32"), offsets.astype("float32"))
    assert single.dtype == jnp.float32
    total = lambda a, t: data.shepp_logan_sinogram(a, t).sum()
    check_grads(total, (angles, offsets), order=1, eps=1e-6)
    with pytest.raises(ValueError, match="dtype of `angles`, float64; got float32"):
        data.shepp_logan_sinogram(angles, offsets.astype("float32"))


def test_bad_phantom():
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        data.shepp_logan(0)


# Pictures of the user

GREY8 = np.array([[0, 51, 255], [102, 204, 1]], np.uint8)
RGB8 = np.stack([GREY8, GREY8[::-1], GREY8[:, ::-1]], axis=-1)
LIGHT = np.array([0.2125, 0.7154, 0.0721])


def write(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp", "PNG"])
def test_pictures_of_8_bits(tmp_path, suffix):
    grey = write(tmp_path / f"grey.{suffix}", GREY8)
    assert np.allclose(data.read_image(grey), GREY8 / 255, atol=1e-15)
    assert np.allclose(data.read_image(str(grey), grey=False), GREY8[..., None] / 255 + np.zeros(3))
    colour = write(tmp_path / f"colour.{suffix}", RGB8)
    assert np.allclose(data.read_image(colour, grey=False), RGB8 / 255, atol=1e-15)
    assert np.allclose(data.read_image(colour), RGB8 / 255 @ LIGHT, atol=1e-12)
    assert np.allclose(data.read_image(colour), skimage.color.rgb2gray(RGB8), atol=1e-12)
    assert data.read_image(colour, dtype=jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg(tmp_path, suffix):
    smooth = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)
    path = write(tmp_path / f"a.{suffix}", smooth, quality=98)
    assert np.allclose(data.read_image(path), smooth / 255, atol=0.02)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_pictures_of_16_bits(tmp_path, suffix):
    deep = np.array([[0, 1, 65535], [257, 32768, 1000]], np.uint16)
    path = write(tmp_path / f"deep.{suffix}", deep)
    assert np.allclose(data.read_image(path), deep / 65535, atol=1e-15)


@pytest.mark.parametrize(
    "options", [{}, {"planarconfig": "separate"}, {"compression": "zlib"}, {"byteorder": ">"}]
)
def test_colour_tiff_of_16_bits_keeps_all_of_them(tmp_path, rng, options):
    deep = rng.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    stored = np.moveaxis(deep, -1, 0) if "planarconfig" in options else deep
    tifffile.imwrite(tmp_path / "deep.tif", stored, photometric="rgb", **options)
    picture = data.read_image(tmp_path / "deep.tif", grey=False)
    assert np.allclose(picture, deep / 65535, atol=1e-15)


def test_tiff_of_16_bits_with_transparency(tmp_path):
    deep = np.zeros((2, 3, 4), np.uint16)
    deep[0, :, 3] = 65535
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(data.read_image(tmp_path / "a.tif"), [[0, 0, 0], [1, 1, 1]])


def test_colour_png_of_16_bits_keeps_the_upper_8(tmp_path, rng):
    deep = rng.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.allclose(data.read_image(path, grey=False), (deep >> 8) / 255, atol=1e-12)


def test_transparent_pixels_are_put_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    picture = data.read_image(write(tmp_path / "a.png", rgba), grey=False)
    assert np.allclose(picture, [[[1, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]], atol=1e-12)
    grey_alpha = Image.fromarray(rgba).convert("LA")
    grey_alpha.save(tmp_path / "la.png")
    assert data.read_image(tmp_path / "la.png")[0, 1] == 1


def test_palettes_with_and_without_transparency(tmp_path):
    indexed = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    indexed.save(tmp_path / "p.png")
    expected = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert np.array_equal(data.read_image(tmp_path / "p.png", grey=False), expected)
    indexed.save(tmp_path / "t.png", transparency=2)
    expected[0, 2] = 1
    assert np.array_equal(data.read_image(tmp_path / "t.png", grey=False), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_of_1_bit(tmp_path, suffix):
    bits = np.array([[True, False, True], [False, False, True]])
    path = tmp_path / f"bits.{suffix}"
    Image.fromarray(bits).save(path)
    assert np.array_equal(data.read_image(path), bits)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255
    path = tmp_path / f"ink.{suffix}"
    Image.frombytes("CMYK", (16, 16), ink.tobytes()).save(path)
    assert np.allclose(data.read_image(path, grey=False), [0, 1, 1], atol=0.02)


def test_the_orientation_of_cameras_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    Image.fromarray(GREY8).save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(data.read_image(tmp_path / "turned.png"), np.rot90(GREY8, -1) / 255)


def test_floating_point_tiff(tmp_path):
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    tifffile.imwrite(tmp_path / "f.tif", values)
    assert np.array_equal(data.read_image(tmp_path / "f.tif"), values)
    for bad in (np.nan, np.inf, -0.1, 1.5):
        tifffile.imwrite(tmp_path / "bad.tif", np.where(values == 0, np.float32(bad), values))
        with pytest.raises(ValueError, match=r"bad\.tif: expected values in \[0, 1\]"):
            data.read_image(tmp_path / "bad.tif")


def test_max_size(tmp_path, rng):
    wide = rng.integers(0, 256, (30, 80, 3)).astype(np.uint8)
    path = write(tmp_path / "wide.png", wide)
    small = data.read_image(path, grey=False, max_size=40)
    assert np.allclose(small, area_mean(wide / 255, (15, 40)), atol=1e-12)
    assert data.read_image(path, max_size=80).shape == (30, 80)
    assert data.read_image(path, max_size=1).shape == (1, 1)
    with pytest.raises(ValueError, match="`max_size` must be at least 1"):
        data.read_image(path, max_size=0)


def test_pictures_of_unknown_white(tmp_path):
    tifffile.imwrite(tmp_path / "int.tif", np.arange(6, dtype=np.int32).reshape(2, 3))
    with pytest.raises(ValueError, match=r"int\.tif: expected samples of 1, 8 or 16 bits"):
        data.read_image(tmp_path / "int.tif")


def test_several_pages(tmp_path):
    pages = [Image.fromarray(GREY8), Image.fromarray(GREY8)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"pages\.tif: expected one picture; the file holds 2"):
        data.read_image(tmp_path / "pages.tif")


# Arrays of the user

ARRAYS = {
    "float64": np.linspace(-1, 1, 24).reshape(2, 3, 4),
    "float32": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "complex128": np.array([[1 + 2j, 3j], [0, -1.5]]),
    "complex64": np.array([[1 + 2j, 3j]], np.complex64),
    "uint8": np.arange(6, dtype=np.uint8).reshape(3, 2),
    "int64": np.array([[-(2**40), 7]]),
    "bool": np.array([[True, False, True]]),
    "nan": np.array([[np.nan, np.inf, 1.0]]),
}
SUFFIXES = ["npy", "npz", "mat", "h5", "hdf5"]


def store(path, **arrays):
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, *arrays.values())
    elif suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif suffix == ".mat":
        scipy.io.savemat(path, arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def store_v73(path, **arrays):
    """A v7.3 file as MATLAB lays it out: text block, reversed axes, class attributes."""
    names = {"float64": "double", "float32": "single", "bool": "logical"}
    names |= {"complex128": "double", "complex64": "single"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = array.T
            if array.dtype.kind == "c":
                real = np.dtype(array.real.dtype)
                pair = np.empty(stored.shape, [("real", real), ("imag", real)])
                pair["real"], pair["imag"] = stored.real, stored.imag
                stored = pair
            elif array.dtype == bool:
                stored = stored.astype(np.uint8)
            if array.size == 0:
                stored = np.array(array.shape, np.uint64)
            dataset = file.create_dataset(name, data=stored)
            kind = names.get(array.dtype.name, array.dtype.name)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
            if array.size == 0:
                dataset.attrs["MATLAB_empty"] = np.uint8(1)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, made for a test".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("suffix", SUFFIXES + ["v73"])
def test_round_trip(tmp_path, suffix, name):
    array = ARRAYS[name]
    if suffix == "v73":
        path = store_v73(tmp_path / "a.mat", A=array)
    else:
        path = store(tmp_path / f"a.{suffix}", A=array)
    read = data.read_array(path)
    assert isinstance(read, jax.Array) and read.dtype == array.dtype
    assert np.array_equal(read, array, equal_nan=name == "nan")
    if suffix != "npy":
        assert np.array_equal(data.read_array(str(path), variable="A"), read, equal_nan=True)


@pytest.mark.parametrize("suffix", ["npz", "mat", "h5", "v73"])
def test_choosing_a_variable(tmp_path, suffix):
    arrays = {"kernel": np.ones((2, 3)), "blurred": np.zeros((1, 2))}
    writer = store_v73 if suffix == "v73" else store
    path = writer(tmp_path / ("a.mat" if suffix == "v73" else f"a.{suffix}"), **arrays)
    assert np.array_equal(data.read_array(path, variable="kernel"), arrays["kernel"])
    with pytest.raises(ValueError, match=r"no variable 'sharp'; .* holds 'blurred', 'kernel'"):
        data.read_array(path, variable="sharp")
    with pytest.raises(ValueError, match="expected `variable`, because .* 'blurred', 'kernel'"):
        data.read_array(path)


def test_matlab_shapes_and_packed_doubles(tmp_path):
    path = store(tmp_path / "a.mat", v=np.arange(5.0), s=np.float64(3))
    assert data.read_array(path, variable="v").shape == (1, 5)
    assert data.read_array(path, variable="s").shape == (1, 1)
    # MATLAB itself packs doubles without a fraction; scipy does not, so a byte is packed by hand.
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"x": np.array([[1, 2, 3, 4]], np.uint8)})
    content = bytearray(buffer.getvalue())
    flags = content.index(struct.pack("<II", 6, 8), 128) + 8
    assert content[flags] == 9
    content[flags] = 6  # class double, stored as bytes
    (tmp_path / "packed.mat").write_bytes(content)
    read = data.read_array(tmp_path / "packed.mat")
    assert read.dtype == jnp.float64 and np.array_equal(read, [[1, 2, 3, 4]])


def test_empty_arrays_of_v73(tmp_path):
    path = store_v73(tmp_path / "a.mat", E=np.zeros((0, 3)))
    assert data.read_array(path).shape == (0, 3)


def test_groups_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/sinogram"] = np.ones((2, 3))
        file["scan/angles"] = np.zeros(2)
    assert data.read_array(tmp_path / "a.h5", variable="scan/sinogram").shape == (2, 3)
    assert data.read_array(tmp_path / "a.h5", variable="/scan/angles").shape == (2,)
    with pytest.raises(ValueError, match="'scan' to be an array; it is a group .*'angles'"):
        data.read_array(tmp_path / "a.h5", variable="scan")


def test_other_byte_orders_and_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3).astype(">f8"))
    for suffix in ("npy", "npz", "h5"):
        read = data.read_array(store(tmp_path / f"a.{suffix}", A=array))
        assert read.dtype == jnp.float64 and np.array_equal(read, array)


def test_numbers_that_do_not_fit_without_x64(tmp_path):
    small = store(tmp_path / "small.npy", A=np.array([1, 2]))
    large = store(tmp_path / "large.npy", A=np.array([2**40]))
    huge = store(tmp_path / "huge.npy", A=np.array([1e300, np.inf]))
    with jax.enable_x64(False):
        assert data.read_array(small).dtype == jnp.int32
        for path in (large, huge):
            with pytest.raises(ValueError, match="do not fit in .*32; call .*jax_enable_x64"):
                data.read_array(path)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_never_loaded(tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / f"a.{suffix}"
    array = np.array([Trap()], dtype=object)
    np.save(path, array, allow_pickle=True) if suffix == "npy" else np.savez(path, A=array)
    with pytest.raises(ValueError, match=r"array of Python objects, .* is never read"):
        data.read_array(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_text_and_records_are_refused(tmp_path, suffix):
    arrays = [np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])]
    arrays += [np.array(["text"])] if suffix != "h5" else [np.array([b"text"])]
    for array in arrays:
        path = store(tmp_path / f"a.{suffix}", A=array)
        with pytest.raises(ValueError, match=f"a.{suffix}: expected real or complex numbers"):
            data.read_array(path)


def test_other_classes_of_matlab_are_refused(tmp_path):
    others = {
        "char": "text",
        "struct": {"field": 1.0},
        "cell": np.array([1, "a"], dtype=object),
        "sparse": scipy.sparse.eye_array(3, format="csc"),
    }
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {f"a_{kind}": value for kind, value in others.items()})
    for kind in others:
        with pytest.raises(ValueError, match=f"a.mat: expected 'a_{kind}' .* it is a {kind}"):
            data.read_array(path, variable=f"a_{kind}")
    store_v73(path, text=np.array([[116, 101]], np.uint16))
    with h5py.File(path, "r+") as file:
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")
    with pytest.raises(ValueError, match="expected 'text' .* it is a char"):
        data.read_array(path)


def test_a_npy_file_has_no_names(tmp_path):
    path = store(tmp_path / "a.npy", A=np.ones(2))
    with pytest.raises(ValueError, match="one array without a name; got variable='A'"):
        data.read_array(path, variable="A")


def test_files_without_arrays(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    np.savez(tmp_path / "a.npz")
    scipy.io.savemat(tmp_path / "a.mat", {})
    for suffix in ("h5", "npz", "mat"):
        with pytest.raises(ValueError, match=rf"a\.{suffix}: .*(holds none|truncated)"):
            data.read_array(tmp_path / f"a.{suffix}")


def test_missing_h5py(tmp_path, monkeypatch):
    path = store(tmp_path / "a.h5", A=np.ones(2))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'a\.h5: .* needs h5py.*pip install "jinv\[images\]"'):
        data.read_array(path)


# What both readers refuse

BOTH = [(data.read_array, suffix) for suffix in SUFFIXES]
BOTH += [(data.read_image, suffix) for suffix in ("png", "jpg", "tif", "bmp")]


def sound_file(path):
    if path.suffix[1:] in SUFFIXES:
        return store(path, A=np.linspace(0, 1, 3000).reshape(30, 100))
    noise = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    return write(path, noise)


@pytest.mark.parametrize("read, suffix", BOTH)
def test_missing_directory_empty(tmp_path, read, suffix):
    with pytest.raises(FileNotFoundError, match=rf"gone\.{suffix}: there is no such file"):
        read(tmp_path / f"gone.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(ValueError, match=rf"folder\.{suffix}: expected a file; got a directory"):
        read(tmp_path / f"folder.{suffix}")
    (tmp_path / f"empty.{suffix}").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"empty\.{suffix}: expected .* the file is empty"):
        read(tmp_path / f"empty.{suffix}")


@pytest.mark.parametrize("read, suffix", BOTH)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_truncated_files(tmp_path, read, suffix, share):
    path = sound_file(tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    assert read(path).size > 0
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"a\.{suffix}: not a readable .* or a truncated one"):
        read(path)


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_v73(tmp_path, share):
    path = store_v73(tmp_path / "a.mat", A=np.ones((30, 100)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"a\.mat: not a readable .mat file, or a truncated one"):
        data.read_array(path)


@pytest.mark.parametrize("read, suffix", BOTH)
def test_something_else_under_this_suffix(tmp_path, read, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"These are words, and neither an array nor a picture. " * 20)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: not a readable"):
        read(path)


@pytest.mark.parametrize(
    "read, known", [(data.read_array, ".npy, .npz"), (data.read_image, ".png")]
)
def test_unknown_suffix(tmp_path, read, known):
    for name in ("a.csv", "a"):
        (tmp_path / name).write_text("1,2")
        with pytest.raises(ValueError, match=f"{name}: expected one of the suffixes {known}"):
            read(tmp_path / name)
