"""Values of configurations and results as cells of a table."""

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

import pandas as pd


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat |= flatten(value, path) if isinstance(value, Mapping) and value else {path: value}
    return flat


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
