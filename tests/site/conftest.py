"""Fixtures of the runs by hand, and what is built of them once."""

from pathlib import Path

import pytest

from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import RunTable
from sparse_bench.site.report import Report, write_report
from tests.evidence.fixtures import compared, drawn, loaded, results, sweep
from tests.site.example_site import Site, make_site

__all__ = ["compared", "drawn", "loaded", "results", "sweep"]


@pytest.fixture(scope="session")
def report(loaded: tuple[RunTable, list[Problem]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A built report of the sweep: its folder and what was written."""
    out = tmp_path_factory.mktemp("report")
    return out, write_report(loaded[0], out, list(loaded[1]), ["test/intent_f1"], "Intents & densities")


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A built site over two invented papers."""
    return make_site(tmp_path_factory.mktemp("example"))
