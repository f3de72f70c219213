"""The table of linear solves: set-up and solve apart, and all in units of jinv's default."""

import statistics
from collections.abc import Sequence
from typing import Any


Record = dict[str, Any]
Cell = str | float | int | None

DEFAULT = ("jinv", "PCG, Multigrid")
HEADER = (
    "library",
    "method",
    "result",
    "set-up ms",
    "solve ms",
    "both ms: min",
    "median",
    "CPU ms: min",
    "both / default",
    "solve / default",
    "iterations",
    "matvecs",
    "residual",
    "compile s",
    "peak MiB",
    "repeats",
)


def rows(records: Sequence[Record]) -> list[list[Cell]]:
    """One row for each record, in their order; times are wall times, the least of the repeats
    unless said otherwise. "default" is jinv's untrained multigrid in the same table."""
    default = next((record for record in records if _who(record) == DEFAULT), None)
    return [_row(record, default) for record in records]


def _row(record: Record, default: Record | None) -> list[Cell]:
    cost, outcome = record["cost"], record["outcome"]
    metrics = outcome["metrics"]
    both, solve = least(record, "both"), least(record, "solve")
    unit = (None, None) if default is None else (least(default, "both"), least(default, "solve"))
    return [
        *_who(record),
        outcome["result"],
        _milli(least(record, "set-up")),
        _milli(solve),
        _milli(both),
        _milli(statistics.median(cost["run_s"]) if cost["run_s"] else None),
        _milli(min(cost["cpu_s"], default=None)),
        _over(both, unit[0]),
        _over(solve, unit[1]),
        outcome["num_steps"] if metrics else None,
        metrics.get("matvecs"),
        metrics.get("relative_residual"),
        cost["compile_s"],
        None if cost["peak_bytes"] is None else cost["peak_bytes"] / 2**20,
        len(cost["run_s"]),
    ]


def least(record: Record, part: str) -> float | None:
    """The least wall time of "set-up", "solve" or "both". Who has no set-up solves in both."""
    cost = record["cost"]
    if not cost["run_s"]:
        return None
    if "parts" in cost and part != "both":
        return min(cost["parts"].get(part, {}).get("run_s", []), default=None)
    return 0.0 if part == "set-up" else min(cost["run_s"])


def _who(record: Record) -> tuple[str, str]:
    return record["method"]["library"], record["method"]["name"]


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _over(value: float | None, unit: float | None) -> float | None:
    return None if value is None or not unit else value / unit
