"""What runs or a benchmark say about a quantity: a value for each seed, or one exact number.

Claims and the figures of single numbers ask here, so that they cannot disagree.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from sparse_bench.errors import unknown_choice
from sparse_bench.report import metric_names
from sparse_bench.report.arms import arms_of
from sparse_bench.report.load import sort_key
from sparse_bench.report.selection import (
    Evidence,
    Row,
    Runs,
    SelectionError,
    differing,
    differing_text,
    one_arm,
    remarks_on,
)
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
        remark: what has to be known of the runs that it is of, such as a density other than asked for; without its
            full stop.
    """

    values: Sequence[float]
    exact: bool
    remark: str = ""

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
        epochs: ``epoch N``, ``last N`` (their mean), ``lowest`` or ``highest`` (of all epochs): of the learning curve,
            in place of the final value.
        along: average over a logarithmic axis, this column, over the range that all seeds of all sides reach. Seeds
            whose curve lacks points that another seed's has are left out.

    Raises:
        SelectionError: the results do not know a name that is used.
    """
    missing = [side for side in sides if not _exists(side, evidence, of)]
    if missing:
        side = missing[0]
        return Unavailable(f"no runs of {side}" if isinstance(side, Runs) else f"no {side.table}", False)
    if all(isinstance(side, Row) for side in sides):
        numbers = [_cell(side, of, evidence) for side in sides if isinstance(side, Row)]
        return Sample([_compare(kind, numbers)], exact=True)
    arms = [_Side(side, evidence, of) for side in sides if isinstance(side, Runs)]
    remark = "; ".join(dict.fromkeys(text for arm in arms for text in remarks_on(arm.runs)))
    try:
        if along:
            by_seed, left_out = _areas(arms, along)
            remark = "; ".join(filter(None, (remark, left_out)))
        elif kind == "share_above":
            return _share_above(*(arm.curves() for arm in arms), remark=remark)
        else:
            by_seed = [arm.values(epochs) for arm in arms]
    except _UnmeasurableError as error:
        return Unavailable(str(error), True)
    seeds = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not seeds:
        return Unavailable(_no_seed(by_seed, epochs), True)
    values = [_compare(kind, [found[seed] for found in by_seed]) for seed in seeds]
    return Sample(values, exact=is_exact(of) and along is None, remark=remark)


def _no_seed(by_seed: Sequence[Mapping[int, float]], epochs: str | None) -> str:
    """Why no seed could be measured on all sides."""
    if not all(by_seed):
        return f"no run of a side has the epochs asked for ({epochs})" if epochs else "no run of a side has this number"
    return f"the two sides share no seed ({' and '.join(str(sorted(found)) for found in by_seed)})"


def is_exact(name: str) -> bool:
    """Whether a quantity of runs is known without error."""
    return _EXACT.fullmatch(name) is not None


def column_of(name: str) -> str:
    """The column of a table of runs that holds a quantity."""
    return name if _PREFIXED.fullmatch(name) else f"metric:{name}"


def quantity(name: str) -> str:
    """The name of a quantity for people."""
    kind, _, rest = name.partition(":")
    words = {"count:sparse_layers": "weights in the sparse layers", "count:trainable": "trainable weights"}
    if name in words:
        return words[name]
    if match := re.fullmatch(r"count:groups\.(.+)\.(active|size)", name):
        return f"{'places for ' if match[2] == 'size' else ''}weights in the group {match[1].replace('_', ' ')}"
    if kind == "macs":
        return f"multiply-accumulates ({rest})"
    if kind == "count":
        return rest.replace("_", " ")
    if kind == "seconds":
        return f"seconds ({rest.replace('_', ' ')})"
    return metric_names.title(name)


class _UnmeasurableError(Exception):
    """Runs fit, but not those that the quantity needs: those of one arm, or of one curve."""


class _Side:
    """The runs of one side."""

    def __init__(self, selector: Runs, evidence: Evidence, of: str) -> None:
        found = _runs(selector, evidence, of)
        assert found is not None, "its existence was checked"
        self.selector, self.of = selector, of
        self.tables: Tables = found[0]
        self.runs: pd.DataFrame = found[1]

    def values(self, epochs: str | None) -> dict[int, float]:
        """The value of one arm for each seed."""
        try:
            arm = one_arm(self.runs)
        except SelectionError as error:
            raise _UnmeasurableError(str(error)) from error
        if epochs is not None:
            return {seed: value for seed, curve in self.curves().items() if (value := _at(curve, epochs)) is not None}
        return arm.values(self._column(self.of))

    def points(self, along: str) -> dict[int, dict[Any, tuple[float, float]]]:
        """For each seed the points (place, value) of its curve, by the setting that varies along it.

        One label or setting has to be all that the runs differ in: what differs in more, such as runs of another
        length, lies on several curves.
        """
        arms = arms_of(self.runs)
        found = differing(arms)
        if len(found) > 1:
            raise _UnmeasurableError(f"several curves fit, whose runs differ in {differing_text(found)}")
        x, y, axis = self._column(along), self._column(self.of), next(iter(found), "")
        several: dict[int, dict[Any, list[tuple[float, float]]]] = {}
        for arm in arms:
            places, values = arm.values(x), arm.values(y)
            place_of = sort_key(arm.labels.get(axis, arm.settings.get(axis)))
            for seed in places.keys() & values.keys():
                several.setdefault(seed, {}).setdefault(place_of, []).append((places[seed], values[seed]))
        # A seed has several arms at a place where it was run on several splits, say.
        return {
            seed: {name: (_mean(x for x, _ in pairs), _mean(y for _, y in pairs)) for name, pairs in points.items()}
            for seed, points in several.items()
        }

    def curves(self) -> dict[int, pd.Series]:
        """For each seed the values by epoch."""
        try:
            one_arm(self.runs)
        except SelectionError as error:
            raise _UnmeasurableError(str(error)) from error
        ids = set(self.runs["id"])
        rows = self.tables.curves
        rows = rows[rows["id"].isin(ids) & (rows["experiment"] == self.selector.experiment)]
        if len(rows) and self.of not in set(rows["metric"]):
            known = set(rows["metric"])
            raise SelectionError(f"In the curves of {self.selector}: {unknown_choice('metric', self.of, known)}")
        rows = rows[rows["metric"] == self.of]
        return {
            int(seed): rows[rows["seed"] == seed].groupby("epoch")["value"].mean()
            for seed in sorted(rows["seed"].unique())
        }

    def _column(self, name: str) -> str:
        column = column_of(name)
        if column not in self.runs.columns or bool(self.runs[column].isna().all()):
            measured = [c for c in self.runs.columns if not self.runs[c].isna().all()]
            known = [c.removeprefix("metric:") for c in measured if c.startswith(("metric:", "count:", "seconds:"))]
            raise SelectionError(f"In the runs of {self.selector}: {unknown_choice('metric', name, known)}")
        return column


def _exists(side: Runs | Row, evidence: Evidence, of: str) -> bool:
    return (_runs(side, evidence, of) if isinstance(side, Runs) else evidence.row(side)) is not None


def _runs(side: Runs, evidence: Evidence, of: str) -> tuple[Tables, pd.DataFrame] | None:
    """The runs of a side; for a count, which no length of training changes, of another length if need be."""
    return evidence.runs(side, any_length=of.startswith("count:"))


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
    """A curve's value at an epoch, its mean over the last ones, or an extreme; None if it is too short or diverged."""
    if epochs in ("lowest", "highest"):
        extreme = float(curve.min(skipna=False) if epochs == "lowest" else curve.max(skipna=False))
        return None if math.isnan(extreme) else extreme
    kind, number = epochs.split()
    if kind == "epoch":
        return float(curve[int(number)]) if int(number) in curve.index else None
    last = curve.iloc[-int(number) :]
    return math.fsum(last) / len(last) if len(last) == int(number) else None


def _share_above(
    first: Mapping[int, pd.Series], second: Mapping[int, pd.Series], *, remark: str
) -> Sample | Unavailable:
    shares = []
    for seed in sorted(first.keys() & second.keys()):
        shared = first[seed].index.intersection(second[seed].index)
        if len(shared):
            shares.append(float((first[seed][shared] > second[seed][shared]).mean()))
    return Sample(shares, exact=False, remark=remark) if shares else Unavailable("the two sides share no seed", True)


def _areas(sides: Sequence[_Side], along: str) -> tuple[list[dict[int, float]], str]:
    """Each side's average over the range of the axis that every seed reaches, and how many seeds were left out.

    Only seeds that have all points of all sides count: a few points reach less far, and would narrow the range for all.
    """
    curves = [side.points(along) for side in sides]
    whole = [{seed for seed, points in side.items() if points.keys() == _all_places(side)} for side in curves]
    seeds = set.intersection(*whole)
    left_out = len({seed for side in curves for seed in side} - seeds)
    if not seeds:
        raise _UnmeasurableError("no seed has all points of the curves")
    kept = [{seed: side[seed].values() for seed in sorted(seeds)} for side in curves]
    places = [[x for x, _ in points] for side in kept for points in side.values()]
    bounds = max(min(found) for found in places), min(max(found) for found in places)
    try:
        averages = [
            {seed: log_average([x for x, _ in points], [y for _, y in points], bounds) for seed, points in side.items()}
            for side in kept
        ]
    except StatisticsError as error:
        raise _UnmeasurableError(str(error)) from error
    remark = f"{left_out} seed{'s' if left_out > 1 else ''} with an incomplete curve left out" if left_out else ""
    return averages, remark


def _all_places(side: Mapping[int, Mapping[Any, object]]) -> set[Any]:
    """Every place that any seed's curve has."""
    return {place for points in side.values() for place in points}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
