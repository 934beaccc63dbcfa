"""Command line: ``python -m sparse_bench.site OUT`` writes a report of one's own runs, or the papers' pages."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.benchmark.content import compared
from sparse_bench.commands import add_runs, exit_status
from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.display import interval, whole
from sparse_bench.evidence.ledger import write_ledger
from sparse_bench.evidence.store import load
from sparse_bench.evidence.verdicts import evaluate
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import read_papers
from sparse_bench.record import FAILED
from sparse_bench.site.pages import build_site
from sparse_bench.site.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages and print where they are.

    Returns:
        1 if there is nothing to show, or if descriptions and results do not fit together; else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.site",
        description="Write tables, figures and pages, by default of the runs below --runs. Nothing is trained.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    add_runs(parser)
    parser.add_argument("--experiment", metavar="NAME", help="report this experiment, or all below it (rasa: rasa/…)")
    which = "metrics to report (default: all of the test split)"
    parser.add_argument("--metric", nargs="+", metavar="M", default=[], help=which)
    versus = "compare the benchmark's runs of --runs with the committed ones in this folder (results/benchmark)"
    parser.add_argument("--compare", type=Path, metavar="DIR", help=versus)
    parser.add_argument("--title", help="title of the page (default: the experiment's name)")
    papers = "write the papers' pages from these committed tables, and README.md and the ledger into the same folder"
    parser.add_argument("--results", type=Path, metavar="DIR", help=papers)
    parser.add_argument("--readme", type=Path, metavar="FILE", help="the project's README, whose results are updated")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _papers(options) if options.results is not None else _own(options))


def _papers(options: argparse.Namespace) -> int:
    papers = read_papers(experiments())
    evidence = Evidence.committed(options.results, papers)
    evidence.require()
    options.out.mkdir(parents=True, exist_ok=True)  # fail before the minute that the pages take
    entries = evaluate(read_claims(experiments()), evidence)
    paths = build_site(evidence, papers, entries, options.out, options.readme)
    write_ledger(entries, {name: paper.short for name, paper in papers.items()}, options.results)
    print(f"Written: {len(paths)} files. Start at {options.out / 'index.html'}")
    return 0


def _own(options: argparse.Namespace) -> int:
    table, problems = load(options.runs, options.experiment)
    extra = compared(table, options.compare) if options.compare is not None else None
    report = write_report(table, options.out, problems, options.metric, options.title, extra)
    for study in report.studies:
        print(" · ".join(study.names))
        for curve in study.curves:
            for arm in curve.arms:
                measured = {metric: arm.interval(f"metric:{metric}") for metric in report.metrics}
                cells = [f"{metric} {interval(value)}" for metric, value in measured.items() if value is not None]
                weights = whole(arm.mean("count:sparse_layers"))
                print(f"  {curve.title}, {weights} weights in sparse layers: {'; '.join(cells) or 'no metric'}")
    failed = table.runs[table.runs["status"] == FAILED]
    for name, message in zip(failed["id"], failed["error"], strict=True):
        print(f"failed: {name}: {message}")
    for problem in problems:
        print(f"warning: {problem.folder}: {problem.reason}")
    print(f"\nWritten, {len(report.paths)} files:")
    for path in report.paths:
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
