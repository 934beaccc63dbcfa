"""Tables for readers, as data, Markdown and plain text, and the formats of their numbers."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparse_bench.evidence.statistics import Interval

MISSING = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"
#: Below this, three decimals would show a spread as 0.000.
_SMALLEST_SHOWN = 0.0005
#: From this size on a number is written with an exponent, to keep columns narrow.
_LARGEST_SHOWN = 1e9


@dataclass(frozen=True)
class DisplayTable:
    """A table of formatted text.

    Attributes:
        caption: explains the numbers.
        columns: headings [columns].
        rows: cells [rows][columns].
        numeric: for each column, whether it is right-aligned.
        shades: row and column → shade of the cell on a page, 0 (faint) to 9 (strong).
        links: row and column → target of the cell on a page.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    shades: Mapping[tuple[int, int], int] = field(default_factory=dict)
    links: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def without(self, dropped: Sequence[str]) -> "DisplayTable":
        """The table without the columns ``dropped`` and without its caption."""
        kept = [place for place, column in enumerate(self.columns) if column not in dropped]
        rows = [[row[place] for place in kept] for row in self.rows]
        return DisplayTable("", [self.columns[place] for place in kept], rows, [self.numeric[place] for place in kept])


def markdown(table: DisplayTable) -> str:
    """A Markdown table with its caption above."""
    lines = [
        "| " + " | ".join(map(_escaped, table.columns)) + " |",
        "|" + "|".join("---:" if right else "---" for right in table.numeric) + "|",
        *("| " + " | ".join(map(_escaped, row)) + " |" for row in table.rows),
    ]
    return f"{table.caption}\n\n" + "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """A cell with bars, line breaks and HTML tags escaped."""
    return html.escape(cell, quote=False).replace("|", "\\|").replace("\n", " ")


def plain_text(table: DisplayTable) -> str:
    """The table in columns for a terminal, without its caption."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    texts = []
    for line in lines:
        cells = zip(line, widths, table.numeric, strict=True)
        texts.append("  ".join(c.rjust(width) if right else c.ljust(width) for c, width, right in cells).rstrip())
    return "\n".join(texts)


def whole(value: float | None) -> str:
    """Rounded, with thousands separators."""
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def whole_range(values: Sequence[float]) -> str:
    """``1,234``, or ``5 to 1,234``; empty where there are none."""
    if not values:
        return ""
    low, high = whole(min(values)), whole(max(values))
    return low if low == high else f"{low} to {high}"


def decimal(value: float | None, *, signed: bool = False) -> str:
    """Three decimals and thousands separators; an exponent for very large values."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= _LARGEST_SHOWN:
        return f"{value:+.3g}" if signed else f"{value:.3g}"
    text = f"{value:+,.3f}" if signed else f"{value:,.3f}"
    if text.endswith("-0.000"):
        return "+0.000" if signed else "0.000"
    return text.replace("-", "−")


def interval(value: Interval | None, *, signed: bool = False) -> str:
    """``0.843 ± 0.012``, or ``0.843 (n = 1)`` for a single seed."""
    if value is None:
        return MISSING
    mean = decimal(value.mean, signed=signed)
    if value.half_width is None:
        return f"{mean} (n = 1)"
    half = f"{value.half_width:.1g}" if 0.0 < value.half_width < _SMALLEST_SHOWN else decimal(value.half_width)
    return f"{mean} ± {half}"


def setting(value: Any) -> str:
    """A configuration value as text."""
    if value is None:
        return MISSING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def percent(density: float, digits: int = 4) -> str:
    """``0.2`` → ``20 %`` with a no-break space and at most ``digits`` significant digits."""
    return f"{100 * density:.{digits}g}{NO_BREAK}%"


def density_range(densities: Iterable[float | None]) -> str:
    """``14 %``, or ``1.1 to 4.2 %``; empty if no density is known."""
    known = [density for density in densities if density is not None]
    if not known:
        return ""
    low, high = percent(min(known), digits=3), percent(max(known), digits=3)
    return low if low == high else f"{low.split(NO_BREAK)[0]} to {high}"


def duration(seconds: float) -> str:
    """``5 h 12 min``, ``3 min 20 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def joined(parts: Sequence[str]) -> str:
    """Join sentences with spaces; empty ones are skipped."""
    return " ".join(part for part in parts if part)
