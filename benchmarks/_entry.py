"""One contender's way through a case: its worker, what it measured, how it ended."""

import math
from typing import Any

from ._cases import Case, Contender, Settings
from ._environments import NotInstalled, python_of
from ._provenance import provenance
from ._records import SCHEMA_VERSION, finite_or_none
from ._workers import Worker, WorkerError


class Entry:
    """Mutable book-keeping of one contender; a failure ends it and is kept."""

    def __init__(self, case: Case, contender: Contender, settings: Settings):
        self.case, self.contender, self.settings = case, contender, settings
        self.worker: Worker | None = None
        self.result, self.message = "successful", ""
        self.hello: dict[str, Any] | None = None
        self.setup: dict[str, Any] = {}
        self.windows: list[dict[str, float]] = []
        self.parts: dict[str, list[dict[str, float]]] = {}
        self.counts: list[int] = []
        self.history: list[dict[str, float]] = []
        self.segments: list[list[dict[str, float]]] = []
        self.metrics: dict[str, float] = {}
        self.peak_bytes: int | None = None
        self.recorded: dict[str, list[float]] = {}
        self.tail: dict[str, float] | None = None
        self.optimum: float | None = None

    @property
    def alive(self) -> bool:
        return self.worker is not None

    def start(self) -> None:
        """Start the worker and set the contender up, first calls included."""
        if self.contender.unavailable is not None:
            self.result, self.message = "not available", self.contender.unavailable
            return
        try:
            python = python_of(self.contender.library)
        except NotInstalled as error:
            self.result, self.message = "not installed", str(error)
            return
        settings = self.settings
        try:
            self.worker = Worker(
                python, self.contender.module, threads=settings.threads, dtype=settings.dtype
            )
        except OSError as error:
            self.result, self.message = "not installed", f"{python}: {error}"
            return
        self.hello = self.ask("hello")
        if self.alive:
            self.setup = (
                self.ask(
                    "setup",
                    method=self.contender.method,
                    params=dict(self.contender.params),
                    problem=dict(self.case.problem),
                    dtype=settings.dtype,
                    seed=settings.seed,
                    window_steps=self.contender.window_steps,
                    long_s=self.case.long_s,
                )
                or {}
            )

    def wanted(self, repeats: int) -> int:
        """How many repeats: fewer where one takes long."""
        longest = max((window["run_s"] for window in self.windows), default=0.0)
        if longest <= self.case.long_s:
            return repeats
        return min(repeats, 3 if longest <= 3 * self.case.long_s else 1)

    def time_window(self) -> None:
        """One repeat: `window_steps` iterations from the starting point."""
        self.ask("restart")
        measured = self.ask("run", num_steps=self.contender.window_steps)
        if measured:
            self.windows.append(measured)
        for name in self.setup.get("parts", []):
            measured = self.ask("part", name=name)
            if measured:
                self.parts.setdefault(name, []).append(measured)

    def follow(self) -> None:
        """The first pass over the checkpoints, judging the result at each."""
        self.ask("restart")
        steps, spent, reached = 0, 0.0, False
        self.segments.append([])
        for count in self.case.checkpoints:
            measured = self.ask("run", num_steps=count - steps)
            judged = self.judge() if measured else None
            if measured is None or judged is None:
                return
            steps, spent = count, spent + measured["cpu_s"]
            self.segments[0].append(measured)
            self.counts.append(count)
            self.history.append(judged)
            if not all(math.isfinite(value) for value in judged.values()):
                self.result, self.message = "non-finite", f"after {count} iterations"
                return
            reached = self.reached(judged)
            if reached or spent > self.case.time_limit_s:
                break
        if not reached and spent > self.case.time_limit_s:
            self.result = "time limit"
            self.message = f"stopped after {steps} iterations, {spent:.3g} s of CPU"

    def reached(self, judged: dict[str, float]) -> bool:
        """Whether the smallest target is met, with the case's fixed reference."""
        if self.optimum is None or "objective" not in judged:
            return False
        return judged["objective"] - self.optimum <= min(self.case.targets) * abs(self.optimum)

    def follow_again(self) -> None:
        """A later pass over the same checkpoints, for the times only."""
        self.ask("restart")
        steps, segments = 0, []
        for count in self.counts:
            measured = self.ask("run", num_steps=count - steps)
            if measured is None:
                return
            steps = count
            segments.append(measured)
        self.segments.append(segments)

    def run_on(self, num_steps: int) -> None:
        """Continue untimed, to find the optimum of this library's own problem."""
        if self.ask("run", num_steps=num_steps) is not None:
            self.tail = self.judge()

    def judge(self) -> dict[str, float] | None:
        # What judging needs is not the contender's.
        resident = self.worker.peak_resident_bytes() if self.worker else None
        reply = self.ask("metrics", history=self.case.history)
        if reply is None:
            return None
        self.metrics, self.recorded = reply["metrics"], reply["history"]
        self.peak_bytes = reply["peak_bytes"] or resident
        residual = self.metrics.get("relative_residual")
        if residual is not None and self.case.tolerance is not None and self.result == "successful":
            if not math.isfinite(residual):
                self.result, self.message = "non-finite", "the result is not finite"
            elif residual > 1.01 * self.case.tolerance:
                self.result = "not converged"
                self.message = f"the relative residual is {residual:.1e}"
        return self.metrics

    def ask(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """Ask the worker; on failure note how it ended, close it and answer None."""
        if self.worker is None:
            return None
        try:
            return self.worker.ask(command, timeout_s=self.settings.timeout_s, **arguments)
        except WorkerError as error:
            self.result, self.message = error.result, str(error)
            self.close()
            return None

    def close(self) -> None:
        if self.worker is not None:
            if self.peak_bytes is None:
                self.peak_bytes = self.worker.peak_resident_bytes()
            self.worker.close()
            self.worker = None

    def record(self, benchmark: str, reference: dict[str, Any] | None) -> dict[str, Any]:
        contender, case = self.contender, self.case
        metrics = {name: finite_or_none(value) for name, value in self.metrics.items()}
        metrics.update(_errors(self.metrics, reference))
        own_steps = metrics.pop("num_steps", None)
        outcome: dict[str, Any] = {
            "result": self.result,
            "message": self.message,
            "num_steps": self._num_steps(own_steps),
            "metrics": metrics,
            "reference": reference,
        }
        if self.counts:
            outcome["trajectory"] = self._trajectory(reference)
            outcome["to_gap"] = [
                _first_below(outcome["trajectory"], target) for target in case.targets
            ]
        elif self.recorded:
            outcome["trajectory"] = {
                name: [finite_or_none(value) for value in values]
                for name, values in self.recorded.items()
            }
        parts = {name: _times(measured) for name, measured in self.parts.items()}
        return {
            "schema_version": SCHEMA_VERSION,
            "benchmark": benchmark,
            "problem": dict(case.problem),
            "method": {
                "library": contender.library,
                "name": contender.name,
                "params": {"method": contender.method, **contender.params},
                "n_weights": self.setup.get("n_weights", 0),
            },
            "seed": self.settings.seed,
            "dtype": self.settings.dtype,
            "outcome": outcome,
            "cost": {
                "compile_s": self.setup.get("compile_s"),
                "setup_s": self.setup.get("setup_s"),
                "window_steps": contender.window_steps,
                **_times(self.windows),
                **({"parts": parts} if parts else {}),
                "peak_bytes": self.peak_bytes,
            },
            "provenance": provenance(self.hello, self.settings.threads),
        }

    def _num_steps(self, own: float | None) -> int | None:
        if own is not None:
            return int(own)
        if self.counts:
            return self.counts[-1]
        return self.contender.window_steps if self.windows else None

    def _trajectory(self, reference: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = {"num_steps": self.counts, "passes": len(self.segments)}
        for name in ("run_s", "cpu_s"):
            total, sums = 0.0, []
            # A disturbance only ever adds time: take each segment's least over the passes.
            for pieces in zip(*self.segments, strict=False):
                total += min(piece[name] for piece in pieces)
                sums.append(total)
            found[name] = sums[: len(self.counts)]
        for name in self.history[0]:
            found[name] = [finite_or_none(judged.get(name)) for judged in self.history]
        if optimum := ((reference or {}).get("values") or {}).get("objective"):
            found["gap"] = [
                None if value is None else (value - optimum) / abs(optimum)
                for value in found.get("objective", [])
            ]
        return found


def _times(measured: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [times[name] for times in measured] for name in ("run_s", "cpu_s")}


def _errors(metrics: dict[str, float], reference: dict[str, Any] | None) -> dict[str, Any]:
    """The objective's relative gap, and relative errors of everything else with a reference."""
    found = {}
    for name, exact in ((reference or {}).get("values") or {}).items():
        if name in metrics:
            difference = (metrics[name] - exact) / (abs(exact) or 1.0)
            gap = name == "objective"
            found["gap" if gap else f"{name}_error"] = finite_or_none(
                difference if gap else abs(difference)
            )
    return found


def _first_below(trajectory: dict[str, Any], target: float) -> dict[str, Any]:
    """Iterations and time to the first checkpoint with a gap of at most `target`, or nulls."""
    for k, gap in enumerate(trajectory.get("gap", [])):
        if gap is not None and gap <= target:
            return {
                "gap": target,
                "num_steps": trajectory["num_steps"][k],
                "run_s": trajectory["run_s"][k],
                "cpu_s": trajectory["cpu_s"][k],
            }
    return {"gap": target, "num_steps": None, "run_s": None, "cpu_s": None}
