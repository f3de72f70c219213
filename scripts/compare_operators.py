"""Compares what `scripts/train_operators.py` has trained: a table, and the error against the time.

    python scripts/compare_operators.py                      # all of Darcy flow
    python scripts/compare_operators.py --problem burgers

Reads the records beside the weights in `results/train_operators`, prints a table of the errors on
the samples that were kept back, at the last epoch of each seed, and draws them against the CPU time
of the training (compilation and validation included) into `PROBLEM.png` there.
"""

import argparse
import json
import sys
from pathlib import Path

import jinv


FOLDER = Path("results/train_operators")


def runs(problem):
    """The records of each kind of training, by seed."""
    found: dict[str, list] = {}
    for path in sorted(FOLDER.glob(f"{problem}_*/weights.json")):
        record = json.loads(path.read_text())
        found.setdefault(path.parent.name.rpartition("_")[0], []).append(record)
    return found


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problem", choices=("darcy", "burgers"), default="darcy")
    problem = parser.parse_args().problem
    found = runs(problem)
    if not found:
        sys.exit(f"no weights.json in {FOLDER}/{problem}_*: run scripts/train_operators.py first")
    print("| training | weights | seeds | L2, % | H1, % | CPU s |\n|---|---|---|---|---|---|")
    for name, records in found.items():
        errors = [
            ", ".join(f"{100 * record['accuracy'][norm]:.2f}" for record in records)
            for norm in ("l2", "h1")
        ]
        seeds = ", ".join(str(record["seed"]) for record in records)
        seconds = min(record["history"][-1]["validation_cpu_seconds"] for record in records)
        cells = f"{name.removeprefix(f'{problem}_')}", f"{records[0]['num_weights']:,}", seeds
        print(f"| {' | '.join(cells)} | {' | '.join(errors)} | {seconds:.0f} |")
    column = lambda record, key: [row[f"validation_{key}"] for row in record["history"]]
    curves = {
        name.removeprefix(f"{problem}_"): tuple(
            column(records[0], k) for k in ("cpu_seconds", "l2")
        )
        for name, records in found.items()
    }
    labels = {"xlabel": "CPU time of training, s", "ylabel": "relative error in L2"}
    figure = jinv.plot.convergence(curves, logx=True, **labels)
    print(jinv.plot.save(figure, FOLDER / f"{problem}.png"))


if __name__ == "__main__":
    main()
