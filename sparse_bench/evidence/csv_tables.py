"""Tables as CSV text. Numbers are written and read so that the same table always gives the same bytes."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.cell_values import sort_key

#: Columns whose cells are text even where they look like numbers.
_TEXT = re.compile(
    r"experiment|id|status|error|altered|warnings|metric|setting|made:(commit|python|torch|processor|vectors|device|data)"
)
#: Ten significant digits, so that a table written again differs only where results differ.
_DIGITS = "%.10g"


class StoreError(SparseBenchError):
    """There are no runs, or a file is not a table of runs; the message names it."""


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
