"""Fixtures of the runs by hand, and figures without their layout."""

import pytest

from sparse_bench.figures import style
from tests.evidence.fixtures import compared, drawn, loaded, results, sweep

__all__ = ["compared", "drawn", "loaded", "results", "sweep"]


def without_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on figures are drawn, and neither laid out nor written, which takes most of their time."""
    monkeypatch.setattr(style, "_fix_layout", lambda canvas: None)
    monkeypatch.setattr(style, "_svg", lambda canvas: '<svg viewBox="0 0 1 1"></svg>')
