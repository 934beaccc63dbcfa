"""Numbers that the reproduced documents print, to be shown beside our own.

A file each, ``NAME.csv``: comment lines that begin with ``# source:`` say where the numbers stand, and the columns are
``series``, ``x`` (an epoch, a density; empty for a single number), ``value`` and ``spread`` (± as printed, or empty).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.report.tidy import read_rows

FOLDER = Path(__file__).parent
#: Names of all files.
PUBLISHED = tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))
COLUMNS = ("series", "x", "value", "spread")


class PublishedError(SparseBenchError):
    """A file of published numbers that is not there, or that does not say what is asked of it."""


@dataclass(frozen=True)
class Number:
    """A printed number.

    Attributes:
        x: what it stands at, if anything.
        value: the number.
        spread: the ± printed behind it.
    """

    x: float | None
    value: float
    spread: float | None


@dataclass(frozen=True)
class Published:
    """A file of printed numbers.

    Attributes:
        source: where they stand.
        series: numbers by series, in the order of the file.
    """

    name: str
    source: str
    series: dict[str, list[Number]]

    def get(self, series: str) -> list[Number]:
        """The numbers of a series.

        Raises:
            PublishedError: there is no such series; the message lists those that are.
        """
        if series not in self.series:
            raise PublishedError(f"In {self.name}.csv: {unknown_choice('series', series, self.series)}")
        return self.series[series]

    def one(self, series: str) -> Number:
        """The only number of a series.

        Raises:
            PublishedError: there is no such series, or it has several numbers.
        """
        numbers = self.get(series)
        if len(numbers) != 1:
            raise PublishedError(
                f"In {self.name}.csv: the series '{series}' has {len(numbers)} numbers instead of one."
            )
        return numbers[0]


@cache
def read_published(name: str, folder: Path = FOLDER) -> Published:
    """Read one file.

    Raises:
        PublishedError: there is none of this name, it names no source, or its columns are others.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise PublishedError(unknown_choice("file of published numbers", name, (p.stem for p in folder.glob("*.csv"))))
    lines = path.read_text(encoding="utf-8").splitlines()
    source = " ".join(line.removeprefix("# source:").strip() for line in lines if line.startswith("# source:"))
    rows = read_rows(path)
    if not source or not rows or tuple(rows[0]) != COLUMNS:
        raise PublishedError(f"'{path}' needs a line '# source: …' and the columns {', '.join(COLUMNS)}.")
    series: dict[str, list[Number]] = {}
    for row in rows:
        series.setdefault(str(row["series"]), []).append(_number(path, row))
    return Published(name, source, series)


def _number(path: Path, row: dict[str, Any]) -> Number:
    def number(column: str) -> float | None:
        value = row[column]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PublishedError(f"'{path}': {column} is '{value}', no number.")
        return None if value is None else float(value)

    value = number("value")
    if value is None:
        raise PublishedError(f"'{path}': a row of the series '{row['series']}' has no value.")
    return Number(number("x"), value, number("spread"))
