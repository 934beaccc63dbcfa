"""The table of runs, in memory and as committed files.

Run folders are not committed. Everything that is published is made from these three files:

    runs.csv      a row a run: labels, the settings that differ between runs, counts, metrics, seconds, code, machine
    settings.csv  the settings on which all runs agree; with the row of a run, its whole configuration
    curves.csv    a row a value: experiment, id, seed, epoch, metric, value
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from sparse_bench.errors import unknown_choice
from sparse_bench.evidence.csv_tables import (
    StoreError,
    csv_text,
    is_finite,
    is_missing,
    parse,
    plain,
    read_text,
    sort_key,
)
from sparse_bench.evidence.folders import PLAIN, Problem, read_curves, read_runs, row_of
from sparse_bench.evidence.settings import completed, defining, shared_and_varying
from sparse_bench.record import FINISHED, Result, write_together

RUNS, SETTINGS, CURVES = "runs.csv", "settings.csv", "curves.csv"
FILES = (RUNS, SETTINGS, CURVES)
CURVE_COLUMNS = ("experiment", "id", "seed", "epoch", "metric", "value")
#: Column that lists a run's differences from shipped runs, as text; empty for a run as shipped.
ALTERED = "altered"
#: Column with a run's warnings, as text; the table has it only if a run has a warning.
WARNINGS = "warnings"
#: Longer curves are thinned to this many evenly spaced epochs and the last ones, over which claims take means.
_SPACED, _LAST = 50, 10
_COLUMN_ORDER = (
    *("experiment", "id", "status", "label:", "seed", "setting:", "count:", "metric:", "macs:", "seconds:"),
    *(*PLAIN, "made:"),
)
#: Experiment and id, which identify a run.
RunKey = tuple[str, str]


@dataclass(frozen=True)
class RunTable:
    """Runs with their settings and learning curves.

    Attributes:
        runs: a row a run, stably sorted. Columns: ``experiment``, ``id``, ``status``, ``label:*``, ``seed``,
            ``setting:*`` (those that differ between the runs), ``count:*``, ``metric:*``, ``macs:*``, ``seconds:*``,
            ``tokens_per_second``, ``examples_per_second``, ``peak_memory_bytes``, ``epochs``, ``steps``, ``made:*``
            (code, machine, data), ``error``, and, where any run has one, ``altered`` and ``warnings``.
        settings: settings on which all runs agree, by dotted path.
        curves: a row a value, with columns :data:`CURVE_COLUMNS`.
        folders: folders of the runs that were read from disk.
        first_stages: second stage → the run whose weights it started from, of those read from disk.
    """

    runs: pd.DataFrame
    settings: Mapping[str, Any]
    curves: pd.DataFrame
    folders: Mapping[RunKey, Path] = field(default_factory=dict)
    first_stages: Mapping[RunKey, RunKey] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, sorted."""
        return [column.removeprefix("metric:") for column in self.runs.columns if column.startswith("metric:")]

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of the finished runs."""
        return self.runs[self.runs["status"] == FINISHED]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of :attr:`runs` by column; empty cells are None."""
        found = self.runs.to_dict("records")
        return [{str(c): None if is_missing(value) else value for c, value in row.items()} for row in found]

    def config(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The defining settings of one of :meth:`rows`, by dotted path; None is the code's default."""
        own = {c.removeprefix("setting:"): value for c, value in row.items() if c.startswith("setting:")}
        return {**self.settings, **own}

    @property
    def with_curves(self) -> set[RunKey]:
        """The runs that have a learning curve."""
        return set(_keys(self.curves))

    @cached_property  # every figure of learning curves uses it
    def histories(self) -> Mapping[RunKey, pd.DataFrame]:
        """Learning curves by run: index ``epoch``, a column a metric."""
        run: list[Hashable] = ["experiment", "id"]
        wide = self.curves.pivot(index=[*run, "epoch"], columns="metric", values="value")  # run by run takes minutes
        found = {}
        for (experiment, name), rows in wide.groupby(level=run, sort=False):
            found[str(experiment), str(name)] = rows.droplevel(run).dropna(axis="columns", how="all")
        return found

    def where(self, keep: Sequence[bool] | np.ndarray | pd.Series) -> "RunTable":
        """The table with some of its runs [runs], and their curves."""
        runs = self.runs[np.asarray(keep, dtype=bool)].reset_index(drop=True)
        own = self.curves["experiment"].isin(set(runs["experiment"])) & self.curves["id"].isin(set(runs["id"]))
        return replace(self, runs=runs, curves=self.curves[own].reset_index(drop=True))

    def only(self, experiments: Iterable[str]) -> "RunTable":
        """The runs and curves of these experiments."""
        return self.where(self.runs["experiment"].isin(list(experiments)))

    def texts(self) -> dict[str, str]:
        """The text of each file by name. The same runs give the same bytes."""
        rows = [(path, json.dumps(value)) for path, value in sorted(self.settings.items())]
        return {
            RUNS: csv_text(self.runs),
            SETTINGS: csv_text(pd.DataFrame(rows, columns=["setting", "value"])),
            CURVES: _curves_text(self.curves),
        }


def load(
    folders: Iterable[Path], experiment: str | None = None, curves: Sequence[str] = ("*",)
) -> tuple[RunTable, list[Problem]]:
    """Read every run below ``folders``. Return the table, and the problems found while reading.

    Args:
        folders: directories to search, at any depth.
        experiment: keep only this experiment or those below it (``rasa`` keeps ``rasa/diet`` and ``rasa/ted``).
        curves: patterns of the metrics whose learning curves are kept (``test/*``).

    Raises:
        StoreError: there are no runs; the message names the folders and the command to run.
    """
    folders, problems = list(folders), list[Problem]()
    found = list(read_runs(folders, problems))
    searched = ", ".join(f"'{folder}'" for folder in folders) or "(no folder)"
    if not found:
        unread = f" ({len(problems)} folders hold no readable result: {problems[0].reason})" if problems else ""
        raise StoreError(
            f"No results found in {searched}{unread}. Run an experiment first, for instance "
            "'python -m sparse_bench experiment=NAME', or name the folder that holds its runs with --runs DIR."
        )
    if experiment is not None:
        below = f"{experiment.rstrip('/')}/"
        kept = [(folder, record) for folder, record in found if f"{record.experiment}/".startswith(below)]
        if not kept:
            known = {record.experiment for _, record in found}
            raise StoreError(f"No results in {searched}: {unknown_choice('experiment', experiment, known)}")
        found, problems = kept, [problem for problem in problems if f"/{below}" in f"/{problem.folder}/"]
    return _of_records(found, problems, curves), problems


def _of_records(found: Sequence[tuple[Path, Result]], problems: list[Problem], patterns: Sequence[str]) -> RunTable:
    wanted = cache(lambda metric: any(fnmatchcase(metric, pattern) for pattern in patterns))
    rows, configs, curves, folders, stages = [], [], [], {}, {}
    for folder, record in found:
        name = f"{record.experiment}/{record.id}"
        problems += [Problem(name, warning) for warning in record.warnings]
        broken = [metric for metric, value in record.metrics.items() if not is_finite(value)]
        if broken and record.status == FINISHED:
            problems.append(Problem(name, f"Excluded from the means, as not finite: {', '.join(broken)}."))
        try:
            history = read_curves(folder, wanted) if record.status == FINISHED else {}
        except ValueError as error:
            problems.append(Problem(name, f"The learning curve cannot be read and is skipped: {error}"))
            history = {}
        rows.append(row_of(record))
        configs.append(defining(record.config))
        folders[record.experiment, record.id] = folder
        experiment, _, first = record.notes.get("start_from", "").rpartition("/")
        if experiment:
            stages[record.experiment, record.id] = (experiment, first)
        for metric in sorted(history):
            values = sorted(history[metric].items())
            run = (record.experiment, record.id, record.seed)
            curves += [(*run, epoch, metric, value) for epoch, value in values if not is_missing(value)]
    table = assembled(rows, completed(configs), pd.DataFrame(curves, columns=list(CURVE_COLUMNS)))
    return replace(table, folders=folders, first_stages=stages)


def _kept_epochs(epochs: Sequence[int]) -> set[int]:
    """At most 60 epochs of a learning curve: 50 evenly spaced ones from the first on, and the last ten."""
    if len(epochs) <= _SPACED + _LAST:
        return set(epochs)
    spaced = np.linspace(0, len(epochs) - _LAST - 1, _SPACED).round().astype(int)
    return {epochs[place] for place in (*spaced, *range(len(epochs) - _LAST, len(epochs)))}


def assembled(
    rows: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]], curves: pd.DataFrame
) -> RunTable:
    """Build the table from cells of runs, their flat defining settings, and their learning curves.

    Args:
        rows: cells by column, one mapping a run.
        configs: defining settings by dotted path, in the order of ``rows``.
        curves: columns :data:`CURVE_COLUMNS`.
    """
    shared, varying = shared_and_varying(configs)
    complete = [
        {**row, **{f"setting:{path}": plain(config.get(path)) for path in varying}}
        for row, config in zip(rows, configs, strict=True)
    ]
    columns = _ordered_columns(complete)
    if all(is_missing(row.get(WARNINGS)) for row in complete):
        columns = [column for column in columns if column != WARNINGS]
    keys = [c for c in columns if c == "experiment" or c.startswith(("label:", "setting:"))] + ["seed", "id"]
    complete.sort(key=lambda row: [sort_key(row.get(column)) for column in keys])
    frame = pd.DataFrame({column: pd.Series([row.get(column) for row in complete], dtype=object) for column in columns})
    runs = parse(csv_text(frame))  # through text, so that a fresh table equals one that was read from its file
    order = {(e, i): place for place, (e, i) in enumerate(zip(runs["experiment"], runs["id"], strict=True))}
    places = [order[key] for key in _keys(curves)]
    ordered = curves.iloc[np.argsort(places, kind="stable")]
    return RunTable(runs, shared, _rounded(ordered))


def _ordered_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns by kind; labels keep the order of the results, all other kinds are sorted by name."""
    seen = list(dict.fromkeys(column for row in rows for column in row))

    def key(column: str) -> tuple[int, str]:
        for rank, start in enumerate(_COLUMN_ORDER):
            if column == start or (start.endswith(":") and column.startswith(start)):
                return rank, "" if start == "label:" else column
        return len(_COLUMN_ORDER), ""

    return sorted(seen, key=key)


def key_of(row: Mapping[Any, Any]) -> RunKey:
    """The run of one of a table's rows."""
    return str(row["experiment"]), str(row["id"])


def merge(old: RunTable, new: RunTable) -> RunTable:
    """Merge two tables. Of a run in both, the new row is kept, unless it failed and the old one did not."""
    kept: dict[RunKey, tuple[dict[str, Any], dict[str, Any], int]] = {}
    for number, table in enumerate((old, new)):
        for row in table.rows():
            key = key_of(row)
            if key in kept and kept[key][0]["status"] == FINISHED != row["status"]:
                continue
            cells = {column: value for column, value in row.items() if not column.startswith("setting:")}
            kept[key] = (cells, table.config(row), number)
    if not kept:
        return old.only(())
    parts = []
    for number, table in enumerate((old, new)):
        taken = [key in kept and kept[key][2] == number for key in _keys(table.curves)]
        parts.append(table.curves[np.array(taken, dtype=bool)])
    curves = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    rows, configs = [cells for cells, *_ in kept.values()], completed([config for _, config, _ in kept.values()])
    return assembled(rows, configs, curves)


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Lock all tables below a folder while they are read, merged and written. Other processes wait."""
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results / ".lock"):
        for left_over in results.glob("*/*.tmp"):  # of a process that was killed
            left_over.unlink()
        yield


def write(table: RunTable, folder: Path) -> None:
    """Write the three files into ``folder``, all or none. For an empty table the files are removed.

    Raises:
        StoreError: the files, read back, would differ from the table.
    """
    if not len(table):
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        return
    texts = table.texts()
    again = _parsed(texts, folder)
    if again.texts() != texts:
        raise StoreError(f"The tables for '{folder}' cannot be written: read back, they would differ.")
    folder.mkdir(parents=True, exist_ok=True)
    write_together({folder / name: text.encode() for name, text in texts.items()})


def read(folder: Path) -> RunTable:
    """Read the files of :func:`write`. The files of settings and curves may be missing.

    Raises:
        StoreError: the table of runs is missing, or a file is incomplete or has too few columns.
    """
    if not (folder / RUNS).is_file():
        raise StoreError(f"No committed results in '{folder}': {RUNS} is missing.")
    return _parsed({name: read_text(folder / name) for name in FILES if (folder / name).is_file()}, folder)


def _parsed(texts: Mapping[str, str], folder: Path) -> RunTable:
    runs = parse(texts[RUNS], folder / RUNS)
    if lacking := {"experiment", "id", "status", "seed"} - set(runs.columns):
        raise StoreError(f"'{folder / RUNS}' is not a table of runs: it lacks {', '.join(sorted(lacking))}.")
    settings = parse(texts.get(SETTINGS, "setting,value\n"), folder / SETTINGS, {"value"})
    shared = {path: json.loads(value) for path, value in zip(settings["setting"], settings["value"], strict=True)}
    curves = parse(texts.get(CURVES, ",".join(CURVE_COLUMNS) + "\n"), folder / CURVES)
    values = np.array([float(value) for value in curves["value"]])  # also nan and inf
    return RunTable(runs, shared, curves.assign(value=values))


def _keys(frame: pd.DataFrame) -> Iterator[RunKey]:
    """The run of each row. An array of numpy's is walked through five times as fast as pandas' texts."""
    return zip(frame["experiment"].to_numpy(object), frame["id"].to_numpy(object), strict=True)


def _curves_text(curves: pd.DataFrame) -> str:
    return csv_text(curves.assign(value=[f"{value:.6g}" for value in curves["value"]]))


def _rounded(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves with the digits and types that they have after writing and reading, in a third of the time."""
    values = np.array([float(f"{value:.6g}") for value in curves["value"]])
    types = dict.fromkeys(("experiment", "id", "metric"), "str") | dict.fromkeys(("seed", "epoch"), "Int64")
    return curves.reset_index(drop=True).astype(types).assign(value=values)


def curves_kept(table: RunTable, patterns: Sequence[str]) -> RunTable:
    """The table with only the learning curves of matching metrics (``test/*``), thinned.

    All runs of an experiment keep the same epochs, because a mean over seeds needs each epoch from every run.
    """
    names = {name for name in table.curves["metric"].unique() if any(fnmatchcase(name, p) for p in patterns)}
    curves = table.curves[table.curves["metric"].isin(names)]
    keep = pd.Series(False, index=curves.index)
    for _, part in curves.groupby(["experiment", "metric"], sort=False):
        lengths = set(part.groupby("id")["epoch"].agg(tuple))  # nearly all runs have the same epochs
        epochs = set[int]().union(*map(_kept_epochs, lengths))
        keep[part.index] = part["epoch"].isin(epochs)
    return replace(table, curves=curves[keep.to_numpy(dtype=bool)].reset_index(drop=True))
