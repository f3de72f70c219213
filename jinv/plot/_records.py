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
    return record.get("result", "successful") in ("successful", "")


def quantity(record: Mapping[str, Any], name: str) -> float:
    """A number of a record: a field or a metric; a list of repeats counts as its median."""
    value = record.get(name, record.get("metrics", {}).get(name))
    if value is None or np.size(value) == 0:
        found = sorted({*record, *record.get("metrics", {})})
        raise ValueError(f"a record has neither a field nor a metric {name!r}; it has {found}.")
    return float(np.median(np.asarray(value, dtype=np.float64)))


def repeats(record: Mapping[str, Any], name: str) -> np.ndarray:
    """All repeats of a quantity of a record."""
    quantity(record, name)
    value = record.get(name, record.get("metrics", {}).get(name))
    return np.asarray(value, dtype=np.float64).ravel()


def fingerprint(value: Any) -> str:
    """Equal for equal parameters, whatever the order in which they were written."""
    return json.dumps(value, sort_keys=True, default=str)


def axis_label(name: str) -> str:
    """A field's name as a reader expects it, with the unit."""
    known = {
        "run_s": "time (s)",
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
