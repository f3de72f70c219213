"""Which model of a run is the best, and when there is no better one to come."""

import math
from collections.abc import Sequence
from typing import Any


def check(monitor: str | None, patience: int | None, validated: bool) -> None:
    if monitor is not None and not validated:
        raise ValueError(f"`monitor` needs `validate`, got {monitor!r} without it")
    if patience is not None and monitor is None:
        raise ValueError(f"`patience` needs `monitor`, got {patience} without it")
    if patience is not None and patience < 1:
        raise ValueError(f"`patience` must be at least 1, got {patience}")


def check_resumed(record: dict[str, Any], monitor: str | None) -> None:
    if monitor is not None and record["history"] and record.get("monitor") != monitor:
        raise ValueError(
            f"`monitor` is {monitor!r}, but `checkpoint` has the best model by "
            f"{record.get('monitor')!r}: the one by another number is not kept"
        )


def best(history: Sequence[dict[str, Any]], monitor: str) -> int | None:
    """The index of the least validation number, the first of equal ones; none if none is finite."""
    name, prefix = f"validation_{monitor}", "validation_"
    for record in history:
        if name not in record:
            names = [key.removeprefix(prefix) for key in record if key.startswith(prefix)]
            raise ValueError(
                f"`monitor` must be one of what `validate` returns, {names}, got {monitor!r}"
            )
    finite = [index for index, record in enumerate(history) if math.isfinite(record[name])]
    return min(finite, key=lambda index: history[index][name], default=None)


def exhausted(history: Sequence[dict[str, Any]], monitor: str | None, patience: int | None) -> bool:
    if monitor is None or patience is None:
        return False
    index = best(history, monitor)
    return len(history) - (0 if index is None else index + 1) >= patience
