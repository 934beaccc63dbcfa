"""Tables that are told in files of their own: benchmarks below ``performance/``, and what else stands beside runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from sparse_bench.evidence.cells import is_missing
from sparse_bench.evidence.display import MISSING, DisplayTable
from sparse_bench.evidence.store import read_rows
from sparse_bench.site.render import markdown_html, table_parts

FOLDER = "performance"


@dataclass(frozen=True)
class Benchmark:
    """A table of measurements.

    Attributes:
        name: stem of its files.
        title: for the contents.
        body: as HTML.
        files: beside the page, by name.
    """

    name: str
    title: str
    body: Markup
    files: list[Path]


def benchmarks(folder: Path, suffixes: Sequence[str] = (".md", ".csv")) -> list[Benchmark]:
    """What is told in a folder, by name. What is told in Markdown is shown so; else its rows are.

    Args:
        folder: where the files are.
        suffixes: of the files that are looked at.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in suffixes:
            found.setdefault(path.stem, []).append(path)
    return [_benchmark(name, files) for name, files in found.items()]


def _benchmark(name: str, files: list[Path]) -> Benchmark:
    told = next((path for path in files if path.suffix == ".md"), None)
    title = name.replace("_", " ")
    if told is None:
        return Benchmark(name, title, table_parts(_rows(files[0]))[0], files)
    text = told.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if first.startswith("# "):
        title, text = first.removeprefix("# ").strip(), rest
    files = [told, *(path for path in files if path != told)]
    return Benchmark(name, re.sub(r"[*_`]", "", title), markdown_html(text), files)


def _rows(path: Path) -> DisplayTable:
    frame = read_rows(path)
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False)]
    return DisplayTable("", list(map(str, frame.columns)), rows, numeric)


def _text(value: object) -> str:
    if is_missing(value):
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
