"""Tables that have files of their own: measurements in ``performance/``, and reports next to committed runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from sparse_bench.evidence.csv_tables import is_missing, read_rows
from sparse_bench.evidence.display import MISSING, DisplayTable
from sparse_bench.figures.performance import Declared, declared, performance_figures
from sparse_bench.figures.style import Figure
from sparse_bench.site.render import markdown_html

#: Folder of the speed measurements, below the folder of results.
FOLDER = "performance"


@dataclass(frozen=True)
class Measurement:
    """A table with files of its own.

    Attributes:
        name: stem of its files.
        title: for the contents.
        body: its Markdown as HTML; the rows of a table that has none.
        files: the table as Markdown, if there is one, then as CSV.
        figures: those that are declared for the table.
    """

    name: str
    title: str
    body: Markup | DisplayTable
    files: Sequence[Path]
    figures: Sequence[Figure]


def reports_in(folder: Path) -> list[Measurement]:
    """Further measurements of a paper, as Markdown files in its folder."""
    return [_measurement([path], None) for path in sorted(folder.glob("*.md"))]


def measurements_in(folder: Path, entries: Mapping[str, Declared] | None = None) -> list[Measurement]:
    """The tables of a folder with their figures: declared tables in the order of the declarations, then the others.

    Args:
        folder: has the tables as CSV, or as Markdown, or both.
        entries: declarations by table; None: those of the project.

    Raises:
        SelectionError: a table does not have what its declaration names.
    """
    entries = declared() if entries is None else entries
    order = {name: place for place, name in enumerate(entries)}
    stems = {path.stem for path in folder.glob("*") if path.suffix in (".md", ".csv")}
    found = []
    for stem in sorted(stems, key=lambda stem: (order.get(stem, len(order)), stem)):
        paths = [folder / f"{stem}{suffix}" for suffix in (".md", ".csv")]
        found.append(_measurement([path for path in paths if path.is_file()], entries.get(stem)))
    return found


def _measurement(files: Sequence[Path], entry: Declared | None) -> Measurement:
    shown, name = files[0], files[0].stem
    title = name.replace("_", " ")
    figures = performance_figures(files[-1], entry) if entry is not None and files[-1].suffix == ".csv" else []
    if shown.suffix == ".csv":
        return Measurement(name, title, _rows(shown), files, figures)
    text = shown.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if first.startswith("# "):
        title, text = re.sub(r"[*_`]", "", first.removeprefix("# ").strip()), rest
    return Measurement(name, title, markdown_html(text), files, figures)


def _rows(path: Path) -> DisplayTable:
    frame = read_rows(path)
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False)]
    return DisplayTable("", list(map(str, frame.columns)), rows, numeric)


def _text(value: object) -> str:
    if is_missing(value):
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
