"""The imaging cases of the benchmark `lpn`. Standard library only."""

from ._cases import Case, Contender


_MODULE = "benchmarks._lpn_imaging"
_TASKS = (
    {"task": "denoising", "noise": 0.05},
    {"task": "deblurring", "noise": 0.02},
    {"task": "deblurring", "noise": 0.04},
    {"task": "inpainting", "noise": 0.02, "kept": 0.5},
    {"task": "sensing", "noise": 0.02, "kept": 0.25},
    {"task": "tomography", "noise": 0.5, "angles": 30},
)
# The first value of the knob that is tried, and the ratio of neighbours. Weights of total variation
# are in units of the variance of the noise, the noise that a prior is told in those of the noise.
_WEIGHT = {"first": 10.0, "ratio": 1.5}
_NOISE = {"first": 0.7, "ratio": 1.25}
_STOPS = (1, 10, 30, 100, 500)


def imaging_cases(smoke: bool) -> list[Case]:
    """Reconstruction by every method tuned for itself, and what the prior says of images."""
    found = []
    for task in _TASKS[1:2] if smoke else _TASKS:
        few = {"crops": 1, "tuning": 1, "photographs": 2} if smoke else {"crops": 20, "tuning": 1}
        found.append(_case("imaging", 16 if smoke else 64, {**task, **few}, _methods(task, smoke)))
    if smoke:
        return found
    found.append(_case("imaging_prior", 64, {"crops": 20}, [_one("prior", "LPN")]))
    large = {"task": "tomography", "noise": 2.0, "angles": 200, "image": "retina"}
    large |= {"tuning": 1, "photographs": 4}
    return [*found, _case("imaging_large", 512, large, _large())]


def _case(name, size, params, contenders):
    problem = {"name": name, "size": size, "params": params}
    return Case(problem, contenders, reference=None, long_s=2.0, history=True)


def _one(method, label, **params):
    return Contender("jinv", _MODULE, method, params, window_steps=1, label=label)


def _methods(task, smoke):
    most = {"max_steps": 20} if smoke else {}
    stops = {"stops": (1, 10) if smoke else _STOPS}
    mmse, lipschitz = {"prior": "convolutional"}, {"prior": "lipschitz"}
    found = [
        _one("tv", "TV, PDHG", **_WEIGHT, **most),
        _one("learned", "LPN, PGD", prior="lpn", **_NOISE, **most),
        _one("learned", "LPN, ADMM", prior="lpn", solver="admm", **_NOISE, **most),
        _one("learned", "MMSE denoiser, PGD", **mmse, **_NOISE, **most),
        _one("stopped", "MMSE denoiser, stopped", **mmse, **_NOISE, **stops),
        _one("learned", "1-Lipschitz denoiser, PGD", **lipschitz, **_NOISE, **most),
        _one("stopped", "1-Lipschitz denoiser, stopped", **lipschitz, **_NOISE, **stops),
    ]
    if task["task"] == "tomography":
        found.insert(3, _one("split", "LPN, HQS", prior="lpn", **_NOISE))
    # Untuned: one program less to compile.
    return [found[0], _one("learned", "LPN, PGD", prior="lpn", **most)] if smoke else found


def _large():
    return [
        _one("fbp", "FBP, Hann"),
        _one("tv", "TV, PDHG", **_WEIGHT, max_steps=500),
        _one("learned", "LPN, PGD", prior="lpn", **_NOISE, max_steps=200),
        _one("split", "LPN, HQS", prior="lpn", **_NOISE, max_steps=30),
    ]
