"""Notebooks from their sources: `build` executes and stores them, `check` only looks.

`notebooks/NN_topic.py` (jupytext, percent format) is what people edit; `NN_topic.ipynb` beside it
is generated, executed, and at most 500 kB. `check` also executes every source, two at a time,
which shortens itself where the environment variable JINV_SMOKE is set, and stores nothing.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jupytext
import nbclient
import nbformat


FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
LARGEST = 500_000
TIMEOUT_S = 1800
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("build", "check"):
        print("usage: notebooks.py build | check", file=sys.stderr)
        return 2
    sources = sorted(FOLDER.glob("*.py"))
    problems = [f"{path.name}: no source" for path in FOLDER.glob("*.ipynb") if not _source(path)]
    if arguments[0] == "build":
        for source in sources:
            print(source.name, flush=True)
            problems += build(source)
    else:
        with ProcessPoolExecutor(2) as pool:
            for source, found in zip(sources, pool.map(check, sources), strict=True):
                print(source.name, flush=True)
                problems += found
    print("\n".join(problems), file=sys.stderr)
    print(f"{len(sources)} notebooks, {len(problems)} problems")
    return 1 if problems else 0


def build(source: Path) -> list[str]:
    notebook = execute(source)
    target = source.with_suffix(".ipynb")
    nbformat.write(notebook, target)
    return size_problems(target)


def check(source: Path) -> list[str]:
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return [f"{target.name}: missing; run `make notebooks`"]
    stored = nbformat.read(target, as_version=4)
    problems = size_problems(target)
    if _cells(stored) != _cells(jupytext.read(source)):
        problems.append(f"{target.name}: differs from its source; run `make notebooks`")
    if any(cell.cell_type == "code" and not cell.execution_count for cell in stored.cells):
        problems.append(f"{target.name}: has cells that were not executed; run `make notebooks`")
    try:
        execute(source)
    except nbclient.exceptions.CellExecutionError as error:
        problems.append(f"{source.name}: {error}")
    return problems


def execute(source: Path):
    notebook = jupytext.read(source)
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    # Nothing that differs from build to build: times, random names of cells, versions.
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    return notebook


def size_problems(path: Path) -> list[str]:
    size = path.stat().st_size
    return [f"{path.name}: {size} bytes, the most is {LARGEST}"] if size > LARGEST else []


def _source(path: Path) -> bool:
    return path.with_suffix(".py").exists()


def _cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
