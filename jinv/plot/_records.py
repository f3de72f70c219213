"""Reading benchmark records: plain dictionaries, as the benchmarks write them to JSON lines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def checked_records(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    records = list(records)
    if not records:
        raise ValueError("`records` must hold at least one benchmark record; got none.")
    return records


def method_name(record: Mapping[str, Any]) -> str:
    return _named(record, "method")


def problem_name(record: Mapping[str, Any]) -> str:
    return _named(record, "problem")


def succeeded(record: Mapping[str, Any]) -> bool:
    """Whether the solver reported success; a record without a result ran to its end."""
    result = record.get("result", record.get("outcome", {}).get("result", "successful"))
    return result in ("successful", "")


def measured(record: Mapping[str, Any], *names: str) -> bool:
    """Whether there is something to draw. A failed solve may lack numbers; others must not."""
    return succeeded(record) or all(_numbers(record, name).size for name in names)


def quantity(record: Mapping[str, Any], name: str) -> float:
    """A number of a record; a list of repeats counts as its median."""
    return float(np.median(repeats(record, name)))


def repeats(record: Mapping[str, Any], name: str) -> np.ndarray:
    """All repeats of a quantity of a record."""
    values = _numbers(record, name)
    if values.size == 0:
        found = sorted({key for part in _parts(record) for key in part})
        raise ValueError(f"a record has neither a field nor a metric {name!r}; it has {found}.")
    return values


def _numbers(record: Mapping[str, Any], name: str) -> np.ndarray:
    values = (part.get(name) for part in _parts(record))
    value = next((value for value in values if value is not None), [])
    return np.asarray(value, dtype=np.float64).ravel()


def _parts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where a quantity may be: flat, or nested as the benchmarks write it."""
    outcome = record.get("outcome", {})
    parts = (record, record.get("cost"), record.get("metrics"), outcome, outcome.get("metrics"))
    return [part for part in parts if isinstance(part, Mapping)]


def fingerprint(value: Any) -> str:
    """Equal for equal parameters, whatever the order in which they were written."""
    return json.dumps(value, sort_keys=True, default=str)


def axis_label(name: str) -> str:
    """A field's name as a reader expects it, with the unit."""
    known = {
        "run_s": "time (s)",
        "cpu_s": "CPU time (s)",
        "compile_s": "compile time (s)",
        "peak_bytes": "peak memory (bytes)",
        "num_steps": "iterations",
        "psnr": "PSNR (dB)",
        "ssim": "SSIM",
        "snr": "SNR (dB)",
    }
    return known.get(name, name.replace("_", " "))


def _named(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        raise ValueError(f"a record needs {field!r} with a name; got {value!r}.")
    return name
