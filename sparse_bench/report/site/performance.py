"""Tables that are told in files of their own: benchmarks below ``performance/``, and what else stands beside runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sparse_bench.report.markup import inline, table_html, to_html
from sparse_bench.report.selection import benchmark_rows
from sparse_bench.report.tables import MISSING, DisplayTable

FOLDER = "performance"


@dataclass(frozen=True)
class Benchmark:
    """A table of measurements.

    Attributes:
        name: stem of its files.
        title: for the contents.
        heading: the same as HTML.
        body: as HTML.
        files: beside the page, by name.
    """

    name: str
    title: str
    heading: Markup
    body: Markup
    files: list[Path]


def benchmarks(folder: Path, suffixes: Sequence[str] = (".md", ".csv", ".json")) -> list[Benchmark]:
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
        return Benchmark(name, title, Markup(inline(title)), Markup(table_html(_rows(files[0]))), files)
    text = told.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if first.startswith("# "):
        title, text = first.removeprefix("# ").strip(), rest
    files = [told, *(path for path in files if path != told)]
    return Benchmark(name, re.sub(r"[*_`]", "", title), Markup(inline(title)), Markup(to_html(text)), files)


def _rows(path: Path) -> DisplayTable:
    rows = benchmark_rows(path)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    return DisplayTable("", columns, [[_text(row.get(column)) for column in columns] for row in rows], numeric)


def _text(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
