"""Fixtures of the runs by hand."""

from tests.evidence.fixtures import compared, drawn, loaded, results, sweep

__all__ = ["compared", "drawn", "loaded", "results", "sweep"]
