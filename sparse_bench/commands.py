"""What the command lines of the package share: the folders of runs, and errors as one line."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sparse_bench.errors import SparseBenchError

_DEFAULT = "(default: $SPARSE_BENCH_RUNS, else runs)"


def exit_status(command: Callable[[], int], failed: int = 1) -> int:
    """Carry out a command. Its expected errors, and those of the file system, are printed as one line.

    Returns:
        The command's own exit status, or ``failed`` after an error.
    """
    try:
        return command()
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return failed


def add_runs(parser: argparse.ArgumentParser, several: bool = True) -> None:
    """Add the option ``--runs``: a list of folders to search, or a single folder."""
    folder = Path(os.environ.get("SPARSE_BENCH_RUNS", "runs"))
    if several:
        where = f"folders to search for runs, at any depth {_DEFAULT}"
        parser.add_argument("--runs", type=Path, nargs="+", metavar="DIR", default=[folder], help=where)
    else:
        parser.add_argument("--runs", type=Path, metavar="DIR", default=folder, help=f"folder of runs {_DEFAULT}")
