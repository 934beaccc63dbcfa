"""Command line: ``python -m sparse_bench.report.claims [--results DIR] [--runs DIR ...]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.errors import SparseBenchError
from sparse_bench.report.catalog import experiments
from sparse_bench.report.claims.ledger import summary_table, verdict_text, write_ledger
from sparse_bench.report.claims.schema import FOLDER, read_documents
from sparse_bench.report.claims.verdicts import VERDICTS, evaluate
from sparse_bench.report.collect import collected
from sparse_bench.report.load import NoResultsError
from sparse_bench.report.papers import read_papers
from sparse_bench.report.selection import Evidence


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every claim, print the verdicts and write the ledger; 1 if the claims do not fit the results."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.report.claims",
        description="Which claims of the five documents hold, from committed tables (and from run folders, if named). "
        "Writes claims.md and claims.csv.",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[], metavar="DIR", help="run folders to add to them, without writing"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the ledger goes (default: the results)")
    options = parser.parse_args(arguments)
    out = options.out or options.results
    try:
        known = experiments()
        papers = read_papers(known)
        documents = read_documents(FOLDER, list(papers), known)
        evidence = Evidence.committed(options.results, papers)
        if options.runs:
            evidence = collected(evidence, list(papers.values()), options.runs).evidence
        elif not evidence.tables:
            raise NoResultsError(f"No committed results in '{options.results}': no paper's folder there has a table.")
        out.mkdir(parents=True, exist_ok=True)  # before the work, but not for a misspelt folder of results
        entries = evaluate(documents, evidence)
        titles = {name: paper.short for name, paper in papers.items()}
        write_ledger(entries, titles, out)
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    width = max(len(entry.claim.id) for entry in entries)
    for entry in entries:
        print(f"{entry.claim.id:<{width}}  {verdict_text(entry)}")
    *_, total = summary_table(entries, titles).rows
    print("\n" + ", ".join(f"{count} {name}" for name, count in zip(VERDICTS, total[1:], strict=False)))
    print(f"Written: {out / 'claims.md'}, {out / 'claims.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
