"""Cells of tables, and tables as CSV text.

Numbers are written and read so that the same table always gives the same bytes.
"""

import csv
import io
import json
import math
import numbers
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from sparse_bench.errors import SparseBenchError

_Item = TypeVar("_Item")
#: Columns whose cells are text even where they look like numbers.
_TEXT = re.compile(
    r"experiment|id|status|error|altered|warnings|metric|setting|made:(commit|python|torch|processor|vectors|device|data)"
)
#: Ten significant digits, so that a table written again differs only where results differ.
_DIGITS = "%.10g"


class StoreError(SparseBenchError):
    """There are no runs, or a file is not a table of runs; the message names it."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat |= flatten(value, path) if isinstance(value, Mapping) and value else {path: value}
    return flat


def grouped(items: Iterable[_Item], key: Callable[[_Item], Hashable]) -> list[list[_Item]]:
    """The items with equal keys together, in the order in which the keys appear."""
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def plain(value: Any) -> Any:
    """The value as a cell: lists and mappings as JSON, text on one line, numbers with ten digits."""
    if isinstance(value, list | dict):
        value = json.dumps(value, sort_keys=True)
    if isinstance(value, float):
        return float(f"{value:.10g}")
    return " ".join(value.split()) if isinstance(value, str) else value


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def is_number(value: Any) -> bool:
    """Whether the value is a number. Booleans are not."""
    # The abstract class answers slowly, and tables of many runs ask millions of times.
    return type(value) in (float, int) or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def is_finite(value: Any) -> bool:
    """Whether the value is a number other than NaN and infinity. Booleans are not numbers."""
    return is_number(value) and math.isfinite(value)


def sort_key(value: Any) -> tuple[int, float, str]:
    """Sort key of a cell: missing values first, then numbers by size, then texts. Equal cells have equal keys.

    A text that reads as a number counts as that number.
    """
    if is_missing(value):
        return 0, 0.0, ""
    if is_number(value):
        return 1, float(value), ""
    text = str(plain(value))
    try:
        number = float(text) if text[:1] in "-.0123456789" else math.nan
    except ValueError:
        return 2, 0.0, text
    return (1, number, "") if math.isfinite(number) else (2, 0.0, text)


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV: no index, ten significant digits, Unix newlines."""
    text: str = frame.to_csv(index=False, float_format=_DIGITS, lineterminator="\n")
    return text


def read_rows(path: Path) -> pd.DataFrame:
    """Read a benchmark's CSV file; lines that begin with ``#`` are skipped.

    In a column that holds texts and numbers (``OOM``, ``1.5``), the numbers stay numbers.

    Raises:
        StoreError: the file is incomplete.
    """
    lines = read_text(path).splitlines(keepends=True)
    frame = parse("".join(line for line in lines if not line.startswith("#")), path)
    texts = [
        str(name) for name, kind in frame.dtypes.items() if str(kind) == "string" and not _TEXT.fullmatch(str(name))
    ]
    return frame.assign(**{name: [_number_or_text(cell) for cell in frame[name]] for name in texts})


def _number_or_text(cell: Any) -> Any:
    kind, number, _ = sort_key(cell)
    return number if kind == 1 else cell


def read_text(path: Path) -> str:
    """The text of a file, with its own newlines."""
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def parse(text: str, path: Path | str = "the table", as_text: Iterable[str] = ()) -> pd.DataFrame:
    """Parse CSV text. Columns are nullable integers, floats, booleans or text; empty cells are missing.

    Raises:
        StoreError: the text ends within a line, or a row has too few or too many cells.
    """
    if text and not text.endswith("\n"):
        raise StoreError(f"'{path}' is incomplete: it ends in the middle of a line, without a newline.")
    header, *rows = csv.reader(io.StringIO(text, newline="")) if text else [[]]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise StoreError(f"'{path}' is damaged: row {number} has {len(row)} cells for {len(header)} columns.")
    kinds = {name: "str" for name in header if _TEXT.fullmatch(name) or name in as_text}
    frame = pd.read_csv(
        io.StringIO(text, newline=""),
        dtype=kinds,
        keep_default_na=False,
        na_values=[""],
        dtype_backend="numpy_nullable",
    )
    floats = {name: "float64" for name, kind in frame.dtypes.items() if str(kind) == "Float64"}
    return frame.astype(floats)
