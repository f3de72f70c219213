"""Where and when a measurement was made."""

import datetime
import os
import subprocess
from typing import Any

from ._environments import ROOT


def provenance(hello: dict[str, Any] | None, threads: int) -> dict[str, Any]:
    """The record's provenance; `hello` is the worker's greeting, if it came that far."""
    hello = hello or {}
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": hello.get("versions", {}),
        "backend": hello.get("backend"),
        "device": hello.get("device") or _processor(),
        "threads": threads,
        "load_average": [round(value, 2) for value in os.getloadavg()]
        if hasattr(os, "getloadavg")
        else None,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> tuple[str | None, bool | None]:
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes.strip())


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _processor() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return None
