"""Real images that travel inside the wheels of scikit-image and scikit-learn."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Num, PRNGKeyArray

from ._dtype import float_dtype, optional_import
from ._picture import area_average, centre_crop, decode, to_colour, to_grey


class _Entry(NamedTuple):
    package: str
    file: str


_SKIMAGE, _SKLEARN = "skimage", "sklearn"
_PHOTOGRAPHS = {
    "astronaut": _Entry(_SKIMAGE, "data/astronaut.png"),
    "brick": _Entry(_SKIMAGE, "data/brick.png"),
    "camera": _Entry(_SKIMAGE, "data/camera.png"),
    "cell": _Entry(_SKIMAGE, "data/cell.png"),
    "chelsea": _Entry(_SKIMAGE, "data/chelsea.png"),
    "china": _Entry(_SKLEARN, "datasets/images/china.jpg"),
    "clock": _Entry(_SKIMAGE, "data/clock_motion.png"),
    "coffee": _Entry(_SKIMAGE, "data/coffee.png"),
    "coins": _Entry(_SKIMAGE, "data/coins.png"),
    "flower": _Entry(_SKLEARN, "datasets/images/flower.jpg"),
    "grass": _Entry(_SKIMAGE, "data/grass.png"),
    "gravel": _Entry(_SKIMAGE, "data/gravel.png"),
    "hubble_deep_field": _Entry(_SKIMAGE, "data/hubble_deep_field.jpg"),
    "immunohistochemistry": _Entry(_SKIMAGE, "data/ihc.png"),
    "microaneurysms": _Entry(_SKIMAGE, "data/microaneurysms.png"),
    "moon": _Entry(_SKIMAGE, "data/moon.png"),
    "motorcycle": _Entry(_SKIMAGE, "data/motorcycle_left.png"),
    "page": _Entry(_SKIMAGE, "data/page.png"),
    "retina": _Entry(_SKIMAGE, "data/retina.jpg"),
    "rocket": _Entry(_SKIMAGE, "data/rocket.jpg"),
    "text": _Entry(_SKIMAGE, "data/text.png"),
}
_HELD_OUT = ("astronaut", "camera", "coins", "flower", "motorcycle", "retina")
_BLURRED = ("clock",)


def photographs() -> tuple[str, ...]:
    """The names that `photograph` knows, in alphabetical order.

    All but two lie in the wheel of scikit-image; `china` and `flower` lie in scikit-learn's.
    The page *Data* lists their shapes, sources and licences.

    **Returns:** a tuple of names.

    !!! example
        ```python
        >>> import jinv.data
        >>> names = jinv.data.photographs()
        >>> len(names), names[:3]
        (21, ('astronaut', 'brick', 'camera'))

        ```
    """
    return tuple(_PHOTOGRAPHS)


def photograph(
    name: str,
    *,
    shape: int | tuple[int, int] | None = None,
    grey: bool = True,
    dtype: Any = None,
) -> Float[Array, "..."]:
    r"""One of the photographs that ship with scikit-image and scikit-learn, in $[0, 1]$.

    The file is read from the installed package itself: nothing is downloaded, and no cache is
    looked at. For a smaller picture the centre is cropped to the proportions of `shape` (to
    the nearest pixel), and each new pixel is the mean over the area it covers
    (`skimage.transform.resize_local_mean`): exact block means where the sizes divide, and no
    aliasing. Decoding takes a few milliseconds to a tenth of a second.

    **Arguments:**

    - `name`: one of `photographs()`.
    - `shape`: `(height, width)` in pixels, or one number for a square; the full picture if
        left out. Enlarging is refused, because it would show detail that was never measured.
    - `grey`: whether to return the lightness $0.2125 R + 0.7154 G + 0.0721 B$, or three
        channels (all equal for a picture that is stored grey).
    - `dtype`: of the result; JAX's default float if left out.

    **Returns:** an array of shape `(H, W)` if `grey`, else `(H, W, 3)`. Row 0 is the top.

    **Raises:** `ValueError` for an unknown name or a `shape` larger than the picture;
    `ImportError` if the package that holds the picture is missing.

    !!! example
        ```python
        >>> import jinv.data
        >>> jinv.data.photograph("camera", shape=256).shape
        (256, 256)
        >>> jinv.data.photograph("coffee", grey=False).shape
        (400, 600, 3)

        ```
    """
    if name not in _PHOTOGRAPHS:
        known = ", ".join(_PHOTOGRAPHS)
        raise ValueError(f"`name` must be one of {known}; got {name!r}.")
    return _load(_PHOTOGRAPHS[name], f"The photograph {name!r}", shape, grey, dtype)


def shepp_logan_image(
    *, shape: int | tuple[int, int] | None = None, dtype: Any = None
) -> Float[Array, "H W"]:
    """The picture of the Shepp-Logan phantom that ships with scikit-image (400 x 400, 8 bits).

    Use it to compare with published results that start from it. `shepp_logan` computes the
    phantom itself, at any size and without the rounding of a picture file.

    **Arguments:**

    - `shape`, `dtype`: as in `photograph`.

    **Returns:** an array of shape `(H, W)` in [0, 1].

    **Raises:** `ValueError` for a larger `shape`; `ImportError` without scikit-image.

    !!! example
        ```python
        >>> import jinv.data
        >>> jinv.data.shepp_logan_image(shape=200).shape
        (200, 200)

        ```
    """
    entry = _Entry(_SKIMAGE, "data/phantom.png")
    return _load(entry, "The picture of the phantom", shape, True, dtype)


def train_test_photographs(
    *, key: PRNGKeyArray | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A split of the photographs into 14 for training and 6 for testing: whole images held out.

    Patches of one photograph resemble each other, so a split of patches measures memory. Here
    no photograph has patches on both sides. `clock` is in neither part: it is blurred by a
    moving camera, so it is no ground truth.

    **Arguments:**

    - `key`: for a random split. Without it the split is the fixed one, so that results can be
        compared: `astronaut`, `camera`, `coins`, `flower`, `motorcycle` and `retina` are held
        out.

    **Returns:** the names for training and the names for testing.

    !!! example
        ```python
        >>> import jinv.data
        >>> train, test = jinv.data.train_test_photographs()
        >>> len(train), test[:3]
        (14, ('astronaut', 'camera', 'coins'))

        ```
    """
    sharp = [name for name in _PHOTOGRAPHS if name not in _BLURRED]
    held_out = set(_HELD_OUT)
    if key is not None:
        order = np.asarray(jax.random.permutation(key, len(sharp)))
        held_out = {sharp[i] for i in order[: len(_HELD_OUT)]}
    train = tuple(name for name in sharp if name not in held_out)
    return train, tuple(name for name in sharp if name in held_out)


def patches(
    image: Num[ArrayLike, "H W *channels"],
    size: int | tuple[int, int],
    *,
    key: PRNGKeyArray,
    num: int,
) -> Num[Array, "num h w *channels"]:
    """Random crops of an image; every position inside is equally likely.

    Works under `jax.jit` with static `size` and `num`. Crops may overlap.

    **Arguments:**

    - `image`: shape `(H, W)` or `(H, W, channels)`.
    - `size`: height and width of a crop in pixels, or one number for a square.
    - `key`: a PRNG key.
    - `num`: how many crops.

    **Returns:** an array of shape `(num, h, w)` or `(num, h, w, channels)`.

    **Raises:** `ValueError` if a crop would not fit.

    !!! example
        ```python
        >>> import jax, jinv.data
        >>> image = jinv.data.photograph("camera")
        >>> jinv.data.patches(image, 28, key=jax.random.key(0), num=5).shape
        (5, 28, 28)

        ```
    """
    image = jnp.asarray(image)
    if image.ndim not in (2, 3):
        raise ValueError(f"`image` must have shape (H, W) or (H, W, channels); got {image.shape}.")
    height, width = _pair(size, "size")
    rows, columns = image.shape[0] - height, image.shape[1] - width
    if rows < 0 or columns < 0:
        raise ValueError(
            f"`size` must be at most the image's {image.shape[0]} x {image.shape[1]} pixels; "
            f"got {height} x {width}."
        )
    if num < 0:
        raise ValueError(f"`num` must not be negative; got {num}.")
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (num,), 0, rows + 1)
    left = jax.random.randint(column_key, (num,), 0, columns + 1)

    def crop(i, j):
        part = jax.lax.dynamic_slice_in_dim(image, i, height, axis=0)
        return jax.lax.dynamic_slice_in_dim(part, j, width, axis=1)

    return jax.vmap(crop)(top, left)


def digits(*, dtype: Any = None) -> tuple[Float[Array, "1797 8 8"], Int[Array, "1797"]]:
    """The 1797 handwritten digits of scikit-learn, 8 x 8 pixels in [0, 1], and their labels.

    Real data so small (64 unknowns) that Jacobians and eigenvalues of a learned map are exact
    and cheap. The grey values are multiples of 1/16.

    **Arguments:**

    - `dtype`: of the images; JAX's default float if left out.

    **Returns:** the images, shape `(1797, 8, 8)`, and the labels 0 to 9, shape `(1797,)`.

    **Raises:** `ImportError` without scikit-learn.

    !!! example
        ```python
        >>> import jinv.data
        >>> images, labels = jinv.data.digits()
        >>> images.shape, int(labels[0])
        ((1797, 8, 8), 0)

        ```

    ??? cite
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, 1998 (its test part).
    """
    dtype = float_dtype(dtype)
    sklearn: Any = optional_import("sklearn.datasets", "scikit-learn", "The set of digits")
    bunch = sklearn.load_digits()
    images = jnp.asarray(bunch.images / 16.0, dtype=dtype)
    return images, jnp.asarray(bunch.target, dtype=jnp.int32)


def faces(*, dtype: Any = None) -> Float[Array, "100 25 25"]:
    """The 100 faces of scikit-image's subset of "Labeled Faces in the Wild", in [0, 1].

    Small grey photographs of one kind (25 x 25 pixels), for pictures of a learned prior. A
    hundred are too few to train a network without augmentation.

    **Arguments:**

    - `dtype`: of the images; JAX's default float if left out.

    **Returns:** an array of shape `(100, 25, 25)`.

    **Raises:** `ImportError` without scikit-image.

    !!! example
        ```python
        >>> import jinv.data
        >>> jinv.data.faces().shape
        (100, 25, 25)

        ```

    ??? cite
        G. Huang, M. Mattar, H. Lee and E. Learned-Miller, "Learning to align from scratch",
        NIPS 2012, for the collection.
    """
    dtype = float_dtype(dtype)
    file = _locate(_Entry(_SKIMAGE, "data/lfw_subset.npy"), "The set of faces")
    # The file goes on with 100 pictures that are not faces.
    return jnp.asarray(np.load(file, allow_pickle=False)[:100], dtype=dtype)


def _load(entry: _Entry, what: str, shape, grey: bool, dtype) -> Array:
    dtype = float_dtype(dtype)
    target = None if shape is None else _pair(shape, "shape")
    picture = decode(_locate(entry, what))
    picture = to_grey(picture) if grey else to_colour(picture)
    if target is not None:
        height, width = picture.shape[:2]
        if target[0] > height or target[1] > width:
            raise ValueError(
                f"`shape` must be at most {height} x {width} pixels, the size of this picture; "
                f"got {target[0]} x {target[1]}."
            )
        picture = area_average(centre_crop(picture, target), target)
    return jnp.asarray(picture, dtype=dtype)


def _locate(entry: _Entry, what: str) -> Path:
    distribution = {_SKIMAGE: "scikit-image", _SKLEARN: "scikit-learn"}[entry.package]
    package = optional_import(entry.package, distribution, what)
    # Reading the file, rather than calling `skimage.data`, leaves no way to a download.
    return Path(str(package.__file__)).parent / entry.file


def _pair(size: int | tuple[int, int], argument: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"`{argument}` must be positive in pixels; got {size}.")
    return height, width
