"""The table of reconstructions: how good, how certain, how long."""

import statistics
from collections.abc import Sequence
from typing import Any


Record = dict[str, Any]
Cell = str | float | int | None

PROBLEMS = ("imaging", "imaging_large")
HEADER = (
    "method",
    "result",
    "weights",
    "PSNR",
    "least PSNR",
    "SSIM",
    "certified",
    "converged",
    "fixed-point residual: largest",
    "steps",
    "s/image",
    "CPU s/image",
    "knob",
    "set-up and tuning s",
    "compile s",
    "repeats",
)


def rows(records: Sequence[Record]) -> list[list[Cell]]:
    """One row for each method. PSNR is the mean and the standard deviation over the images."""
    return [_row(record) for record in records]


def _row(record: Record) -> list[Cell]:
    cost, outcome, method = record["cost"], record["outcome"], record["method"]
    found = outcome["metrics"]
    images = found.get("images") or 1
    per_image = lambda times: statistics.median(times) / images if times else None
    quality = None
    if found.get("psnr") is not None:
        quality = f"{found['psnr']:.2f} ± {found['psnr_sd']:.2f}"
    return [
        method["name"],
        outcome["result"],
        method["n_weights"] or None,
        quality,
        _fixed(found.get("psnr_min"), 2),
        _fixed(found.get("ssim"), 3),
        _share(found.get("certified")),
        _share(found.get("converged")),
        found.get("fixed_point_residual"),
        found.get("steps"),
        per_image(cost["run_s"]),
        per_image(cost["cpu_s"]),
        found.get("knob"),
        cost["setup_s"],
        cost["compile_s"],
        len(cost["run_s"]),
    ]


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.0f} %"
