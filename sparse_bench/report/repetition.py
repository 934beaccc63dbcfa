"""Runs that were made again: whether they measured what the tables hold."""

import math
from dataclasses import dataclass

import pandas as pd

from sparse_bench.record import FINISHED
from sparse_bench.report.tidy import Tables

_METRIC, _SECONDS = "metric:", "seconds:total"
#: Tables hold ten digits; what differs by no more of its value than this is the same there.
_SAME = 1e-9


@dataclass(frozen=True)
class Repetition:
    """Finished runs that are in the tables, and have been made again since.

    Attributes:
        runs: how many.
        same: how many of them have the same metrics, to the last digit of the tables.
        largest: the largest difference of a metric, as a share of the larger value.
        where: its run and metric; empty if there is no difference.
    """

    runs: int
    same: int
    largest: float
    where: str

    def __str__(self) -> str:
        if self.same == self.runs:
            return f"{self.runs} of them made again, with the same metrics"
        return (
            f"{self.runs} of them made again, {self.same} with the same metrics; the others differ by up to "
            f"{self.largest:.2g} of a value ({self.where})"
        )


def repetition(old: Tables, new: Tables) -> Repetition | None:
    """Compare the metrics of runs that both tables hold, and that took another time; None if there are none.

    A run that took the same time to the last digit is the same one, read again. Metrics that only one side has, as
    another version of the code measured them, are left out.
    """
    known, made = _finished(old), _finished(new)
    again = {key: row for key, row in made.items() if key in known and _differs(row, known[key], _SECONDS) > _SAME}
    if not again:
        return None
    worst: list[tuple[float, str]] = []
    for (experiment, run), row in again.items():
        before = known[experiment, run]
        shared = [name for name in row if name.startswith(_METRIC) and name in before]
        differences = [
            (_differs(row, before, name), f"{experiment}/{run}, {name.removeprefix(_METRIC)}") for name in shared
        ]
        worst.append(max(differences, default=(0.0, "")))
    largest, where = max(worst)
    return Repetition(len(again), sum(found <= _SAME for found, _ in worst), largest, where if largest > 0 else "")


def _finished(tables: Tables) -> dict[tuple[str, str], dict[str, float]]:
    """The numbers of each finished run."""
    rows = tables.runs[tables.runs["status"] == FINISHED].to_dict("records")
    names = [str(name) for name in tables.runs.columns if str(name).startswith(_METRIC) or name == _SECONDS]
    return {
        (str(row["experiment"]), str(row["id"])): {name: float(row[name]) for name in names if not pd.isna(row[name])}
        for row in rows
    }


def _differs(row: dict[str, float], other: dict[str, float], name: str) -> float:
    """How far two values are apart, as a share of the larger one; what is not there on both sides is not apart."""
    if name not in row or name not in other or row[name] == other[name]:
        return 0.0
    one, two = row[name], other[name]
    found = abs(one - two) / max(abs(one), abs(two))
    return found if math.isfinite(found) else math.inf
