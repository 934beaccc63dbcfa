"""Figures of the tables in ``results/performance``, as ``performance.yaml`` declares them.

Its ``entries`` are in the order of the page. Each has ``tables``, names of CSV files without the suffix, and either
``figures`` or ``without``, the reason why there is none. A figure is of one of two kinds:

    {kind: lines, of, along, …}   a column of ratios against another, a line for each value of ``series``
    {kind: dots, of, rows, …}     a column of ratios, a dot for each row

Rows are found by their columns alone, so a table that is measured again needs no other declaration.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sparse_bench.errors import unknown_choice
from sparse_bench.evidence.compare import SelectionError
from sparse_bench.evidence.csv_tables import grouped, is_finite, is_missing, read_rows
from sparse_bench.evidence.display import percent
from sparse_bench.evidence.statistics import Interval
from sparse_bench.figures.dots import Dot, dot_plot
from sparse_bench.figures.lines import Chart, Line, Look, Panel, line_chart
from sparse_bench.figures.style import INK, MARKERS, MUTED, SERIES, Figure, file_stem
from sparse_bench.papers.schema import Strict, read_description

FILE = Path(__file__).with_suffix(".yaml")

_Row = Mapping[str, Any]
_Places = Sequence[tuple[float, float]]


class _Figure(Strict):
    """What both kinds have.

    Attributes:
        title: of the figure.
        of: column of the numbers.
        axis: title of the axis of the numbers.
        note: first sentence of the caption.
        split: columns; each combination of their values has a figure of its own.
        called: name of such a figure, with columns in braces.
        last_first: whether the last combination in the table comes first.
        omit: column → value of rows that are left out.
        logarithmic: whether the axis of the numbers is logarithmic.
    """

    title: str
    axis: str
    note: str = ""
    split: list[str] = Field(default_factory=list)
    called: str = ""
    last_first: bool = False
    omit: dict[str, Any] = Field(default_factory=dict)
    logarithmic: bool = False


class Lines(_Figure):
    """Ratios against a column.

    Attributes:
        of: column of the numbers; or several, column → label, a line each.
        along, below, horizontal: column of the horizontal axis, its title and its kind.
        panels, panel: columns; each combination of their values has a panel, and its title with columns in braces.
        series: column whose values have a line each.
        labels: value of the series → label, in the order of colours. Other values follow under their own names.
        reference: value of the series that is drawn in ink: the line to beat.
        crossing: values of the series whose crossings with the reference are marked and told.
        level: label of the line at 1; empty for none.
    """

    kind: Literal["lines"]
    of: str | dict[str, str]
    along: str
    below: str
    horizontal: Literal["whole", "linear", "logarithmic", "density"]
    panels: list[str] = Field(default_factory=list)
    panel: str = ""
    series: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    reference: str = ""
    crossing: list[str] = Field(default_factory=list)
    level: str = ""

    @model_validator(mode="after")
    def _lines_are_told_apart(self) -> "Lines":
        if isinstance(self.of, str) != bool(self.series):
            raise ValueError("needs one column and a series, or several columns without a series")
        if self.crossing and not self.reference:
            raise ValueError("'crossing' needs a reference")
        return self


class Dots(_Figure):
    """Ratios, one a row.

    Attributes:
        of: column of the numbers.
        rows: label of a row, with columns in braces.
        quartiles: column whose last two numbers are quartiles.
        level: where a vertical line is drawn; None for none.
        by_size: whether the largest number comes first, instead of the order of the table.
    """

    kind: Literal["dots"]
    of: str
    rows: str
    quartiles: str = ""
    level: float | None = 1.0
    by_size: bool = False


class Declared(Strict):
    """Figures of tables of one form, or the reason why there is none."""

    tables: list[str] = Field(min_length=1)
    figures: list[Annotated[Lines | Dots, Field(discriminator="kind")]] = Field(default_factory=list)
    without: str = ""

    @model_validator(mode="after")
    def _figures_or_a_reason(self) -> "Declared":
        if bool(self.figures) == bool(self.without):
            raise ValueError("needs figures, or a reason in 'without'")
        return self


class _File(Strict):
    entries: list[Declared]


def declared(path: Path = FILE) -> dict[str, Declared]:
    """The declaration of each table, by the table's name, in the order of the page.

    Raises:
        DescriptionError: the file does not follow its form.
    """
    found = read_description(path, _File)
    return {table: entry for entry in found.entries for table in entry.tables}


def performance_figures(table: Path, entry: Declared) -> list[Figure]:
    """Draw the figures of a table.

    Args:
        table: a CSV file.
        entry: its declaration.

    Raises:
        SelectionError: the table lacks a declared column, or has several rows for a point.
    """
    rows: list[dict[str, Any]] = read_rows(table).to_dict("records")  # type: ignore[assignment]
    figures = []
    for spec in entry.figures:
        _check(table, spec, rows)
        kept = [row for row in rows if not any(row[name] == value for name, value in spec.omit.items())]
        groups = _parted(kept, spec.split)
        for part in reversed(groups) if spec.last_first else groups:
            title = ", ".join(filter(None, (spec.title, spec.called.format(**part[0]))))
            stem = file_stem("measured", table.stem, title)
            figure = _lines(stem, title, spec, part) if isinstance(spec, Lines) else _dots(stem, title, spec, part)
            figures += [figure] if figure is not None else []
    return figures


def crossings(line: _Places, other: _Places) -> list[tuple[float, float]]:
    """Where ``line`` crosses ``other``: places and values, from left to right; a touch alone is no crossing.

    Between neighbouring places that both have, the logarithm of each value is taken as linear in the logarithm of the
    place.

    Args:
        line, other: places and values, all positive, in any order.
    """
    first, second = dict(line), dict(other)
    leads = [(x, math.log(first[x] / second[x])) for x in sorted(first.keys() & second.keys())]
    ahead = next((lead > 0 for _, lead in leads if lead), False)
    found = []
    for (left, lead), (right, next_lead) in pairwise(leads):
        if next_lead and (next_lead > 0) != ahead:
            ahead = not ahead
            share = lead / (lead - next_lead)
            y = second[left] * (second[right] / second[left]) ** share
            found.append((left * (right / left) ** share, y))
    return found


def _lines(stem: str, title: str, spec: Lines, rows: Sequence[_Row]) -> Figure | None:
    groups = _parted(rows, spec.panels)
    values = list(dict.fromkeys(str(row[spec.series]) for row in rows)) if spec.series else []
    known = [*spec.labels, *(value for value in values if value not in spec.labels)]
    panels, told = [], dict[str, list[str]]()
    for part in groups:
        name = spec.panel.format(**part[0])
        if isinstance(spec.of, dict):
            found = {column: _places(part, column, spec) for column in spec.of}
            labels, order = spec.of, list(spec.of)
        else:
            by_value = {v: [row for row in part if str(row[spec.series]) == v] for v in known}
            found = {value: _places(some, spec.of, spec) for value, some in by_value.items()}
            labels, order = spec.labels, known
        looks = _looks(order, spec.reference)
        lines = [Line(labels.get(v, v), _exact(found[v]), looks[v]) for v in order if found[v]]
        if spec.level and lines:
            ends = [x for line in lines for x in line.x]
            level = _exact([(min(ends), 1.0), (max(ends), 1.0)])
            lines.append(Line(spec.level, level, Look(MUTED, dashes=":")))
        marks = []
        for value in spec.crossing:
            if not (found.get(value) and found.get(spec.reference)):
                continue
            met = crossings(found[value], found[spec.reference])
            marks += met
            text = _met(met, found[value], found[spec.reference], spec)
            told.setdefault(labels.get(value, value), []).append(f"{text} ({name})" if name else text)
        if marks:
            lines.append(Line("crossover", _exact(sorted(marks)), Look(INK), mark=True))
        panels += [Panel(name, lines)] if lines else []
    if not panels:
        return None
    rings = any(line.mark for panel in panels for line in panel.lines)
    remarks = [spec.note, *_told(told, spec, rings=rings)]
    chart = Chart(
        panels, spec.below, spec.axis, spec.horizontal, logarithmic=spec.logarithmic, alike=True, remarks=remarks
    )  # fmt: skip
    height = 3.7 if len(panels) == 1 else 1.4 + 2.1 * -(-len(panels) // 3)
    return line_chart(stem, title, chart, height=height)


def _dots(stem: str, title: str, spec: Dots, rows: Sequence[_Row]) -> Figure | None:
    dots = []
    for row in rows:
        ours = Interval.exact(float(row[spec.of])) if is_finite(row[spec.of]) else None
        bar = _quartiles(row[spec.quartiles]) if spec.quartiles else None
        dots.append(Dot(spec.rows.format(**row), ours, exact=True, published=None, quartiles=bar))
    lacking = [dot.label for dot in dots if dot.ours is None]
    after = [f"Not measured: {'; '.join(lacking)}." if lacking else ""]
    drawn = [dot for dot in dots if dot.ours is not None]
    if spec.by_size:
        drawn.sort(key=lambda dot: -dot.ours.mean if dot.ours is not None else 0.0)
    return dot_plot(
        stem, title, drawn, spec.axis, spec.note, after=after, logarithmic=spec.logarithmic, level=spec.level
    )  # fmt: skip


def _check(table: Path, spec: Lines | Dots, rows: Sequence[_Row]) -> None:
    """Refuse columns that the table does not have."""
    columns = list(map(str, rows[0])) if rows else []
    texts = [spec.called, *([spec.panel] if isinstance(spec, Lines) else [spec.rows])]
    wanted = [*spec.split, *spec.omit, *(name for text in texts for name in re.findall(r"{([^}:]+)", text))]
    wanted += list(spec.of) if isinstance(spec.of, dict) else [spec.of]
    if isinstance(spec, Lines):
        wanted += [spec.along, *spec.panels, *([spec.series] if spec.series else [])]
    elif spec.quartiles:
        wanted.append(spec.quartiles)
    for name in wanted:
        if name not in columns:
            raise SelectionError(f"{table.name}, '{spec.title}': {unknown_choice('column', name, columns)}")


def _parted(rows: Sequence[_Row], columns: Sequence[str]) -> list[list[_Row]]:
    """The rows by their values in the columns, in the order of the table."""
    return grouped(rows, lambda row: tuple(row[name] for name in columns))


def _places(rows: Sequence[_Row], of: str, spec: Lines) -> list[tuple[float, float]]:
    """Place and value of each row that has a number, from left to right."""
    found = [(float(row[spec.along]), float(row[of])) for row in rows if is_finite(row[of])]
    if len({x for x, _ in found}) < len(found):
        raise SelectionError(f"'{spec.title}': the declared columns do not tell all rows apart.")
    return sorted(found)


def _exact(places: _Places) -> list[tuple[float, Interval]]:
    return [(x, Interval.exact(y)) for x, y in places]


def _looks(values: Sequence[str], reference: str) -> dict[str, Look]:
    """A colour and a marker for each value, whether it was measured or not, so that they stay when it is."""
    hues = [value for value in values if value != reference]
    found = {v: Look(SERIES[n % len(SERIES)], MARKERS[n % (len(MARKERS) - 1)]) for n, v in enumerate(hues)}
    return found | {reference: Look(INK, MARKERS[-1])}


def _met(met: _Places, line: _Places, other: _Places, spec: Lines) -> str:
    """The places of crossings as text, or which line is above."""
    if met:
        density = spec.horizontal == "density"
        return " and ".join(percent(x, digits=2) if density else f"{x:,.3g}" for x, _ in met)
    values = dict(other)
    shared = [y > values[x] for x, y in line if x in values]
    if not shared:
        return "not comparable"
    return f"{'above' if any(shared) else 'below'} it at all measured points"


def _told(told: Mapping[str, Sequence[str]], spec: Lines, *, rings: bool) -> list[str]:
    """Sentences on crossings: a first one on all, and one for each line."""
    if not told:
        return []
    against = spec.labels.get(spec.reference, spec.reference)
    how = f"Rings: where a line meets “{against}”, interpolated between measured points on logarithmic axes."
    found = [f"{label.capitalize()}: {', '.join(texts)}." for label, texts in told.items()]
    return [how if rings else f"No line meets “{against}”.", *found]


def _quartiles(cell: object) -> tuple[float, float] | None:
    """The last two numbers of a cell such as ``0.62 to 0.71`` or ``0.99 (0.97–1.05)``."""
    numbers = [] if is_missing(cell) else re.findall(r"\d+(?:\.\d+)?", str(cell))
    return (float(numbers[-2]), float(numbers[-1])) if len(numbers) >= 2 else None
