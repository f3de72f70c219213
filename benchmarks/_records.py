"""What one measurement is on disk: JSON lines, checked when written and when read."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1
"""Raised by one whenever a field changes its meaning."""

RESULTS = (
    "successful",
    "time limit",
    "non-finite",
    "not converged",
    "failed",
    "crashed",
    "timeout",
    "not installed",
    "not available",
)
"""How a run may end. Only the first four carry measurements; none is ever dropped."""

_NUMBER = (int, float)
_MAYBE_NUMBER = (int, float, type(None))

# Each field: the accepted types, or a nested schema. A leading "?" marks an optional field.
_SCHEMA: dict[str, Any] = {
    "schema_version": int,
    "benchmark": str,
    "problem": {"name": str, "size": int, "params": dict},
    "method": {
        "library": str,
        "name": str,
        "params": dict,
        "n_weights": int,
    },
    "seed": int,
    "dtype": str,
    "outcome": {
        "result": str,
        "message": str,
        "num_steps": (int, type(None)),
        "metrics": dict,
        "reference": (dict, type(None)),
        "?trajectory": dict,
        "?to_gap": list,
    },
    "cost": {
        "compile_s": _MAYBE_NUMBER,
        "setup_s": _MAYBE_NUMBER,
        "window_steps": (int, type(None)),
        "run_s": list,
        "cpu_s": list,
        "?parts": dict,
        "peak_bytes": (int, type(None)),
    },
    "provenance": {
        "commit": (str, type(None)),
        "dirty": (bool, type(None)),
        "versions": dict,
        "backend": (str, type(None)),
        "device": (str, type(None)),
        "threads": int,
        "load_average": (list, type(None)),
        "utc": str,
    },
}


def check_record(record: Any) -> dict[str, Any]:
    """Return the record if it has exactly the fields of the schema.

    **Raises:** `ValueError` that names the field, what was expected and what was got.
    """
    _check_fields(record, _SCHEMA, "record")
    if record["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"record.schema_version: expected {SCHEMA_VERSION}, got {record['schema_version']}."
        )
    if record["dtype"] not in ("float32", "float64"):
        raise ValueError(f"record.dtype: expected float32 or float64, got {record['dtype']!r}.")
    if record["outcome"]["result"] not in RESULTS:
        raise ValueError(
            f"record.outcome.result: expected one of {RESULTS}, "
            f"got {record['outcome']['result']!r}."
        )
    _check_times(record["cost"], "record.cost")
    for name, part in record["cost"].get("parts", {}).items():
        _check_fields(part, {"run_s": list, "cpu_s": list}, f"record.cost.parts.{name}")
        _check_times(part, f"record.cost.parts.{name}")
    for name, value in record["outcome"]["metrics"].items():
        if not _is(value, _MAYBE_NUMBER):
            raise ValueError(
                f"record.outcome.metrics.{name}: expected a number or null, got {value!r}."
            )
    _check_finite(record, "record")
    return record


def append_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records at the end of a file; all are checked before the first is written."""
    lines = [json.dumps(check_record(dict(record)), allow_nan=False) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if path.stat().st_size and not _ends_with_newline(path):
            # A run that was killed half-way through a line must not swallow the next record.
            file.write("\n")
        file.write("".join(line + "\n" for line in lines))


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file.

    **Raises:** `ValueError` with the file and line number of what is not a record.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(check_record(json.loads(line)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return records


def finite_or_none(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite becomes null."""
    return float(value) if value is not None and math.isfinite(value) else None


def _is(value: Any, types: Any) -> bool:
    kinds = types if isinstance(types, tuple) else (types,)
    # bool is an int to Python; a truth value where a number belongs is a mistake.
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _check_fields(value: Any, schema: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {type(value).__name__}.")
    known = {name.removeprefix("?") for name in schema}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"{where}: unknown fields {unknown}; known are {sorted(known)}.")
    for key, expected in schema.items():
        name = key.removeprefix("?")
        if name not in value:
            if key.startswith("?"):
                continue
            raise ValueError(f"{where}.{name}: missing.")
        if isinstance(expected, dict):
            _check_fields(value[name], expected, f"{where}.{name}")
        elif not _is(value[name], expected):
            kinds = expected if isinstance(expected, tuple) else (expected,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(
                f"{where}.{name}: expected {wanted}, got {type(value[name]).__name__}."
            )


def _check_times(cost: dict[str, Any], where: str) -> None:
    for name in ("run_s", "cpu_s"):
        for value in cost[name]:
            if not _is(value, _NUMBER) or value < 0:
                raise ValueError(f"{where}.{name}: expected times >= 0, got {value!r}.")
    if len(cost["run_s"]) != len(cost["cpu_s"]):
        raise ValueError(
            f"{where}: expected as many cpu_s as run_s, got "
            f"{len(cost['cpu_s'])} and {len(cost['run_s'])}."
        )


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number or null, got {value}.")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, where)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
