"""The tables that are committed: runs, the settings that they share, and learning curves.

A run's folder stays on the machine that made it; these three files are what remains of it, and everything that is
published (claims, figures, pages) is made from them alone.

    runs.csv      a row a run: labels, the settings that differ between runs, counts, metrics, seconds, code, machine
    settings.csv  the settings on which all runs agree; with a run's row, its whole configuration
    curves.csv    a row a value: experiment, id, seed, epoch, metric, value
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sparse_bench.record import FINISHED, write_together
from sparse_bench.report.learning_curves import Histories
from sparse_bench.report.load import (
    NoResultsError,
    Results,
    completed,
    defining_settings,
    flatten,
    plain,
    row_of,
    tabulate,
)
from sparse_bench.report.tables import csv_text, runs_csv

RUNS, SETTINGS, CURVES = "runs.csv", "settings.csv", "curves.csv"
CURVE_COLUMNS = ("experiment", "id", "seed", "epoch", "metric", "value")
#: A longer curve is thinned: this many epochs, evenly spaced, and the last ones (means over them are claimed) in full.
_SPACED, _LAST = 50, 10

#: Columns whose cells are text even where they look like numbers.
_TEXT = re.compile(
    r"experiment|id|status|error|warnings|altered|metric|made:(commit|python|torch|processor|vectors|device|data)"
)
_INTEGER = re.compile(r"-?\d+")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Tables:
    """Runs and what is known of them, as committed.

    Attributes:
        runs: as in :class:`sparse_bench.report.load.Results`, without ``folder``.
        settings: those on which all runs agree, by dotted path.
        curves: columns :data:`CURVE_COLUMNS`.
    """

    runs: pd.DataFrame
    settings: Mapping[str, Any]
    curves: pd.DataFrame

    def rows(self) -> list[dict[str, Any]]:
        """The rows of :attr:`runs`; gaps are None."""
        found = self.runs.to_dict("records")
        return [{str(c): None if _missing(value) else value for c, value in row.items()} for row in found]

    def config(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that define the run of one of :meth:`rows`, by dotted path."""
        own = {c.removeprefix("setting:"): value for c, value in row.items() if c.startswith("setting:")}
        return {**self.settings, **own}

    @cached_property  # each figure of learning curves asks for it
    def histories(self) -> Histories:
        """The learning curves by run: index epoch, a column a metric."""
        found = {}
        for key, rows in self.curves.groupby(["experiment", "id"], sort=False):
            experiment, run = key
            found[str(experiment), str(run)] = rows.pivot_table(index="epoch", columns="metric", values="value")
        return found

    def only(self, experiments: Sequence[str]) -> "Tables":
        """The part that belongs to these experiments."""
        runs = self.runs[self.runs["experiment"].isin(experiments)].reset_index(drop=True)
        curves = self.curves[self.curves["experiment"].isin(experiments)].reset_index(drop=True)
        return Tables(runs, self.settings, curves)


def tables_of(results: Results, histories: Histories, curves: Sequence[str]) -> Tables:
    """Tables of runs that were read from their folders.

    Args:
        results: the runs.
        histories: their learning curves.
        curves: patterns (``test/*``) of the metrics whose curves are kept.
    """
    configs = completed([flatten(record.config) for record in results.records])
    runs, _ = tabulate([row_of(record) for record in results.records], configs)
    rows = []
    for experiment, run, seed in zip(runs["experiment"], runs["id"], runs["seed"], strict=True):
        frame = histories.get((experiment, run), pd.DataFrame())
        for metric in sorted(name for name in frame.columns if any(fnmatchcase(name, p) for p in curves)):
            series = thinned(frame[metric].dropna())
            values = zip(series.index.tolist(), series.tolist(), strict=True)
            rows += [(experiment, run, int(seed), epoch, metric, value) for epoch, value in values]
    return Tables(runs, _shared(configs), pd.DataFrame(rows, columns=list(CURVE_COLUMNS)))


def thinned(series: pd.Series) -> pd.Series:
    """At most 60 values of a learning curve: evenly spaced ones, the first included, and the last ten."""
    if len(series) <= _SPACED + _LAST:
        return series
    spaced = np.unique(np.linspace(0, len(series) - _LAST - 1, _SPACED).round().astype(int))
    return series.iloc[[*spaced, *range(len(series) - _LAST, len(series))]]


def write(tables: Tables, folder: Path) -> list[Path]:
    """Write the three files into ``folder``; the same tables give the same bytes. Tables without a run leave none."""
    if not len(tables.runs):
        for name in (RUNS, SETTINGS, CURVES):
            (folder / name).unlink(missing_ok=True)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    settings = pd.DataFrame(
        [(path, json.dumps(value)) for path, value in sorted(tables.settings.items())], columns=["setting", "value"]
    )
    curves = tables.curves.assign(value=[f"{value:.6g}" for value in tables.curves["value"]])
    texts = {RUNS: runs_csv(tables.runs), SETTINGS: csv_text(settings), CURVES: csv_text(curves)}
    write_together({folder / name: text.encode() for name, text in texts.items()})
    return [folder / name for name in texts]


def read(folder: Path) -> Tables:
    """Read what :func:`write` wrote; the settings and the curves may be missing.

    Raises:
        NoResultsError: there is no table of runs, or a file is no such table; the message names it.
    """
    if not (folder / RUNS).is_file():
        raise NoResultsError(f"No committed results in '{folder}': there is no {RUNS}.")
    rows = read_rows(folder / RUNS)
    lacking = {"experiment", "id", "status", "seed"} - (rows[0].keys() if rows else set())
    if lacking:
        raise NoResultsError(f"'{folder / RUNS}' is no table of runs: it lacks {', '.join(sorted(lacking))}.")
    shared = {}
    if (folder / SETTINGS).is_file():
        shared = {row["setting"]: json.loads(row["value"]) for row in _cells(folder / SETTINGS)}
    curves = read_rows(folder / CURVES) if (folder / CURVES).is_file() else []
    return _assembled(rows, shared, pd.DataFrame(curves, columns=list(CURVE_COLUMNS)))


def merge(old: Tables, new: Tables) -> Tables:
    """Both tables' runs; where both hold a run, the new row counts unless it failed and the old one did not."""
    kept: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], pd.DataFrame]] = {}
    for tables in (old, new):
        by_run = dict(iter(tables.curves.groupby(["experiment", "id"], sort=False)))
        for row in tables.rows():
            key = (str(row["experiment"]), str(row["id"]))
            if key in kept and kept[key][0]["status"] == FINISHED != row["status"]:
                continue
            cells = {c: v for c, v in row.items() if not c.startswith("setting:")}
            kept[key] = (cells, tables.config(row), by_run.get(key, pd.DataFrame(columns=list(CURVE_COLUMNS))))
    rows, configs = [cells for cells, _, _ in kept.values()], completed([config for _, config, _ in kept.values()])
    runs, order = tabulate(rows, configs)
    curves = [list(kept.values())[i][2] for i in order]
    filled = [frame for frame in curves if len(frame)]
    joined = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(CURVE_COLUMNS))
    return Tables(runs, _shared(configs), joined)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file with typed cells: whole numbers, numbers, booleans, text; an empty cell is None.

    Raises:
        NoResultsError: the file is torn.
    """
    return [
        {key: (text or None) if _TEXT.fullmatch(key) else typed(text) for key, text in row.items()}
        for row in _cells(path)
    ]


def _cells(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as text, without its comments.

    Raises:
        NoResultsError: the file is torn: it ends within a line, or a row has not one cell for each column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    if text and not text.endswith("\n"):
        raise NoResultsError(f"'{path}' ends in the middle of a line, without a newline: it is not whole.")
    found = list(csv.DictReader(line for line in io.StringIO(text, newline="") if not line.startswith("#")))
    for number, row in enumerate(found, start=1):
        if None in row or None in row.values():
            raise NoResultsError(f"'{path}' is not whole: row {number} has not one cell for each column.")
    return found


def _assembled(rows: Sequence[dict[str, Any]], shared: Mapping[str, Any], curves: pd.DataFrame) -> Tables:
    own = [{c.removeprefix("setting:"): v for c, v in row.items() if c.startswith("setting:")} for row in rows]
    cells = [{c: v for c, v in row.items() if not c.startswith("setting:")} for row in rows]
    runs, _ = tabulate(cells, own)
    return Tables(runs, dict(shared), curves)


def _shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings on which all runs agree. File paths are left out: they belong to a machine."""
    agreed = {path: values[0] for path, values in defining_settings(configs).items() if len(values) == 1}
    return {path: plain(value) for path, value in agreed.items() if not str(value).startswith(("/", "~"))}


def typed(text: str | None) -> Any:
    """A cell as a whole number, a number, a boolean or text; an empty one is None."""
    if text is None or text == "":
        return None
    if text in ("True", "False"):
        return text == "True"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and bool(np.isnan(value)))
