"""Collects runs from their folders into the committed tables of each paper.

A run whose folder is gone stays in the tables: sweeps take weeks and several machines, and folders are not committed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sparse_bench.config.catalog import check_experiment, experiments
from sparse_bench.evidence import single_runs, store
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.settings import alterations
from sparse_bench.evidence.store import ALTERED, RunKey, RunTable, curves_kept, key_of, load, merge
from sparse_bench.papers.page import Paper

_METRIC, _SECONDS = "metric:", "seconds:total"
#: Suffix of the columns of the tables, next to those of repeated runs.
_BEFORE = " before"
#: Tables hold ten digits. Values with at most this relative difference count as equal.
_SAME = 1e-9
#: Start of the mark on a second stage whose first stage was altered.
_STARTED = "started from a run with "


def joined(evidence: Evidence, papers: Sequence[Paper], folders: Sequence[Path]) -> tuple[Evidence, list[str]]:
    """Join the committed runs with those in ``folders``, in memory.

    Returns:
        The joined tables, and one warning for each run that is incomplete or unreadable.

    Raises:
        StoreError: the folders hold no run.
    """
    found, problems = load(folders)
    tables = dict(evidence.tables)
    for paper in papers:
        fresh, table = _merged(tables.get(paper.name), found, paper, problems)
        if len(fresh):
            tables[paper.name] = table
    return Evidence(evidence.root, tables), _warnings(problems)


def collect(results: Path, papers: Sequence[Paper], folders: Sequence[Path], forget: Sequence[str] = ()) -> list[str]:
    """Update the committed tables with the runs in ``folders``.

    Args:
        results: the folder of results.
        papers: the papers whose tables are updated.
        folders: searched for runs, at any depth.
        forget: experiments whose committed runs are dropped first, for instance because their code has changed.

    Returns:
        Lines for the console: one for each updated table, then the warnings.

    Raises:
        StoreError: the folders hold no run, or a table cannot be read or written.
        UnknownExperimentError: ``forget`` names an unknown experiment.
    """
    for name in forget:
        check_experiment(name, experiments())
    found, problems = load(folders, curves=sorted({pattern for paper in papers for pattern in paper.curves}))
    lines = []
    for paper in papers:
        folder = results / paper.name
        if not set(found.runs["experiment"]) & set(paper.experiments) and not set(forget) & set(paper.experiments):
            continue
        with store.locked(results):  # two processes that collect at once would overwrite each other's rows
            old = store.read(folder) if (folder / store.RUNS).is_file() else None
            kept = old.only(set(old.runs["experiment"]) - set(forget)) if old is not None else None
            fresh, table = _merged(kept, found, paper, problems)
            again = repetition(kept, fresh) if kept is not None else ""
            store.write(table, folder)
            evidence = Evidence(results, {paper.name: table})
            portraits = single_runs.take(paper.single_runs, evidence, found.folders, single_runs.read(folder), problems)
            single_runs.write(portraits, folder)
        lines.append(f"{folder}: {_collected(fresh, table)}{again}")
    return lines + _warnings(problems)


def _warnings(problems: Sequence[Problem]) -> list[str]:
    return [f"warning: {problem.folder}: {problem.reason}" for problem in problems]


def _merged(old: RunTable | None, found: RunTable, paper: Paper, problems: list[Problem]) -> tuple[RunTable, RunTable]:
    """The runs of ``paper`` that were found, and its updated table. Runs that differ from shipped ones are marked.

    A run that has lost the learning curve that ``old`` holds is skipped, and added to ``problems``.
    """
    part = found.only(paper.experiments)
    fresh = curves_kept(part, paper.curves)
    if old is not None:
        gone = _vanished(fresh, old, problems)
        fresh = fresh.where([key_of(row) not in gone for row in fresh.rows()])
    table = marked(merge(old, fresh) if old is not None else fresh, fresh.first_stages)
    marks = {key_of(row): row[ALTERED] for row in table.rows()}
    return _with_marks(fresh, [marks[key_of(row)] for row in fresh.rows()]), table


def marked(table: RunTable, second_stages: Mapping[RunKey, RunKey] | None = None) -> RunTable:
    """The table with each run's differences from the runs that the present configuration tree ships.

    A second stage inherits the mark of its first stage. Without its folder, it keeps the mark that it has.
    """
    rows = {key_of(row): row for row in table.rows()}
    own = {key: alterations(row["experiment"], table.config(row)) for key, row in rows.items()}

    def mark(key: RunKey) -> str | None:
        first = (second_stages or {}).get(key)
        if own[key] is not None:
            return own[key]
        if first is None:
            before = str(rows[key].get(ALTERED))
            return before if before.startswith(_STARTED) else None
        if first not in rows:
            return f"{_STARTED}unknown settings: {'/'.join(first)} is not at hand"
        return None if (found := mark(first)) is None else f"{_STARTED}{found.removeprefix(_STARTED)}"

    return _with_marks(table, [mark(key) for key in rows])


def _with_marks(table: RunTable, marks: Sequence[str | None]) -> RunTable:
    column = pd.Series(list[Any](marks), dtype="str", index=table.runs.index)
    return replace(table, runs=table.runs.assign(**{ALTERED: column}))


def _vanished(fresh: RunTable, old: RunTable, problems: list[Problem]) -> set[RunKey]:
    """Runs without a learning curve whose curve is in the tables. Collecting them would erase it."""
    finished = set(zip(fresh.finished["experiment"], fresh.finished["id"], strict=True))
    gone = (finished & old.with_curves) - fresh.with_curves
    reason = "The folder has lost the learning curve that the tables hold. The run is skipped."
    problems += [Problem(f"{experiment}/{run}", reason) for experiment, run in sorted(gone)]
    return gone


def _collected(fresh: RunTable, table: RunTable) -> str:
    text = f"{len(fresh)} runs read, {len(table.finished)} finished runs in the tables"
    altered = int(fresh.runs[ALTERED].notna().sum()) if ALTERED in fresh.runs else 0
    if altered:
        text += f"; {altered} of those read have settings of their own, so claims use only their weight counts"
    return text


def repetition(old: RunTable, new: RunTable) -> str:
    """Compare repeated runs with the tables: the end of a console line, empty without repeated runs.

    A run with the same time to the last digit is the same run, read again. Metrics that only one side has are skipped:
    another version of the code measured them.
    """
    both = new.finished.merge(old.finished, on=["experiment", "id"], suffixes=("", _BEFORE))
    names = [str(name) for name in both if f"{name}{_BEFORE}" in both]
    apart = {
        name: _apart(both[name], both[f"{name}{_BEFORE}"]) for name in names if name.startswith((_METRIC, _SECONDS))
    }
    again = apart.pop(_SECONDS, np.zeros(len(both))) > _SAME
    if not again.any():
        return ""
    differences = pd.DataFrame(apart, index=both.index)[again]
    worst = differences.max(axis="columns").fillna(0.0).to_numpy(dtype=float)
    same = int((worst <= _SAME).sum())
    if same == len(worst):
        return f"; {same} of them repeated, with the same metrics"
    place = int(worst.argmax())
    run = key_of(both[again].iloc[place].to_dict())
    metric = str(differences.iloc[place].idxmax()).removeprefix(_METRIC)
    return (
        f"; {len(worst)} of them repeated, {same} with the same metrics; the others differ by up to "
        f"{worst[place]:.2g} of a value ({'/'.join(run)}, {metric})"
    )


def _apart(one: pd.Series, other: pd.Series) -> np.ndarray:
    """Relative differences of values, as shares of the larger ones; 0 where either is missing."""
    first, second = (values.to_numpy(dtype=float, na_value=math.nan) for values in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(first - second) / np.maximum(np.abs(first), np.abs(second))
    found = np.nan_to_num(found, nan=math.inf, posinf=math.inf)
    return np.where(np.isnan(first) | np.isnan(second) | (first == second), 0.0, found)
