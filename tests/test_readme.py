"""The Python examples of the README and of the documentation run, and print what is shown."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def program(text: str) -> str:
    """All Python blocks, each on the lines where the page has it."""
    lines = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        if match[1] == "python":
            first = text.count("\n", 0, match.start(2))
            for i, line in enumerate(match[2].splitlines()):
                lines[first + i] = line
    return "\n".join(lines)


def shown(text: str) -> str:
    """What the page says is printed: the `text` blocks that directly follow Python blocks."""
    fences = list(FENCE.finditer(text))
    return "".join(
        after[2]
        for before, after in zip(fences, fences[1:], strict=False)
        if (before[1], after[1]) == ("python", "text")
        and text[before.end() : after.start()] == "\n\n"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_examples_run(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    source = program(text)
    if not source.strip():
        pytest.skip("no Python on this page")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(source, encoding="utf-8")
    # A process of its own: a reader has JAX's defaults, not the settings of this suite.
    variables = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**variables, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    if expected := shown(text):
        assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", expected)
        pairs = zip(NUMBER.findall(done.stdout), NUMBER.findall(expected), strict=True)
        for found, told in pairs:
            # Machines round differently, and an iteration may stop at a neighbouring check.
            assert math.isclose(float(found), float(told), rel_tol=0.1), (done.stdout, expected)


def test_reads_blocks():
    text = "a\n\n```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n\n```sh\nrm x\n```\n"
    assert program(text).splitlines() == ["", "", "", "x = 1", "print(x)"] + [""] * 9
    assert shown(text) == "1\n"
