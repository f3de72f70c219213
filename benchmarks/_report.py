"""Tables in markdown, derived from records only."""

import statistics
from collections.abc import Iterable
from typing import Any

from . import _linear_report, _lpn_report
from ._harness import problem_label


Record = dict[str, Any]


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest record of each (benchmark, problem, method, settings); files are append-only."""
    found: dict[str, Record] = {}
    for record in records:
        key = repr(
            (
                record["benchmark"],
                sorted(record["problem"].items(), key=lambda item: item[0]),
                record["method"]["library"],
                record["method"]["name"],
                sorted(record["method"]["params"].items()),
                record["seed"],
                record["dtype"],
                record["provenance"]["threads"],
            )
        )
        if key not in found or record["provenance"]["utc"] >= found[key]["provenance"]["utc"]:
            found[key] = record
    return list(found.values())


def report(records: Iterable[Record]) -> str:
    """All tables, one for each problem, with the provenance under it."""
    groups: dict[tuple, list[Record]] = {}
    for record in latest(records):
        where = (
            record["benchmark"],
            problem_label(record["problem"]),
            _short(record["problem"]["params"]),
            record["dtype"],
            record["provenance"]["threads"],
            record["seed"],
        )
        groups.setdefault(where, []).append(record)
    return "\n".join(_section(where, group) for where, group in groups.items())


def method_label(record: Record) -> str:
    return f"{record['method']['library']} {record['method']['name']}"


def _section(where: tuple, records: list[Record]) -> str:
    benchmark, problem, params, dtype, threads, seed = where
    if benchmark == "linear":
        header = list(_linear_report.HEADER)
        rows = [[_cell(value) for value in row] for row in _linear_report.rows(records)]
    elif benchmark == "lpn" and records[0]["problem"]["name"] in _lpn_report.PROBLEMS:
        header = list(_lpn_report.HEADER)
        rows = [[_cell(value) for value in row] for row in _lpn_report.rows(records)]
    else:
        header, rows = _steps_table(records)
    lines = [
        f"## {benchmark}: {problem}",
        "",
        f"{params}; {dtype}; {threads} thread{'s' if threads > 1 else ''}"
        + (f"; seed {seed}" if seed else ""),
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    notes = dict.fromkeys(
        f"- {method_label(record)}: {record['outcome']['message']}"
        for record in records
        if record["outcome"]["message"]
    )
    return "\n".join([*lines, "", *notes, *_origin(records), ""])


def _steps_table(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    """For iterations that are followed one by one."""
    targets = _targets(records)
    extra = _extra_metrics(records)
    header = [
        "library",
        "method",
        "result",
        "set-up s",
        "compile s",
        "CPU ms/step: min",
        "median",
        "wall ms/step: min",
        "median",
        *(f"steps to {target:.0e}" for target in targets),
        *(f"CPU s to {target:.0e}" for target in targets),
        *(["gap"] if any("gap" in record["outcome"]["metrics"] for record in records) else []),
        *extra,
        "peak MiB",
    ]
    return header, [_row(record, targets, extra, header) for record in records]


def _row(record: Record, targets, extra, header) -> list[str]:
    cost, outcome = record["cost"], record["outcome"]
    steps = cost["window_steps"] or 1
    cells = [record["method"]["library"], record["method"]["name"], outcome["result"]]
    cells += [_number(cost["setup_s"]), _number(cost["compile_s"])]
    for times in (cost["cpu_s"], cost["run_s"]):
        per_step = [1e3 * value / steps for value in times]
        cells += [
            _number(min(per_step) if per_step else None),
            _number(statistics.median(per_step) if per_step else None),
        ]
    reached = {entry["gap"]: entry for entry in outcome.get("to_gap", [])}
    for name in ("num_steps", "cpu_s"):
        cells += [_number(reached.get(target, {}).get(name)) for target in targets]
    if "gap" in header:
        cells.append(_number(outcome["metrics"].get("gap")))
    cells += [_number(outcome["metrics"].get(name), digits=4) for name in extra]
    peak = cost["peak_bytes"]
    return [*cells, _number(None if peak is None else peak / 2**20)]


def _origin(records: list[Record]) -> list[str]:
    """Who, where and when, so that a table can be trusted or repeated."""
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record["provenance"]["versions"].items():
            versions.setdefault(name, set()).add(version)
    said = ", ".join(
        f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items())
    )
    devices = {record["provenance"]["device"] for record in records} - {None}
    commits = {
        f"{record['provenance']['commit'][:9]}{'+' if record['provenance']['dirty'] else ''}"
        for record in records
        if record["provenance"]["commit"]
    }
    loads = [
        record["provenance"]["load_average"][0]
        for record in records
        if record["provenance"]["load_average"]
    ]
    dates = sorted({record["provenance"]["utc"][:10] for record in records})
    load = f"; load average {min(loads):g} to {max(loads):g}" if loads else ""
    return [
        "",
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(sorted(devices))}; "
        f"commit {', '.join(sorted(commits)) or 'unknown'}{load}; {said}",
    ]


def _targets(records: list[Record]) -> list[float]:
    found = {entry["gap"] for record in records for entry in record["outcome"].get("to_gap", [])}
    return sorted(found, reverse=True)


def _extra_metrics(records: list[Record]) -> list[str]:
    found = dict.fromkeys(name for record in records for name in record["outcome"]["metrics"])
    return [name for name in found if name != "gap"]


def _number(value: float | int | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def _cell(value: str | float | int | None) -> str:
    return value if isinstance(value, str) else _number(value)


def _short(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in params.items()) or "default settings"
