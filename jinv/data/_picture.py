"""From a picture file to an array in [0, 1]: decoding, grey values, cropping and averaging."""

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._dtype import float_dtype, optional_import
from ._read import read_content


_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LIGHTNESS = np.array([0.2125, 0.7154, 0.0721])  # Rec. ITU-R BT.709, as scikit-image rounds it


def read_image(
    path: str | os.PathLike[str],
    *,
    grey: bool = True,
    dtype: Any = None,
    max_size: int | None = None,
) -> Array:
    r"""Reads a picture of your own as an array in $[0, 1]$.

    Integer samples are divided by their largest value: 255 for 8 bits, 65535 for 16 bits, 1
    for 1 bit. Palettes are looked up, CMYK is converted without colour management,
    transparent pixels are put on white, and the orientation that cameras store is applied.
    Floating-point TIFFs must be in $[0, 1]$ already: a picture is never stretched silently,
    and NaN or infinity are refused. `read_array` reads files that are data rather than pictures.

    Colour pictures of 16 bits keep all of them in TIFF files; from PNG files the decoder
    (Pillow) delivers the upper 8.

    **Arguments:**

    - `path`: a PNG, JPEG, TIFF (one page) or BMP file.
    - `grey`: whether to return the lightness $0.2125 R + 0.7154 G + 0.0721 B$ of the stored
        (gamma-encoded) values, as `skimage.color.rgb2gray` does, or three channels.
    - `dtype`: of the result; JAX's default float if left out.
    - `max_size`: if given, pictures with a longer side are shrunk to it, by area averaging
        (each new pixel is the mean over the area it covers); smaller ones stay as they are.

    **Returns:** an array of shape `(H, W)` if `grey`, else `(H, W, 3)`. Row 0 is the top.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError`, naming the file and
    what was expected, for a directory, an empty or damaged file, an unknown suffix, several
    pages, or values outside $[0, 1]$; `ImportError` without scikit-image.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> import jinv.data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "mine.png")
        ...     Image.fromarray(np.array([[0, 51], [102, 255]], "uint8")).save(path)
        ...     jinv.data.read_image(path)
        Array([[0. , 0.2],
               [0.4, 1. ]], dtype=float32)

        ```
    """
    dtype = float_dtype(dtype)
    if max_size is not None and max_size < 1:
        raise ValueError(f"`max_size` must be at least 1 pixel; got {max_size}.")
    picture = to_grey(decode(Path(path))) if grey else to_colour(decode(Path(path)))
    height, width = picture.shape[:2]
    if max_size is not None and max(height, width) > max_size:
        scale = max_size / max(height, width)
        picture = area_average(picture, [max(1, round(n * scale)) for n in (height, width)])
    return jnp.asarray(picture, dtype=dtype)


def decode(path: Path) -> np.ndarray:
    """A picture file as float64 in [0, 1], of shape `(H, W)` or `(H, W, 3)`."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"{path}: expected one of the suffixes {', '.join(_SUFFIXES)}; got {path.suffix!r}."
        )
    content = read_content(path)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which do not matter here; damaged samples raise.
        warnings.filterwarnings("ignore", module="PIL")
        samples = _decoded(path, content)
    return _checked(path, _on_white(_unit_range(path, samples)))


def _decoded(path: Path, content: bytes) -> np.ndarray:
    pil: Any = optional_import("PIL.Image", "scikit-image (with Pillow)", f"{path}: decoding")
    damage = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
    try:
        picture = pil.open(BytesIO(content), formats=("PNG", "JPEG", "TIFF", "BMP"))
        frames = getattr(picture, "n_frames", 1)
        if picture.format in ("PNG", "TIFF") and frames > 1:
            samples = None
        elif picture.format == "TIFF" and _wide_colour(picture):
            samples = _read_tiff(content)
        else:
            samples = _samples(picture)
    except (*damage, pil.DecompressionBombError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: not a readable {path.suffix} picture, or a truncated one ({reason})."
        ) from error
    if samples is None:
        raise ValueError(f"{path}: expected one picture; the file holds {frames}.")
    return samples


def to_grey(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 2 else np.clip(picture @ _LIGHTNESS, 0.0, 1.0)


def to_colour(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture


def centre_crop(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The largest central part with the proportions of `shape`, to the nearest pixel."""
    (height, width), (rows, columns) = picture.shape[:2], shape
    crop_height = min(height, max(1, round(width * rows / columns)))
    crop_width = min(width, max(1, round(height * columns / rows)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return picture[top : top + crop_height, left : left + crop_width]


def area_average(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Each new pixel is the mean over the rectangle it covers, fractions of pixels included."""
    if picture.shape[:2] == tuple(shape):
        return picture
    transform: Any = optional_import("skimage.transform", "scikit-image", "Shrinking a picture")
    channel_axis = -1 if picture.ndim == 3 else None
    small = transform.resize_local_mean(picture, tuple(shape), channel_axis=channel_axis)
    return np.clip(small, 0.0, 1.0)


def _samples(picture) -> np.ndarray:
    """Samples as Pillow stores them, in one of the modes 1, L, RGB, RGBA, I;16, I or F."""
    ops: Any = optional_import("PIL.ImageOps", "scikit-image (with Pillow)", "Decoding")
    picture.load()
    # Camera orientation is applied to the samples; the tag itself is of no further use.
    picture = ops.exif_transpose(picture)
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBa"):
        picture = picture.convert("RGBA")
    elif picture.mode not in ("1", "L", "RGB", "RGBA", "F", "I") and picture.mode[:2] != "I;":
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _wide_colour(picture) -> bool:
    """Whether a TIFF has colour samples of more than 8 bits, which Pillow would shorten."""
    bits = picture.tag_v2.get(258, (1,))
    return len(bits) > 1 and max(bits) > 8


def _read_tiff(content: bytes) -> np.ndarray:
    tifffile: Any = optional_import("tifffile", "scikit-image (with tifffile)", "Decoding")
    with tifffile.TiffFile(BytesIO(content)) as file:
        page = file.pages[0]
        samples = page.asarray()
        if page.axes.startswith("S"):  # planar files store one plane for each channel
            samples = np.moveaxis(samples, 0, -1)
        if page.photometric.name not in ("RGB", "MINISBLACK"):
            raise ValueError(
                f"expected RGB or grey samples of 16 bits; got {page.photometric.name}"
            )
    return samples


def _unit_range(path: Path, samples: np.ndarray) -> np.ndarray:
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        return samples.astype(np.float64)
    if kind == "b" or (kind == "u" and bits <= 16):
        return samples / (1.0 if kind == "b" else 2.0**bits - 1.0)
    raise ValueError(
        f"{path}: expected samples of 1, 8 or 16 bits, or floating point in [0, 1]; got "
        f"{samples.dtype}, whose white is unknown. Read it with `read_array` from a .npy file."
    )


def _on_white(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 2 or picture.shape[-1] in (1, 3):
        return picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    colour, alpha = picture[..., :-1], picture[..., -1:]
    return (colour * alpha + (1.0 - alpha)).squeeze(-1 if colour.shape[-1] == 1 else ())


def _checked(path: Path, picture: np.ndarray) -> np.ndarray:
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[-1] != 3):
        raise ValueError(
            f"{path}: expected a grey or a colour picture; got samples of shape {picture.shape}."
        )
    if not np.all((picture >= 0.0) & (picture <= 1.0)):
        raise ValueError(
            f"{path}: expected values in [0, 1]; got some that are NaN, infinite or outside "
            f"(from {np.min(picture):.4g} to {np.max(picture):.4g})."
        )
    return picture
