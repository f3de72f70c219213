"""Problem data and the float64 objectives that judge every library alike. NumPy only."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Data in the benchmark's precision, and how a result is judged (always in float64)."""

    name: str
    size: int
    params: Mapping[str, Any]
    data: Mapping[str, np.ndarray]
    objective: Callable[[np.ndarray], float]

    def metrics(self, x: Any) -> dict[str, float]:
        """Objective at `x`, and PSNR (peak 1) where the truth is known."""
        x = np.asarray(x, dtype=np.float64)
        found = {"objective": self.objective(x)}
        if "truth" in self.data:
            found["psnr"] = psnr(x, self.data["truth"])
        return found


def make_problem(
    name: str, size: int, params: Mapping[str, Any], *, dtype: str, seed: int
) -> Problem:
    """The problem of that name; the same bits in every process.

    - `tv_denoise`, `tv_deblur`: `boundary` ("neumann" or "circular"), `lam`, `sigma`; `size` is
        the image's side and divides 512. Deblurring: 9x9 Gaussian of standard deviation 2 pixels,
        circular.
    - `tv_weight`: `tv_denoise`, whose weight is wanted: the outer loss is the squared error.
    - `tv_ct`: `num_angles`, `lam`, `sigma`. Libraries discretise the Radon transform differently,
        so only the phantom and the noise are common and each contender makes its own data.
    - `lasso`: `lam`, `data` ("synthetic" or "diabetes"); `size` is the number of features.
    - `obstacles`, `box`, `diffusion`, `anisotropic`: linear systems, see `_linear_problems.py`.
    - `lpn_prox`, `lpn_step`: learned proximal networks, see `_lpn_problems.py`.
    - `imaging`, `imaging_large`, `imaging_prior`: reconstruction of photographs, see
        `_lpn_imaging_problems.py`.
    - `mgno_infer`, `mgno_step`: multigrid neural operators, see `_mgno_problems.py`.
    - `fno_infer`, `fno_step`: Fourier neural operators, see `_fno_problems.py`.
    """
    if name not in _MAKERS:
        raise ValueError(f"name: expected one of {sorted(_MAKERS)}, got {name!r}.")
    return _MAKERS[name](name, size, dict(params), np.dtype(dtype), seed)


def gradient(x: np.ndarray, boundary: str) -> np.ndarray:
    """Forward differences, shape (2, n, n): zero at the last line ("neumann") or "circular"."""
    if boundary not in ("neumann", "circular"):
        raise ValueError(f"boundary: expected 'neumann' or 'circular', got {boundary!r}.")
    found = np.stack([np.roll(x, -1, 0) - x, np.roll(x, -1, 1) - x])
    if boundary == "neumann":
        found[0, -1, :] = 0
        found[1, :, -1] = 0
    return found


def gradient_adjoint(p: np.ndarray, boundary: str) -> np.ndarray:
    """The adjoint of `gradient`."""
    down, right = p[0].copy(), p[1].copy()
    if boundary == "neumann":
        down[-1, :] = 0
        right[:, -1] = 0
    return np.roll(down, 1, 0) - down + np.roll(right, 1, 1) - right


def total_variation(x: np.ndarray, boundary: str) -> float:
    """Isotropic total variation: the sum of the pixelwise Euclidean norms of the differences."""
    return float(np.sum(np.sqrt(np.sum(gradient(x, boundary) ** 2, axis=0))))


def transfer_function(psf: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`rfft2` of an odd-sized point-spread function centred at pixel (0, 0)."""
    kernel = np.zeros(shape, dtype=np.float64)
    kernel[: psf.shape[0], : psf.shape[1]] = psf
    kernel = np.roll(kernel, (-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1))
    return np.fft.rfft2(kernel)


def circular_blur(x: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    return np.fft.irfft2(np.fft.rfft2(x) * transfer, s=x.shape)


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    error = np.mean((np.asarray(x, np.float64) - np.asarray(truth, np.float64)) ** 2)
    return float(-10 * np.log10(max(error, 1e-300)))


def phantom(size: int) -> np.ndarray:
    """The Shepp-Logan head with the contrasts of Toft's thesis, from its ten ellipses, in [0, 1].

    Source: Shepp & Logan, "The Fourier reconstruction of a head section" (1974), Table I for the
    ellipses; the higher contrasts are the usual ones for noisy tests. Each pixel is a 4x4 average.
    """
    fine = 4 * size
    axis = (np.arange(fine) + 0.5) / fine * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    image = np.zeros((fine, fine))
    for value, a, b, x0, y0, degrees in _ELLIPSES:
        angle = np.deg2rad(degrees)
        u = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        v = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return np.clip(_shrink(image, 4), 0, 1)


# value, half axes, centre, angle in degrees
_ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    n, m = image.shape[0] // factor, image.shape[1] // factor
    return image.reshape(n, factor, m, factor).mean(axis=(1, 3))


def _camera(size: int) -> np.ndarray:
    from skimage import data

    if size < 1 or 512 % size:
        raise ValueError(f"size: expected a divisor of 512 for the camera picture, got {size}.")
    return _shrink(data.camera().astype(np.float64) / 255, 512 // size)


def _tv_image(name: str, size: int, params: dict, dtype: np.dtype, seed: int) -> Problem:
    boundary, lam, sigma = params["boundary"], params["lam"], params["sigma"]
    truth = _camera(size)
    rng = np.random.default_rng(seed)
    # One stream for both problems, the blurred picture's noise first.
    noise = rng.standard_normal(truth.shape)
    data = {"truth": truth.astype(dtype)}
    if name == "tv_deblur":
        offset = np.arange(-4, 5)
        window = np.exp(-(offset**2) / (2 * 2.0**2))
        psf = np.outer(window, window)
        psf /= psf.sum()
        transfer = transfer_function(psf, truth.shape)
        clean = circular_blur(truth, transfer)
        data["psf"] = psf.astype(dtype)
        # Judge with the numbers that the libraries are given.
        transfer = transfer_function(data["psf"], truth.shape)
        forward = lambda x: circular_blur(x, transfer)
    else:
        noise = rng.standard_normal(truth.shape)
        clean, forward = truth, lambda x: x
    data["y"] = (clean + sigma * noise).astype(dtype)
    observed = data["y"].astype(np.float64)

    def objective(x: np.ndarray) -> float:
        misfit = 0.5 * float(np.sum((forward(x) - observed) ** 2))
        return misfit + lam * total_variation(x, boundary)

    return Problem(name, size, params, data, objective)


def _tv_ct(name: str, size: int, params: dict, dtype: np.dtype, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    # More normal numbers than any library has detector bins, so that all draw from the same list.
    noise = rng.standard_normal((params["num_angles"], 2 * size))
    data = {"truth": phantom(size).astype(dtype), "noise": noise.astype(dtype)}

    def objective(x: np.ndarray) -> float:
        raise NotImplementedError("each library has its own projector: use `ct_objective`.")

    return Problem(name, size, params, data, objective)


def ct_sinogram(problem: Problem, clean: np.ndarray) -> np.ndarray:
    """Noisy data from a library's own clean sinogram, shape (angles, bins) or its transpose:
    white noise of `sigma` times the root mean square of the sinogram."""
    angles = problem.params["num_angles"]
    across = clean.shape[0] != angles
    rows = clean.T if across else clean
    if rows.shape[0] != angles or rows.shape[1] > problem.data["noise"].shape[1]:
        raise ValueError(f"clean: expected ({angles}, bins) or its transpose, got {clean.shape}.")
    level = problem.params["sigma"] * np.sqrt(np.mean(rows.astype(np.float64) ** 2))
    noisy = rows + level * problem.data["noise"][:, : rows.shape[1]]
    return (noisy.T if across else noisy).astype(clean.dtype)


def ct_objective(problem: Problem, x: Any, projected: Any, sinogram: Any) -> float:
    """Half the squared misfit plus `lam` times Neumann total variation, summed in float64."""
    residual = np.asarray(projected, np.float64) - np.asarray(sinogram, np.float64)
    variation = total_variation(np.asarray(x, np.float64), problem.params["boundary"])
    return 0.5 * float(np.sum(residual**2)) + problem.params["lam"] * variation


def _lasso(name: str, size: int, params: dict, dtype: np.dtype, seed: int) -> Problem:
    arrays = _diabetes(seed) if params["data"] == "diabetes" else _synthetic(size, seed)
    if arrays["train_x"].shape[1] != size:
        raise ValueError(f"size: expected {arrays['train_x'].shape[1]} features, got {size}.")
    data = {key: value.astype(dtype) for key, value in arrays.items()}
    train_x, train_y = data["train_x"].astype(np.float64), data["train_y"].astype(np.float64)
    lam = params["lam"]

    def objective(w: np.ndarray) -> float:
        residual = train_x @ w - train_y
        return 0.5 * float(np.mean(residual**2)) + lam * float(np.sum(np.abs(w)))

    return Problem(name, size, params, data, objective)


def _synthetic(size: int, seed: int) -> dict[str, np.ndarray]:
    """A sparse linear model with equally correlated (0.1) features and half as many samples."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        own, shared = rng.standard_normal((count, size)), rng.standard_normal((count, 1))
        return np.sqrt(0.9) * own + np.sqrt(0.1) * shared

    support = max(1, size // 50)
    weights = np.zeros(size)
    chosen = rng.choice(size, support, replace=False)
    weights[chosen] = rng.choice([-1.0, 1.0], support) * (1 + rng.random(support))
    parts = {}
    for part, count in (("train", size // 2), ("valid", size // 4)):
        features = draw(count)
        parts[f"{part}_x"] = features
        parts[f"{part}_y"] = features @ weights + 0.5 * rng.standard_normal(count)
    return parts


def _diabetes(seed: int) -> dict[str, np.ndarray]:
    """scikit-learn's diabetes data, one third for validation, standardised by the training part."""
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(target))
    cut = len(target) - len(target) // 3
    train, valid = order[:cut], order[cut:]
    centre, scale = features[train].mean(0), features[train].std(0)
    features = (features - centre) / scale
    target = (target - target[train].mean()) / target[train].std()
    return {
        "train_x": features[train],
        "train_y": target[train],
        "valid_x": features[valid],
        "valid_y": target[valid],
    }


def _linear(name: str, size: int, params: dict, dtype: np.dtype, seed: int) -> Problem:
    from ._linear_problems import linear_problem

    return linear_problem(name, size, params, dtype, seed)


def _lpn(name, size, params, dtype, seed) -> Problem:
    from ._lpn_problems import make_lpn

    return make_lpn(name, size, params, dtype, seed)


def _imaging(name, size, params, dtype, seed) -> Problem:
    from ._lpn_imaging_problems import make_imaging

    return make_imaging(name, size, params, dtype, seed)


def _mgno(name, size, params, dtype, seed) -> Problem:
    from ._mgno_problems import make_mgno

    return make_mgno(name, size, params, dtype, seed)


def _fno(name, size, params, dtype, seed) -> Problem:
    from ._fno_problems import make_fno

    return make_fno(name, size, params, dtype, seed)


_MAKERS: dict[str, Callable[..., Problem]] = {
    "tv_denoise": _tv_image,
    "tv_deblur": _tv_image,
    "tv_weight": _tv_image,
    "tv_ct": _tv_ct,
    "lasso": _lasso,
    "obstacles": _linear,
    "box": _linear,
    "diffusion": _linear,
    "anisotropic": _linear,
    "lpn_prox": _lpn,
    "lpn_step": _lpn,
    "imaging": _imaging,
    "imaging_large": _imaging,
    "imaging_prior": _imaging,
    "mgno_infer": _mgno,
    "mgno_step": _mgno,
    "fno_infer": _fno,
    "fno_step": _fno,
}
