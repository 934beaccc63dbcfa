"""What runs or a benchmark say about a quantity: a value for each seed, or one exact number.

Claims and the figures of single numbers ask here, so that they cannot disagree.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from sparse_bench.errors import unknown_choice
from sparse_bench.report import metric_names
from sparse_bench.report.selection import Evidence, Row, Runs, SelectionError, one_arm
from sparse_bench.report.statistics import Interval, StatisticsError, log_average, mean_interval
from sparse_bench.report.tidy import Tables

Measure = Literal["value", "difference", "ratio", "share_above"]
#: Columns of runs that are no metrics.
_PREFIXED = re.compile(r"(count|seconds|macs):.+|tokens_per_second|examples_per_second|peak_memory_bytes|epochs|steps")
#: Counts follow from the configuration (and a seed's topology), so they have no error to speak of.
_EXACT = re.compile(r"(count|macs):.+|epochs|steps")


@dataclass(frozen=True)
class Sample:
    """What was measured of a case.

    Attributes:
        values: one a seed; the single number of a benchmark or a count.
        exact: whether the value is known without error, so that it needs no second seed.
    """

    values: Sequence[float]
    exact: bool

    @property
    def interval(self) -> Interval:
        """Mean and t-interval over the seeds; an exact sample's mean alone."""
        found = mean_interval(self.values)
        return Interval(found.mean, 0.0, found.n) if self.exact else found


@dataclass(frozen=True)
class Unavailable:
    """Why a case could not be measured.

    Attributes:
        reason: a sentence without its full stop.
        run: whether there are runs at all.
    """

    reason: str
    run: bool


def measure_sides(
    kind: Measure,
    of: str,
    sides: Sequence[Runs | Row],
    evidence: Evidence,
    *,
    epochs: str | None = None,
    along: str | None = None,
) -> Sample | Unavailable:
    """Measure one side, or two against each other, paired over the seeds that both have.

    Args:
        kind: what is made of the sides: ``value`` of the first, ``difference`` or ``ratio`` of both, or
            ``share_above``: the share of epochs at which the first lies above the second.
        of: a metric, ``count:…``, ``seconds:…``, ``macs:…``, or a column of a benchmark's table.
        sides: runs, or rows of a table; all of one kind.
        evidence: where they are.
        epochs: ``epoch N`` or ``last N`` (their mean): of the learning curve, in place of the final value.
        along: average over a logarithmic axis, this column, over the range that all seeds of all sides reach.

    Raises:
        SelectionError: the results do not know a name that is used.
    """
    missing = [side for side in sides if not _exists(side, evidence)]
    if missing:
        side = missing[0]
        return Unavailable(f"no runs of {side}" if isinstance(side, Runs) else f"no {side.table}", False)
    if all(isinstance(side, Row) for side in sides):
        numbers = [_cell(side, of, evidence) for side in sides if isinstance(side, Row)]
        return Sample([_compare(kind, numbers)], exact=True)
    arms = [_Side(side, evidence, of) for side in sides if isinstance(side, Runs)]
    try:
        if along:
            by_seed = _areas(arms, along)
        elif kind == "share_above":
            return _share_above(*(arm.curves() for arm in arms))
        else:
            by_seed = [arm.values(epochs) for arm in arms]
    except _SeveralArmsError as error:
        return Unavailable(str(error), True)
    seeds = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not seeds:
        return Unavailable(_no_seed(by_seed, epochs), True)
    values = [_compare(kind, [found[seed] for found in by_seed]) for seed in seeds]
    return Sample(values, exact=_EXACT.fullmatch(of) is not None and along is None)


def _no_seed(by_seed: Sequence[Mapping[int, float]], epochs: str | None) -> str:
    """Why no seed could be measured on all sides."""
    if not all(by_seed):
        return f"no run of a side has the epochs asked for ({epochs})" if epochs else "no run of a side has this number"
    return f"the two sides share no seed ({' and '.join(str(sorted(found)) for found in by_seed)})"


def column_of(name: str) -> str:
    """The column of a table of runs that holds a quantity."""
    return name if _PREFIXED.fullmatch(name) else f"metric:{name}"


def quantity(name: str) -> str:
    """The name of a quantity for people."""
    kind, _, rest = name.partition(":")
    words = {"count:sparse_layers": "weights in the sparse layers", "count:trainable": "trainable weights"}
    if name in words:
        return words[name]
    if kind in ("count", "macs"):
        return rest.replace("_", " ")
    if kind == "seconds":
        return f"seconds ({rest.replace('_', ' ')})"
    return metric_names.title(name)


class _SeveralArmsError(Exception):
    """Runs of several arms fit a choice that has to name one."""


class _Side:
    """The runs of one side."""

    def __init__(self, selector: Runs, evidence: Evidence, of: str) -> None:
        found = evidence.runs(selector)
        assert found is not None, "its existence was checked"
        self.selector, self.of = selector, of
        self.tables: Tables = found[0]
        self.runs: pd.DataFrame = found[1]

    def values(self, epochs: str | None) -> dict[int, float]:
        """The value of one arm for each seed."""
        try:
            arm = one_arm(self.runs)
        except SelectionError as error:
            raise _SeveralArmsError(str(error)) from error
        if epochs is not None:
            return {seed: value for seed, curve in self.curves().items() if (value := _at(curve, epochs)) is not None}
        return arm.values(self._column(self.of))

    def points(self, along: str) -> dict[int, dict[float, float]]:
        """For each seed the value at each place of a curve."""
        x, y = self.runs[self._column(along)], self.runs[self._column(self.of)]
        found: dict[int, dict[float, float]] = {}
        for seed, place, value in zip(self.runs["seed"], x, y, strict=True):
            if not pd.isna(place) and not pd.isna(value):
                found.setdefault(int(seed), {})[float(place)] = float(value)
        return found

    def curves(self) -> dict[int, pd.Series]:
        """For each seed the values by epoch."""
        try:
            one_arm(self.runs)
        except SelectionError as error:
            raise _SeveralArmsError(str(error)) from error
        ids = set(self.runs["id"])
        rows = self.tables.curves
        rows = rows[rows["id"].isin(ids) & (rows["experiment"] == self.selector.experiment)]
        if len(rows) and self.of not in set(rows["metric"]):
            known = set(rows["metric"])
            raise SelectionError(f"In the curves of {self.selector}: {unknown_choice('metric', self.of, known)}")
        rows = rows[rows["metric"] == self.of]
        return {
            int(seed): rows[rows["seed"] == seed].set_index("epoch")["value"].sort_index()
            for seed in sorted(rows["seed"].unique())
        }

    def _column(self, name: str) -> str:
        column = column_of(name)
        if column not in self.runs.columns or bool(self.runs[column].isna().all()):
            measured = [c for c in self.runs.columns if not self.runs[c].isna().all()]
            known = [c.removeprefix("metric:") for c in measured if c.startswith(("metric:", "count:", "seconds:"))]
            raise SelectionError(f"In the runs of {self.selector}: {unknown_choice('metric', name, known)}")
        return column


def _exists(side: Runs | Row, evidence: Evidence) -> bool:
    return (evidence.runs(side) if isinstance(side, Runs) else evidence.row(side)) is not None


def _cell(side: Row, column: str, evidence: Evidence) -> float:
    row = evidence.row(side)
    assert row is not None, "its existence was checked"
    value = row.get(column)
    if not isinstance(value, int | float) or isinstance(value, bool):
        numeric = [name for name, cell in row.items() if isinstance(cell, int | float)]
        raise SelectionError(f"In {side}: {unknown_choice('column of numbers', column, numeric)}")
    return float(value)


def _compare(kind: Measure, numbers: Sequence[float]) -> float:
    if kind == "value":
        return numbers[0]
    first, second = numbers
    return first - second if kind == "difference" else first / second


def _at(curve: pd.Series, epochs: str) -> float | None:
    """A curve's value at an epoch, or its mean over the last ones; None where the run is too short."""
    kind, number = epochs.split()
    if kind == "epoch":
        return float(curve[int(number)]) if int(number) in curve.index else None
    last = curve.iloc[-int(number) :]
    return math.fsum(last) / len(last) if len(last) == int(number) else None


def _share_above(first: Mapping[int, pd.Series], second: Mapping[int, pd.Series]) -> Sample | Unavailable:
    shares = []
    for seed in sorted(first.keys() & second.keys()):
        shared = first[seed].index.intersection(second[seed].index)
        if len(shared):
            shares.append(float((first[seed][shared] > second[seed][shared]).mean()))
    return Sample(shares, exact=False) if shares else Unavailable("the two sides share no seed", True)


def _areas(sides: Sequence[_Side], along: str) -> list[dict[int, float]]:
    """Each side's average over the range of the axis that every seed of every side reaches."""
    curves = [side.points(along) for side in sides]
    points = [found for side in curves for found in side.values()]
    bounds = max(min(found) for found in points), min(max(found) for found in points)
    try:
        return [
            {seed: log_average(list(found), list(found.values()), bounds) for seed, found in side.items()}
            for side in curves
        ]
    except StatisticsError as error:
        raise _SeveralArmsError(str(error)) from error
