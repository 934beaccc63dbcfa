"""Command line: ``python -m sparse_bench.report OUT [--runs DIR ...] [--experiment NAME] [--metric M ...]``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparse_bench.errors import SparseBenchError
from sparse_bench.record import FAILED
from sparse_bench.report.arms import SPARSE_WEIGHTS, density_range
from sparse_bench.report.build import build
from sparse_bench.report.load import load
from sparse_bench.report.tables import MISSING, interval, whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a report and print what was written; 1 if there is nothing to report or a metric is unknown."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.report",
        description="Tables, figures and one page from the result files of finished runs. Nothing is trained.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        metavar="DIR",
        default=[Path(os.environ.get("SPARSE_BENCH_RUNS", "runs"))],
        help="folders to search for runs, at any depth (default: $SPARSE_BENCH_RUNS, else runs)",
    )
    parser.add_argument("--experiment", metavar="NAME", help="only this experiment, or all below it (rasa: rasa/…)")
    parser.add_argument(
        "--metric", nargs="+", metavar="M", default=[], help="metrics to report (default: all of the test split)"
    )
    parser.add_argument("--title", help="title of the page (default: the experiment's name)")
    options = parser.parse_args(arguments)
    try:
        results = load(options.runs, options.experiment)
        options.out.mkdir(parents=True, exist_ok=True)  # before the work
        report = build(results, options.out, options.metric, options.title)
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    for study in report.studies:
        print(" · ".join([study.experiment, *map(str, study.labels.values())]))
        for curve in study.curves:
            for arm in curve.arms:
                measured = {metric: arm.interval(f"metric:{metric}") for metric in report.metrics}
                cells = [f"{metric} {interval(value)}" for metric, value in measured.items() if value is not None]
                weights = f"{whole(arm.mean(SPARSE_WEIGHTS))} weights in sparse layers"
                realised = f"realised density {density_range([study.realised(arm)]) or MISSING}"
                print(f"  {curve.label}, {realised}, {weights}: {'; '.join(cells) or 'no metric'}")
    failed = results.runs[results.runs["status"] == FAILED]
    for name, message in zip(failed["id"], failed["error"], strict=True):
        print(f"failed: {name}: {message}")
    for problem in report.problems:
        print(f"warning: {problem.folder}: {problem.reason}")
    print(f"\nWritten, {len(report.paths)} files:")
    for path in report.paths:
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
