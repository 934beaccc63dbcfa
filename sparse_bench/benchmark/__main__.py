"""Command line: ``python -m sparse_bench.benchmark rates``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.benchmark import rates
from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.store import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 1 if results are missing or do not fit together."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sparse_bench.benchmark", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runs = [Path(os.environ.get("SPARSE_BENCH_RUNS", "runs"))]
    where = "folders to search for runs, at any depth (default: $SPARSE_BENCH_RUNS, else runs)"
    one = commands.add_parser("rates", help="choose the learning rates on validation, and write them for the sweeps")
    one.add_argument("--runs", type=Path, nargs="+", metavar="DIR", default=runs, help=where)
    one.set_defaults(command=_rates)
    return parser


def _rates(options: argparse.Namespace) -> int:
    table, _ = load(options.runs, "benchmark", curves=())
    found = rates.choose(rates.trials(table))
    path = rates.write(found, "Chosen on validation by `python -m sparse_bench.benchmark rates`.")
    print(f"Written: {path}, {sum(map(len, found.values()))} rates")
    return 0


if __name__ == "__main__":
    sys.exit(main())
