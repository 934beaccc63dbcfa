"""Which runs, or which row of a benchmark's table, a claim or a figure speaks of."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.record import FINISHED
from sparse_bench.report.arms import Arm, arms_of, by_density, density_range, percent, unlike, warned
from sparse_bench.report.load import NoResultsError, plain, sort_key
from sparse_bench.report.shipped import ALTERED
from sparse_bench.report.tidy import Tables, read, read_rows, typed

Where = Mapping[str, Any]
#: Cells of the column :data:`ALTERED`: of a run as shipped, and of one that differs in the length of training alone.
_NOTHING = re.compile("")
_LENGTH = re.compile(r"((^|; )(trainer\.(epochs|steps)|dataset\.batch_epochs): [^;]*)+")


class SelectionError(SparseBenchError):
    """A choice of runs or of rows that cannot be made from the results at hand; the message names the problem."""


@dataclass(frozen=True)
class Runs:
    """Runs of an experiment.

    Attributes:
        experiment: its name.
        where: a value, or a list of values, for labels (``density``) and settings by dotted path
            (``model.transformer_size``). A run that lacks the setting does not match.
    """

    experiment: str
    where: Where = field(default_factory=dict)

    def __str__(self) -> str:
        return _text(self.experiment, self.where)


@dataclass(frozen=True)
class Row:
    """One row of a benchmark's table.

    Attributes:
        table: path of a file with a table (:func:`benchmark_rows`), below the folder of results.
        where: a value for each column that tells the row from others.
    """

    table: str
    where: Where = field(default_factory=dict)

    def __str__(self) -> str:
        return _text(self.table, self.where)


@dataclass(frozen=True)
class Evidence:
    """Everything that claims, figures and pages are made from.

    Attributes:
        root: the folder of results.
        tables: committed tables by paper.
    """

    root: Path
    tables: Mapping[str, Tables]
    _found: dict[str, "tuple[Tables, pd.DataFrame] | None"] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def committed(cls, root: Path, papers: Iterable[str]) -> "Evidence":
        """Read the tables below ``root`` that exist."""
        found = {}
        for paper in papers:
            try:
                found[paper] = read(root / paper)
            except NoResultsError:
                if (root / paper / "runs.csv").is_file():
                    raise
        return cls(root, found)

    def runs(self, selector: Runs, *, any_length: bool = False) -> tuple[Tables, pd.DataFrame] | None:
        """The finished runs as shipped that ``selector`` names, and the tables that hold them; None if there is none.

        Args:
            selector: which.
            any_length: take runs that were altered in nothing but the length of training where none is as shipped:
                they have the weights of those that are.

        Raises:
            SelectionError: ``where`` names what is neither a label nor a setting of any run of the experiment.
        """
        key = json.dumps([selector.experiment, selector.where], sort_keys=True, default=str)
        if key not in self._found:
            self._found[key] = self._select(selector, _NOTHING)
        if any_length and self._found[key] is None:
            return self._select(selector, _LENGTH)
        return self._found[key]

    def _select(self, selector: Runs, altered: re.Pattern[str]) -> tuple[Tables, pd.DataFrame] | None:
        for tables in self.tables.values():
            named = (tables.runs["experiment"] == selector.experiment) & (tables.runs["status"] == FINISHED)
            if ALTERED in tables.runs:
                texts = ("" if pd.isna(text) else str(text) for text in tables.runs[ALTERED])
                named &= pd.Series([altered.fullmatch(text) is not None for text in texts], index=named.index)
            if not named.any():
                continue
            runs = tables.runs[named.to_numpy()].reset_index(drop=True)
            keep = pd.Series([True] * len(runs))
            for name, wanted in selector.where.items():
                keep &= _matching(tables, runs, name, wanted, selector.experiment)
            found = runs[keep.to_numpy()].reset_index(drop=True)
            return (tables, found) if len(found) else None
        return None

    def rows(self, selector: Row) -> list[dict[str, Any]]:
        """The rows of a benchmark's table that fit; none if there is no such table.

        Raises:
            SelectionError: a column is unknown.
        """
        path = self.root / selector.table
        if not path.is_file():
            return []
        rows = benchmark_rows(path)
        columns = list(dict.fromkeys(column for row in rows for column in row))
        for name in selector.where:
            if name not in columns:
                raise SelectionError(f"In {selector.table}: {unknown_choice('column', name, columns)}")
        wanted = {name: sort_key(value) for name, value in selector.where.items()}
        return [row for row in rows if all(sort_key(row.get(name)) == value for name, value in wanted.items())]

    def row(self, selector: Row) -> dict[str, Any] | None:
        """The row of a benchmark's table; None if there is no such table.

        Raises:
            SelectionError: a column is unknown, or not exactly one row fits.
        """
        if not (self.root / selector.table).is_file():
            return None
        found = self.rows(selector)
        if len(found) != 1:
            raise SelectionError(f"{selector} fits {len(found)} rows instead of one.")
        return found[0]


def benchmark_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a benchmark's table: of a CSV file, of a JSON list of objects (alone, or under ``rows``), or of the first
    table of a Markdown file.

    Raises:
        SelectionError: the file holds no such list.
    """
    if path.suffix == ".csv":
        return read_rows(path)
    if path.suffix == ".md":
        return _markdown_rows(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SelectionError(f"'{path}' holds no list of rows, neither alone nor under 'rows'.")
    return rows


def _markdown_rows(path: Path) -> list[dict[str, Any]]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if start is None:
        raise SelectionError(f"'{path}' holds no table.")
    body = list(takewhile(lambda line: line.startswith("|"), lines[start:]))
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body]
    return [
        {name: typed(re.sub(r"(?<=\d),(?=\d{3})", "", cell)) for name, cell in zip(columns, row, strict=True)}
        for row in rows
    ]


def one_arm(runs: pd.DataFrame) -> Arm:
    """The arm of runs that differ in nothing but their seed, or in settings that follow the seed.

    Raises:
        SelectionError: they are several arms; the message names in what they differ.
    """
    arms = arms_of(runs)
    first = arms[0]
    if found := differing(arms):
        raise SelectionError(f"{len(arms)} arms fit, which differ in {differing_text(found)}")
    if len(arms) == 1:
        return first
    return Arm(first.experiment, first.labels, first.settings, runs, 0, list(runs["id"]))


def remarks_on(runs: pd.DataFrame) -> list[str]:
    """What has to be known of chosen runs: that they were altered, that a density is not as asked for, warnings."""
    found = ["from runs of another length"] if ALTERED in runs and runs[ALTERED].notna().any() else []
    asked = by_density(arms_of(runs)).items()
    other = [(density, realised) for density, realised in asked if unlike(density, realised)]
    if told := [f"{density_range(realised)} for {percent(density)}" for density, realised in other]:
        found.append(f"realised density {', '.join(told)}")
    if warnings := warned(runs):
        found.append(f"with a warning: {warnings}")
    return found


def differing(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Labels and settings in which arms differ, with their values as text; not those that follow the seed."""
    return {
        name: sorted({str(plain(values[name])) for values in all_values})
        for all_values in ([arm.labels for arm in arms], [arm.settings for arm in arms])
        for name in all_values[0]
        if len({sort_key(values[name]) for values in all_values}) > 1 and not name.endswith("seed")
    }


def differing_text(found: Mapping[str, Sequence[str]]) -> str:
    """What :func:`differing` gives, in a line."""
    return "; ".join(f"{name} ({', '.join(values)})" for name, values in found.items())


def _matching(tables: Tables, runs: pd.DataFrame, name: str, wanted: Any, experiment: str) -> pd.Series:
    choices = {sort_key(value) for value in (wanted if isinstance(wanted, list | tuple) else [wanted])}
    for column in (f"label:{name}", f"setting:{name}"):
        if column in runs.columns:
            return pd.Series([sort_key(value) in choices for value in runs[column]])
    if name in tables.settings:
        return pd.Series([sort_key(tables.settings[name]) in choices] * len(runs))
    known = [column.split(":", 1)[1] for column in runs.columns if column.startswith(("label:", "setting:"))]
    raise SelectionError(
        f"In a choice of runs of {experiment}: {unknown_choice('label or setting', name, {*known, *tables.settings})}"
    )


def _text(name: str, where: Where) -> str:
    parts = ", ".join(f"{key.rsplit('.', 1)[-1]} {plain(value)}" for key, value in where.items())
    return f"{name} ({parts})" if parts else name
