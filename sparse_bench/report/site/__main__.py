"""Command line: ``python -m sparse_bench.report.site OUT [--results DIR]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.errors import SparseBenchError
from sparse_bench.report.catalog import experiments
from sparse_bench.report.claims.ledger import write_ledger
from sparse_bench.report.claims.schema import FOLDER, read_documents
from sparse_bench.report.claims.verdicts import evaluate
from sparse_bench.report.load import NoResultsError
from sparse_bench.report.papers import read_papers
from sparse_bench.report.selection import Evidence
from sparse_bench.report.site.build import build_site


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the pages and say where they are; 1 if a description, a claim and the results do not fit together."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.report.site",
        description="Static pages from the committed tables alone; README.md and the ledger go beside the tables.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write the pages to")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="the project's README, to bring up to date")
    options = parser.parse_args(arguments)
    try:
        known = experiments()
        papers = read_papers(known)
        evidence = Evidence.committed(options.results, papers)
        if not evidence.tables:
            raise NoResultsError(f"No committed results in '{options.results}': no paper's folder there has a table.")
        options.out.mkdir(parents=True, exist_ok=True)  # before a minute's work
        entries = evaluate(read_documents(FOLDER, list(papers), known), evidence)
        paths = build_site(evidence, papers, entries, options.out, options.readme)
        write_ledger(entries, {name: paper.short for name, paper in papers.items()}, options.results)
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} files; the first page: {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
