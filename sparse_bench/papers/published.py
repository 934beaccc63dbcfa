"""Published numbers of a document, shown with our measurements.

They are in a CSV file in the paper's folder. Comment lines that begin with ``# source:`` give their place in the
document. Columns: ``series``, ``x`` (an epoch or a density; empty for a single number), ``value``, and ``spread`` (the
printed ±, or empty).
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparse_bench.errors import unknown_choice
from sparse_bench.papers.schema import DescriptionError

COLUMNS = ("series", "x", "value", "spread")


@dataclass(frozen=True)
class Number:
    """A published number: its x (None for a single number), its value, and the printed ± (None without)."""

    x: float | None
    value: float
    spread: float | None


@dataclass(frozen=True)
class Published:
    """A file of published numbers.

    Attributes:
        name: name of the file.
        source: place of the numbers in the document, as a sentence.
        series: numbers by series, in the order of the file.
    """

    name: str
    source: str
    series: dict[str, list[Number]]

    def get(self, series: str | None) -> list[Number]:
        """The numbers of a series; empty for None.

        Raises:
            DescriptionError: the series is unknown; the message lists the known ones.
        """
        if series is not None and series not in self.series:
            raise DescriptionError(f"In {self.name}: {unknown_choice('series', series, self.series)}")
        return self.series[series] if series is not None else []

    def one(self, series: str | None) -> Number | None:
        """The only number of a series; None for None.

        Raises:
            DescriptionError: the series is unknown, or has several numbers.
        """
        numbers = self.get(series)
        if len(numbers) > 1:
            raise DescriptionError(f"In {self.name}: the series '{series}' has {len(numbers)} numbers instead of one.")
        return numbers[0] if numbers else None


NONE = Published("", "", {})


@cache
def read_published(folder: Path, name: str | None) -> Published:
    """Read ``NAME.csv`` of a paper's folder; :data:`NONE` for None.

    Raises:
        DescriptionError: the file is missing, has no source, has other columns, or has a cell that is not a number.
    """
    if name is None:
        return NONE
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise DescriptionError(
            unknown_choice("file of published numbers", name, (p.stem for p in folder.glob("*.csv")))
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    source = " ".join(line.removeprefix("# source:").strip() for line in lines if line.startswith("# source:"))
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    if not source or not rows or tuple(rows[0]) != COLUMNS:
        raise DescriptionError(f"'{path}' needs a line '# source: …' and the columns {', '.join(COLUMNS)}.")
    series: dict[str, list[Number]] = {}
    for row in rows:
        try:
            x, value, spread = (float(row[column]) if row[column] else None for column in COLUMNS[1:])
        except (TypeError, ValueError) as error:
            raise DescriptionError(f"'{path}', series '{row['series']}': {error}") from error
        if value is None:
            raise DescriptionError(f"'{path}': a row of the series '{row['series']}' has no value.")
        series.setdefault(row["series"], []).append(Number(x, value, spread))
    return Published(path.name, f"Published numbers: {source.rstrip('.')}.", series)
