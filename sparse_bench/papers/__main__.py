"""Command line: ``python -m sparse_bench.papers sweeps NAME …`` lists the sweeps that reproduce papers."""

import argparse
import sys
from collections.abc import Sequence

from sparse_bench.commands import exit_status
from sparse_bench.config.catalog import experiments
from sparse_bench.papers import FOLDER, papers_in
from sparse_bench.papers.page import Sizes, read_papers


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the sweeps of papers, or the corpora that these need, one a line. Return 1 if a description is faulty."""
    parser = argparse.ArgumentParser(prog="python -m sparse_bench.papers", description=__doc__)
    parser.add_argument("what", choices=("sweeps", "corpora"))
    parser.add_argument("papers", nargs="+", choices=papers_in(FOLDER), metavar="NAME")
    parser.add_argument("--size", choices=tuple(Sizes.model_fields), default="full", help="small takes minutes")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _list(options))


def _list(options: argparse.Namespace) -> int:
    papers = read_papers(experiments())
    names = [name for paper in options.papers for name in getattr(getattr(papers[paper], options.what), options.size)]
    print("\n".join(dict.fromkeys(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
