"""Command line: ``python -m sparse_bench.report.collect [--results DIR] [--runs DIR ...]``.

Takes what run folders hold into the committed tables of each paper. Runs that are in the tables and not in the folders
stay: a sweep is run over weeks and on several machines, and its folders are not committed.
"""

import argparse
import os
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sparse_bench.errors import SparseBenchError
from sparse_bench.record import FINISHED
from sparse_bench.report.catalog import check_experiment, experiments
from sparse_bench.report.learning_curves import Histories, read_histories
from sparse_bench.report.load import Problem, Results, load
from sparse_bench.report.papers import Paper, read_papers
from sparse_bench.report.portraits import Portrait, take
from sparse_bench.report.portraits import read as read_portraits
from sparse_bench.report.portraits import write as write_portraits
from sparse_bench.report.repetition import Repetition, repetition
from sparse_bench.report.selection import Evidence
from sparse_bench.report.shipped import ALTERED, alterations
from sparse_bench.report.tidy import Tables, merge, tables_of, write


@dataclass(frozen=True)
class Collected:
    """Tables after run folders were taken in.

    Attributes:
        evidence: old and new runs together.
        new: number of runs read from folders, by paper.
        altered: how many of them no shipped experiment starts, by paper: they are shown, and no claim takes more of
            them than weights.
        again: how those compare that had been in the tables and were made again, by paper.
        portraits: what is kept of single runs, by paper.
        problems: folders that could not be read, or not whole, of which nothing is taken in; and warnings of runs.
    """

    evidence: Evidence
    new: dict[str, int]
    altered: dict[str, int]
    again: dict[str, Repetition]
    portraits: dict[str, list[Portrait]]
    problems: Sequence[Problem]


def collected(evidence: Evidence, papers: Sequence[Paper], folders: Sequence[Path]) -> Collected:
    """Join the runs in ``folders`` to what is committed, in memory.

    Raises:
        NoResultsError: the folders hold no run at all.
    """
    results = load(folders)
    tables, new, again, altered = dict(evidence.tables), {}, {}, {}
    problems = list(results.problems)
    for paper in papers:
        found = _of(results, paper.experiments)
        if not len(found.runs):
            continue
        histories, unreadable = read_histories(found)
        old = tables.get(paper.name)
        if old is not None:
            unreadable += _vanished(histories, old)
        problems += unreadable
        left_out = {problem.folder for problem in unreadable}
        found, results = _without_runs(found, left_out), _without_runs(results, left_out)
        if not len(found.runs):
            continue
        fresh = _marked(tables_of(found, histories, paper.curves), found)
        if old is not None and (compared := repetition(old, fresh)) is not None:
            again[paper.name] = compared
        tables[paper.name] = merge(old, fresh) if old is not None else fresh
        new[paper.name] = len(fresh.runs)
        altered[paper.name] = int(fresh.runs[ALTERED].notna().sum())
    joined = Evidence(evidence.root, tables)
    portraits = {
        paper.name: take(paper, joined, results, read_portraits(evidence.root / paper.name))
        for paper in papers
        if paper.name in tables
    }
    return Collected(joined, new, altered, again, portraits, problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Update the committed tables and say what they hold; 1 if there is nothing to take in."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.report.collect",
        description="Take the runs that are on disk into the committed tables of each paper. Nothing is trained.",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the committed tables")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        metavar="DIR",
        default=[Path(os.environ.get("SPARSE_BENCH_RUNS", "runs"))],
        help="folders to search for runs, at any depth (default: $SPARSE_BENCH_RUNS, else runs)",
    )
    parser.add_argument(
        "--fresh",
        nargs="+",
        default=[],
        metavar="EXPERIMENT",
        help="forget the committed runs of these experiments first (their code has changed, say)",
    )
    options = parser.parse_args(arguments)
    try:
        papers = read_papers(experiments())
        for name in options.fresh:
            check_experiment(name, experiments())
        committed = Evidence.committed(options.results, papers)
        kept = {name: _without(tables, options.fresh) for name, tables in committed.tables.items()}
        forgotten = {name for name, tables in kept.items() if len(tables.runs) < len(committed.tables[name].runs)}
        found = collected(Evidence(committed.root, kept), list(papers.values()), options.runs)
        _update(options.results, [name for name in papers if name in found.new or name in forgotten], found)
    except (SparseBenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in found.problems:
        print(f"warning: {problem.folder}: {problem.reason}")
    if not found.new and not forgotten:
        print("No run belongs to an experiment of the papers; the tables are as they were.")
    return 0


def _update(results: Path, names: Sequence[str], found: Collected) -> None:
    """Write the tables of these papers, and say what each holds."""
    for name in names:
        tables = found.evidence.tables[name]
        write(tables, results / name)
        write_portraits(found.portraits[name], results / name)
        finished = int((tables.runs["status"] == FINISHED).sum())
        told = f"{found.new.get(name, 0)} runs read, {finished} finished runs in the tables"
        if altered := found.altered.get(name):
            told += f"; {altered} of those read with settings of their own: no claim takes more of them than weights"
        print(f"{results / name}: {told}" + (f"; {found.again[name]}" if name in found.again else ""))


def _marked(tables: Tables, results: Results) -> Tables:
    """With a column that tells altered runs, and second stages of such, from those as shipped."""
    altered = {(r.experiment, r.id): alterations(r.experiment, r.config) for r in results.records}
    for record in results.records:
        experiment, _, first = str(record.notes.get("start_from", "")).rpartition("/")
        if altered[record.experiment, record.id] is None and altered.get((experiment, first)) is not None:
            altered[record.experiment, record.id] = f"started from a run with {altered[experiment, first]}"
    keys = zip(tables.runs["experiment"], tables.runs["id"], strict=True)
    column = pd.Series([altered[key] for key in keys], dtype="object")
    return Tables(tables.runs.assign(**{ALTERED: column}), tables.settings, tables.curves)


def _of(results: Results, names: Sequence[str]) -> Results:
    keep = results.runs["experiment"].isin(list(names)).to_numpy()
    records = [record for record, kept in zip(results.records, keep, strict=True) if kept]
    return Results(results.runs[keep].reset_index(drop=True), records, results.problems)


def _vanished(histories: Histories, old: Tables) -> list[Problem]:
    """Runs without a learning curve that the tables have one of: taking them in would erase it."""
    reason = "Its learning curve is gone, and the tables have it."
    gone = [key for key, frame in histories.items() if frame.empty and key in old.histories]
    return [Problem(f"{experiment}/{run}", reason) for experiment, run in gone]


def _without_runs(results: Results, names: Set[str]) -> Results:
    """Without the runs of these names (experiment/id)."""
    keep = [f"{record.experiment}/{record.id}" not in names for record in results.records]
    records = [record for record, kept in zip(results.records, keep, strict=True) if kept]
    return Results(results.runs[keep].reset_index(drop=True), records, results.problems)


def _without(tables: Tables, names: Sequence[str]) -> Tables:
    kept = sorted(set(tables.runs["experiment"]) - set(names))
    return tables.only(kept)


if __name__ == "__main__":
    sys.exit(main())
