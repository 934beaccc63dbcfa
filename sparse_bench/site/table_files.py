"""Tables that have files of their own: measurements in ``performance/``, and reports next to committed runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from sparse_bench.evidence.cell_values import is_missing
from sparse_bench.evidence.csv_tables import read_rows
from sparse_bench.evidence.display import MISSING, DisplayTable
from sparse_bench.site.render import markdown_html, table_parts

FOLDER = "performance"


@dataclass(frozen=True)
class TableFile:
    """A table with files of its own.

    Attributes:
        name: stem of its files.
        title: for the contents.
        body: as HTML.
        files: the table as Markdown, if there is one, then as CSV.
    """

    name: str
    title: str
    body: Markup
    files: list[Path]


def table_files(folder: Path, suffixes: Sequence[str] = (".md", ".csv")) -> list[TableFile]:
    """The tables of a folder, by name. A Markdown file is shown if there is one; else the rows of the CSV file."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in suffixes:
            found.setdefault(path.stem, []).append(path)
    return [_table_file(name, files) for name, files in found.items()]


def _table_file(name: str, files: list[Path]) -> TableFile:
    markdown = next((path for path in files if path.suffix == ".md"), None)
    title = name.replace("_", " ")
    if markdown is None:
        return TableFile(name, title, table_parts(_rows(files[0]))[0], files)
    text = markdown.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if first.startswith("# "):
        title, text = first.removeprefix("# ").strip(), rest
    files = [markdown, *(path for path in files if path != markdown)]
    return TableFile(name, re.sub(r"[*_`]", "", title), markdown_html(text), files)


def _rows(path: Path) -> DisplayTable:
    frame = read_rows(path)
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False)]
    return DisplayTable("", list(map(str, frame.columns)), rows, numeric)


def _text(value: object) -> str:
    if is_missing(value):
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
