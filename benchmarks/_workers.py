"""The parent's side of the workers: one process per contender, spoken to through pipes."""

import json
import os
import selectors
import subprocess
import tempfile
import time
from typing import Any

from ._environments import ROOT, worker_environment


class WorkerError(Exception):
    """A worker could not do what was asked; `result` is the outcome to record."""

    def __init__(self, result: str, message: str):
        super().__init__(message)
        self.result = result


class Worker:
    """A running contender process. Use as a context manager, or call `close`."""

    def __init__(self, python: str, module: str, *, threads: int, dtype: str):
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks._worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=worker_environment(threads, dtype),
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        self._stdin, self._stdout = stdin, stdout
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def ask(self, command: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its reply.

        **Raises:** `WorkerError` for an exception there, a dead process, or no reply in time.
        """
        line = json.dumps({"command": command, **arguments}) + "\n"
        try:
            self._stdin.write(line.encode())
            self._stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._crash() from None
        reply = json.loads(self._read_line(timeout_s, command))
        if reply.pop("ok"):
            return reply
        missing = reply["missing"]
        if reply["unavailable"]:
            raise WorkerError("not available", reply["error"].partition(": ")[2])
        # A missing helper inside the library is its own failure, but the reader wants the same fix.
        raise WorkerError("not installed" if missing else "failed", reply["error"])

    def peak_resident_bytes(self) -> int | None:
        """High-water mark of the process's memory (Linux); null elsewhere."""
        try:
            with open(f"/proc/{self._process.pid}/status", encoding="ascii") as status:
                for line in status:
                    if line.startswith("VmHWM:"):
                        return 1024 * int(line.split()[1])
        except OSError:
            pass
        return None

    def close(self) -> None:
        if self._process.poll() is None:
            try:
                self._stdin.write(b'{"command": "close"}\n')
                self._stdin.flush()
                self._process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        self._selector.close()
        for stream in (self._stdin, self._stdout):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self._errors.close()

    def _read_line(self, timeout_s: float, command: str) -> bytes:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._selector.select(remaining):
                self._process.kill()
                raise WorkerError("timeout", f"no reply to {command!r} within {timeout_s:g} s")
            chunk = os.read(self._stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._crash()
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _crash(self) -> WorkerError:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        last = said[-1] if said else "no message"
        return WorkerError("crashed", f"worker ended with status {code}: {last}")
