"""Command line: ``python -m sparse_bench.benchmark rates``."""

import argparse
import sys
from collections.abc import Sequence

from sparse_bench.benchmark import rates
from sparse_bench.commands import add_runs, exit_status
from sparse_bench.evidence.store import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 1 if results are missing or do not fit together."""
    parser = argparse.ArgumentParser(prog="python -m sparse_bench.benchmark", description=__doc__)
    commands = parser.add_subparsers(required=True)
    choose = commands.add_parser("rates", help="choose the learning rates on validation, and write them for the sweeps")
    add_runs(choose)
    options = parser.parse_args(arguments)
    return exit_status(lambda: _rates(options))


def _rates(options: argparse.Namespace) -> int:
    table, _ = load(options.runs, "benchmark", curves=())
    found = rates.choose(rates.trials(table))
    path = rates.write(found, "Chosen on validation by `python -m sparse_bench.benchmark rates`.")
    print(f"Written: {path}, {sum(map(len, found.values()))} rates")
    return 0


if __name__ == "__main__":
    sys.exit(main())
