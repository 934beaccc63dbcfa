"""Measures a quantity from runs or a benchmark: a value for each seed, or one exact number.

Claims and figures both use it, so they cannot disagree.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.evidence.arms import Arm, arms_of, by_density, realised_note, warned
from sparse_bench.evidence.csv_tables import StoreError, is_finite, is_missing, plain, read_rows, sort_key
from sparse_bench.evidence.display import density_range, percent
from sparse_bench.evidence.names import column_of
from sparse_bench.evidence.statistics import Interval, mean_interval
from sparse_bench.evidence.store import ALTERED, RUNS, RunTable, read
from sparse_bench.papers.claims import is_exact
from sparse_bench.papers.schema import Comparison, Measure, Target
from sparse_bench.record import FINISHED

#: Patterns of the column :data:`ALTERED`: a run as shipped, and one that differs in the length of training alone.
_NOTHING = re.compile("")
_LENGTH = re.compile(r"((^|; )(trainer\.(epochs|steps)|dataset\.batch_epochs): [^;]*)+")


class SelectionError(SparseBenchError):
    """Runs or rows cannot be selected from the results; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A measurement.

    Attributes:
        values: one a seed; a single number for a benchmark.
        exact: whether the value has no error, so that one seed is enough.
        remark: what a reader has to know, such as a realised density; without its full stop.
    """

    values: Sequence[float]
    exact: bool
    remark: str = ""

    @property
    def interval(self) -> Interval:
        """Mean and t-interval over the seeds; half-width 0 for an exact sample."""
        found = mean_interval(self.values)
        return Interval(found.mean, 0.0, found.n) if self.exact else found


@dataclass(frozen=True)
class Unavailable:
    """A measurement that is not possible.

    Attributes:
        reason: why, without its full stop.
        run: whether there are runs.
    """

    reason: str
    run: bool


@dataclass(frozen=True)
class Evidence:
    """The committed tables, from which claims, figures and pages are made.

    Attributes:
        root: the folder of results.
        tables: the committed runs by paper.
    """

    root: Path
    tables: Mapping[str, RunTable]
    _found: dict[tuple[str, str, str], RunTable | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def committed(cls, root: Path, papers: Iterable[str]) -> "Evidence":
        """Read the tables below ``root`` that exist."""
        return cls(root, {paper: read(root / paper) for paper in papers if (root / paper / RUNS).is_file()})

    def require(self) -> None:
        """Check that there are tables.

        Raises:
            StoreError: there are none.
        """
        if not self.tables:
            raise StoreError(f"No committed results in '{self.root}': no paper's folder there has a table.")

    def runs(self, target: Target, *, any_length: bool = False) -> RunTable | None:
        """The finished runs that ``target`` names; None without such runs. Altered runs do not count.

        Args:
            target: the runs to find.
            any_length: where no run is as shipped, accept runs whose length of training alone was altered. They have
                the same weights.

        Raises:
            SelectionError: ``where`` names neither a label nor a setting of any run of the experiment.
        """
        for allowed in (_NOTHING, _LENGTH) if any_length else (_NOTHING,):
            key = (target.experiment, json.dumps(dict(target.where), sort_keys=True, default=str), allowed.pattern)
            if key not in self._found:
                self._found[key] = self._select(target, allowed)
            if self._found[key] is not None:
                return self._found[key]
        return None

    def _select(self, target: Target, allowed: re.Pattern[str]) -> RunTable | None:
        for table in self.tables.values():
            keep = (table.runs["experiment"] == target.experiment) & (table.runs["status"] == FINISHED)
            if ALTERED in table.runs:
                texts = table.runs[ALTERED].fillna("")
                keep &= pd.Series([allowed.fullmatch(str(text)) is not None for text in texts], index=keep.index)
            if not keep.any():
                continue
            fits = keep.to_numpy(dtype=bool)
            for name, wanted in target.where.items():
                fits = np.logical_and(fits, _matching(table, name, wanted, target.experiment))
            return table.where(fits) if fits.any() else None
        return None

    def rows(self, target: Target) -> list[dict[str, Any]]:
        """The matching rows of a benchmark's table; empty without the table.

        Raises:
            SelectionError: ``where`` names an unknown column.
        """
        path = self.root / target.table
        if not path.is_file():
            return []
        frame = read_rows(path)
        for name in target.where:
            if name not in frame.columns:
                raise SelectionError(f"In {target.table}: {unknown_choice('column', name, map(str, frame.columns))}")
        rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
        wanted = {name: sort_key(value) for name, value in target.where.items()}
        return [row for row in rows if all(sort_key(row[name]) == value for name, value in wanted.items())]

    def exists(self, target: Target, of: str) -> bool:
        """Whether a side has runs, or its table exists."""
        if target.table:
            return (self.root / target.table).is_file()
        return self.runs(target, any_length=of.startswith("count:")) is not None


def measure(comparison: Comparison, evidence: Evidence) -> Sample | Unavailable:
    """Measure one side, or compare two sides, paired over the seeds that both have.

    Raises:
        SelectionError: the comparison uses a name that is not in the results.
    """
    of, sides = comparison.of, comparison.sides
    if missing := [side for side in sides if not evidence.exists(side, of)]:
        side = missing[0]
        return Unavailable(f"no runs of {side}" if side.experiment else f"no {side.table}", False)
    if all(side.table for side in sides):
        try:
            cells = [_cell(side, of, evidence) for side in sides]
        except _UnmeasurableError as error:
            return Unavailable(str(error), True)
        return Sample([_compared(comparison.measure, cells) + comparison.biases], exact=True)
    found = [evidence.runs(side, any_length=of.startswith("count:")) for side in sides]
    remarks = [text for one in found if one is not None for text in remarks_on(one.runs)]
    try:
        by_seed = [_values(side, one, comparison) for side, one in zip(sides, found, strict=True) if one is not None]
    except _UnmeasurableError as error:
        return Unavailable(str(error), True)
    seeds = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not seeds:
        return Unavailable(_no_seed(by_seed, comparison.epochs), True)
    values = [_compared(comparison.measure, [one[seed] for one in by_seed]) + comparison.biases for seed in seeds]
    return Sample(values, exact=is_exact(of), remark="; ".join(dict.fromkeys(remarks)))


def remarks_on(runs: pd.DataFrame) -> list[str]:
    """Remarks on runs: that their length was altered, realised densities other than nominal, warnings."""
    found = ["from runs of another length"] if ALTERED in runs and runs[ALTERED].notna().any() else []
    asked = by_density(arms_of(runs)).items()
    other = [(density, realised) for density, realised in asked if realised_note(density, realised)]
    if texts := [f"{density_range(realised)} for {percent(density)}" for density, realised in other]:
        found.append(f"realised density {', '.join(texts)}")
    warnings = warned(runs)
    return [*found, f"with a warning: {warnings}"] if warnings else found


def one_arm(runs: pd.DataFrame) -> Arm:
    """The arm of runs that differ in their seed alone, or in settings that follow the seed.

    Raises:
        SelectionError: the runs form several arms; the message lists their differences.
    """
    arms = arms_of(runs)
    first = arms[0]
    differing = {
        name: sorted({str(plain(values[name])) for values in parts})
        for parts in ([arm.labels for arm in arms], [arm.settings for arm in arms])
        for name in parts[0]
        if len({sort_key(values[name]) for values in parts}) > 1 and not name.endswith("seed")
    }
    if differing:
        texts = "; ".join(f"{name} ({', '.join(values)})" for name, values in differing.items())
        raise SelectionError(f"{len(arms)} arms fit, which differ in {texts}")
    return first if len(arms) == 1 else Arm(first.experiment, first.labels, first.settings, runs, 0, list(runs["id"]))


def curves_by_seed(table: RunTable, metric: str, name: str) -> dict[int, pd.Series]:
    """An arm's learning curves: seed → a metric by epoch.

    Raises:
        SelectionError: the runs form several arms, or no curve has the metric. The message calls them ``name``.
    """
    one_arm(table.runs)  # a mean over several arms has no meaning
    rows = table.curves
    if len(rows) and metric not in set(rows["metric"]):
        raise SelectionError(f"In the curves of {name}: {unknown_choice('metric', metric, set(rows['metric']))}")
    rows = rows[rows["metric"] == metric]
    return {int(seed): part.groupby("epoch")["value"].mean() for seed, part in rows.groupby("seed")}  # type: ignore[arg-type]


class _UnmeasurableError(Exception):
    """Runs or rows fit, but they are not of one arm, or the cell holds no number."""


def _values(side: Target, table: RunTable, comparison: Comparison) -> dict[int, float]:
    """The value of one arm for each seed."""
    runs = table.runs
    try:
        arm = one_arm(runs)
    except SelectionError as error:
        raise _UnmeasurableError(str(error)) from error
    if comparison.epochs is not None:
        curves = curves_by_seed(table, comparison.of, str(side))
        found = {seed: at_epochs(curve, comparison.epochs) for seed, curve in curves.items()}
        return {seed: value for seed, value in found.items() if value is not None}
    column = column_of(comparison.of)
    if column not in runs.columns or bool(runs[column].isna().all()):
        measured = [c for c in runs.columns if not runs[c].isna().all()]
        known = [c.removeprefix("metric:") for c in measured if c.startswith(("metric:", "count:", "seconds:"))]
        raise SelectionError(f"In the runs of {side}: {unknown_choice('metric', comparison.of, known)}")
    return arm.values(column)


def at_epochs(curve: pd.Series, epochs: str) -> float | None:
    """A curve's value at an epoch, its mean over the last epochs, or an extreme.

    Args:
        curve: values by epoch.
        epochs: ``epoch N``, ``last N``, ``lowest`` or ``highest``.

    Returns:
        None if the curve is too short, or has no extreme because it diverged.
    """
    if epochs in ("lowest", "highest"):
        extreme = float(curve.min(skipna=False) if epochs == "lowest" else curve.max(skipna=False))
        return None if math.isnan(extreme) else extreme
    kind, number = epochs.split()
    if kind == "epoch":
        return float(curve[int(number)]) if int(number) in curve.index else None
    last = curve.iloc[-int(number) :]
    return math.fsum(last) / len(last) if len(last) == int(number) else None


def _no_seed(by_seed: Sequence[Mapping[int, float]], epochs: str | None) -> str:
    """Why no seed could be measured on all sides."""
    if not all(by_seed):
        return f"no run of a side has the epochs of the rule ({epochs})" if epochs else "no run of a side has a value"
    return f"the two sides share no seed ({' and '.join(str(sorted(found)) for found in by_seed)})"


def _cell(side: Target, column: str, evidence: Evidence) -> float:
    rows = evidence.rows(side)
    if len(rows) != 1:
        raise SelectionError(f"{side} fits {len(rows)} rows instead of one.")
    if column not in rows[0]:
        raise SelectionError(f"In {side}: {unknown_choice('column', column, rows[0])}")
    value = rows[0][column]
    if not is_finite(value):
        raise _UnmeasurableError(f"the cell {column} of {side} is {'empty' if is_missing(value) else repr(value)}")
    return float(value)


def _compared(kind: Measure, numbers: Sequence[float]) -> float:
    if kind == "value":
        return numbers[0]
    first, second = numbers
    return first - second if kind == "difference" else first / second


def _matching(table: RunTable, name: str, wanted: Any, experiment: str) -> list[bool]:
    """Whether each run has a wanted value of a label or a setting."""
    choices = {sort_key(value) for value in (wanted if isinstance(wanted, list | tuple) else [wanted])}
    for column in (f"label:{name}", f"setting:{name}"):
        if column in table.runs.columns:
            return [sort_key(value) in choices for value in table.runs[column]]
    if name in table.settings:
        return [sort_key(table.settings[name]) in choices] * len(table)
    known = [column.split(":", 1)[1] for column in table.runs.columns if column.startswith(("label:", "setting:"))]
    raise SelectionError(
        f"In a choice of runs of {experiment}: {unknown_choice('label or setting', name, {*known, *table.settings})}"
    )
