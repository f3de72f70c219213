"""`python -m benchmarks list | run NAME | report [FILES]`; `--help` explains the options."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from ._cases import Benchmark, Settings
from ._environments import ROOT
from ._harness import run_benchmark
from ._records import append_records, read_records
from ._report import report


RESULTS = Path(__file__).parent / "results"
FIGURES = ROOT / "results" / "benchmarks"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return options.action(options)


def names() -> list[str]:
    """Every module here without an underscore is a benchmark and has `BENCHMARK`."""
    package = str(Path(__file__).parent)
    return sorted(m.name for m in pkgutil.iter_modules([package]) if not m.name.startswith("_"))


def load(name: str) -> Benchmark:
    if name not in names():
        raise SystemExit(f"no benchmark {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"benchmarks.{name}").BENCHMARK


def _list(options: argparse.Namespace) -> int:
    for name in names():
        print(f"{name:24s} {load(name).description}")
    return 0


def _run(options: argparse.Namespace) -> int:
    benchmark = load(options.name)
    settings = Settings(
        repeats=options.repeats or (2 if options.smoke else 10),
        seed=options.seed,
        dtype=options.dtype,
        threads=options.threads,
        smoke=options.smoke,
        only=options.only,
        timeout_s=options.timeout,
    )
    # Smoke runs prove that the code runs; their numbers must not mix with measurements.
    default = (FIGURES / "smoke" if options.smoke else RESULTS) / f"{options.name}.jsonl"
    path = options.json or default
    fresh = []
    for records in run_benchmark(benchmark, settings):
        append_records(path, records)
        fresh += records
    if not fresh:
        raise SystemExit(f"--only {options.only!r} matches no contender of {options.name}")
    print(report(fresh))
    print(f"{len(fresh)} records added to {path}", file=sys.stderr)
    return 0


def _report(options: argparse.Namespace) -> int:
    paths = options.files or sorted(RESULTS.glob("*.jsonl"))
    records = [record for path in paths for record in read_records(path)]
    if not records:
        raise SystemExit(f"no records in {', '.join(map(str, paths)) or RESULTS}")
    print(report(records))
    if options.figures:
        from ._figures import save_figures

        for path in save_figures(records, options.out):
            print(path, file=sys.stderr)
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("list", help="name the benchmarks")
    command.set_defaults(action=_list)
    command = commands.add_parser("run", help="run one benchmark and append its records")
    command.add_argument("name")
    command.add_argument("--smoke", action="store_true", help="tiny problems, two repeats")
    command.add_argument("--json", type=Path, help="append here instead of the default file")
    command.add_argument("--repeats", type=_count, help="timed windows (10; 2 with --smoke)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    command.add_argument("--threads", type=_count, default=1, help="for every contender")
    command.add_argument("--only", default="", help="pattern to be found in problem/library/method")
    command.add_argument("--timeout", type=float, default=600.0, help="seconds for one reply")
    command.set_defaults(action=_run)
    command = commands.add_parser("report", help="tables to stdout, figures to files")
    command.add_argument("files", nargs="*", type=Path)
    command.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    command.add_argument("--no-figures", dest="figures", action="store_false")
    command.set_defaults(action=_report)
    return parser


if __name__ == "__main__":
    sys.exit(main())
