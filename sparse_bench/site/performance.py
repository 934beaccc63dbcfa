"""The page of speed measurements: which tables it has, in which order, and the figures of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.figures.performance import Declared, declared, performance_figures
from sparse_bench.figures.style import Figure
from sparse_bench.site.table_files import TableFile, table_files


@dataclass(frozen=True)
class Measurement:
    """A table of measurements and its figures; without a declaration it has none."""

    table: TableFile
    figures: Sequence[Figure] = ()


def measurements_of(folder: Path, entries: Mapping[str, Declared] | None = None) -> list[Measurement]:
    """The tables of a folder with their figures: declared tables in the order of the declarations, then the others.

    Args:
        folder: has the tables as CSV, with pages in Markdown beside them.
        entries: declarations by table; None: those of the project.

    Raises:
        FigureError: a table does not have what its declaration names.
    """
    entries = declared() if entries is None else entries
    order = {name: place for place, name in enumerate(entries)}
    found = sorted(table_files(folder), key=lambda table: order.get(table.name, len(order)))
    return [Measurement(table, _figures(folder / f"{table.name}.csv", entries.get(table.name))) for table in found]


def _figures(path: Path, entry: Declared | None) -> list[Figure]:
    """Empty without a declaration, and for a table that has no CSV file."""
    return performance_figures(path, entry) if entry is not None and path.is_file() else []
