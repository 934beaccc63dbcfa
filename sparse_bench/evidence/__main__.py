"""Command line: ``python -m sparse_bench.evidence collect`` and ``… claims``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.commands import add_runs, exit_status
from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.collect import collect, joined
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.ledger import summary_table, verdict_text, write_ledger
from sparse_bench.evidence.verdicts import VERDICTS, evaluate
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import read_papers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 1 if there are no runs to collect, or if the claims do not fit the results."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sparse_bench.evidence", description=__doc__)
    commands = parser.add_subparsers(required=True)

    one = commands.add_parser("collect", help="add the runs on disk to the committed tables; nothing is trained")
    one.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    add_runs(one)
    forget = "first drop the committed runs of these experiments, for instance because their code has changed"
    one.add_argument("--fresh", nargs="+", default=[], metavar="EXPERIMENT", help=forget)
    one.set_defaults(command=_collect)

    two = commands.add_parser("claims", help="judge the claims from the committed tables; writes claims.md and .csv")
    two.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    more = "run folders to judge too; the tables stay as they are"
    two.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=more)
    two.add_argument("--out", type=Path, metavar="DIR", help="folder for the ledger (default: the folder of --results)")
    two.set_defaults(command=_claims)
    return parser


def _collect(options: argparse.Namespace) -> int:
    papers = read_papers(experiments())
    lines = collect(options.results, list(papers.values()), options.runs, options.fresh)
    print("\n".join(lines) or "No run belongs to an experiment of the papers. The tables are unchanged.")
    return 0


def _claims(options: argparse.Namespace) -> int:
    papers = read_papers(experiments())
    documents = read_claims(experiments())
    evidence = Evidence.committed(options.results, papers)
    if options.runs:
        evidence, warnings = joined(evidence, list(papers.values()), options.runs)
        print("".join(f"{line}\n" for line in warnings), end="", file=sys.stderr)
    else:
        evidence.require()
    out = options.out or options.results
    out.mkdir(parents=True, exist_ok=True)  # fail before the work; a misspelt folder of results was refused above
    entries = evaluate(documents, evidence)
    titles = {name: paper.short for name, paper in papers.items()}
    write_ledger(entries, titles, out)
    width = max(len(entry.claim.id) for entry in entries)
    for entry in entries:
        print(f"{entry.claim.id:<{width}}  {verdict_text(entry)}")
    *_, total = summary_table(entries, titles).rows
    print("\n" + ", ".join(f"{count} {name}" for name, count in zip(VERDICTS, total[1:], strict=False)))
    print(f"Written: {out / 'claims.md'}, {out / 'claims.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
