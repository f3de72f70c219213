"""Runs benchmarks: everything is set up first, then timed in interleaved rounds."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ._cases import Benchmark, Case, Settings
from ._entry import Entry
from ._reference import REFERENCES, reference_of


# A slow trajectory is not repeated: its own length averages the disturbances.
_REPEAT_BELOW_S = 5.0
_PASSES = 3

Log = Callable[[str], None]


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_benchmark(
    benchmark: Benchmark, settings: Settings, *, log: Log = to_stderr, references=REFERENCES
) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of one case after the other, so that nothing measured is lost."""
    for case in benchmark.cases(settings.smoke):
        chosen = [c for c in case.contenders if re.search(settings.only, case_label(case, c))]
        if chosen:
            yield run_case(benchmark.name, case, chosen, settings, log, references)


def case_label(case: Case, contender) -> str:
    """`problem/library/method`, what `--only` is matched against."""
    return f"{problem_label(case.problem)}/{contender.library}/{contender.name}"


def problem_label(problem) -> str:
    details = [str(value) for value in problem["params"].values() if isinstance(value, str)]
    return " ".join([problem["name"], *details, str(problem["size"])])


def run_case(
    name: str,
    case: Case,
    contenders,
    settings: Settings,
    log: Log = to_stderr,
    references=REFERENCES,
) -> list[dict[str, Any]]:
    """Records of all contenders on one problem, one each, whatever happened to them."""
    reference = None
    if case.reference == "numpy":
        log(f"{problem_label(case.problem)}: reference")
        reference = reference_of(
            case.problem, dtype=settings.dtype, seed=settings.seed, folder=references
        )
    entries = [Entry(case, contender, settings) for contender in contenders]
    try:
        for entry in entries:
            log(f"{case_label(case, entry.contender)}: setting up")
            entry.start()
            if entry.message:
                log(f"{case_label(case, entry.contender)}: {entry.result}: {entry.message}")
        _time_windows(entries, settings, log)
        _follow(entries, case, reference, settings, log)
        own = _library_optima(entries, case) if case.reference == "library" else {}
        for entry in entries:
            if entry.alive and not entry.counts:
                entry.judge()
    finally:
        for entry in entries:
            entry.close()
    return [entry.record(name, own.get(entry.contender.library, reference)) for entry in entries]


def _time_windows(entries: list[Entry], settings: Settings, log: Log) -> None:
    for repeat in range(settings.repeats):
        log(f"round {repeat + 1} of {settings.repeats}")
        for entry in entries:
            if entry.alive and repeat < entry.wanted(settings.repeats):
                entry.time_window()
                log(f"  window: {case_label(entry.case, entry.contender)}")


def _follow(entries: list[Entry], case: Case, reference, settings: Settings, log: Log) -> None:
    followed = [entry for entry in entries if entry.contender.follow and case.checkpoints]
    for entry in followed:
        if entry.alive:
            log(f"  convergence: {case_label(case, entry.contender)}")
            entry.optimum = (reference or {}).get("values", {}).get("objective")
            entry.follow()
    if settings.smoke:
        return
    for _ in range(_PASSES - 1):
        for entry in followed:
            quick = entry.segments and sum(s["cpu_s"] for s in entry.segments[0]) < _REPEAT_BELOW_S
            if entry.alive and entry.counts and quick:
                entry.follow_again()


def _library_optima(entries: list[Entry], case: Case) -> dict[str, dict[str, Any]]:
    """The least objective that each library found, after sending its best contender further."""
    optima = {}
    for library in dict.fromkeys(entry.contender.library for entry in entries):
        mine = [
            entry
            for entry in entries
            if entry.contender.library == library
            and entry.alive
            and entry.history
            and entry.result != "non-finite"
        ]
        if not mine:
            continue
        best = min(mine, key=lambda entry: entry.history[-1]["objective"])
        last = dict(best.metrics)
        best.run_on(case.reference_steps)
        best.metrics = last
        values = [judged["objective"] for entry in mine for judged in entry.history]
        if best.tail is not None:
            values.append(best.tail["objective"])
        optima[library] = {
            "values": {"objective": min(values)},
            "certificate": {
                "kind": "least value found by the library itself",
                "by": best.contender.name,
                "num_steps": best.counts[-1] + case.reference_steps,
            },
        }
    return optima
