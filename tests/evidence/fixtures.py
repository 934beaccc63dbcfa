"""Synthetic runs, read once, and figures that are looked at instead of written."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import RunTable, load
from sparse_bench.figures import style
from tests.evidence.runs import write_one_width, write_run, write_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep over densities and widths, a failed run and an unfinished one."""
    root = tmp_path_factory.mktemp("sweep")
    write_sweep(root)
    write_run(root, density=0.2, width=64, seed=9, status="failed")
    unfinished = root / "rasa/diet/0123456789ab"
    unfinished.mkdir()
    (unfinished / ".lock").touch()
    return root


@pytest.fixture(scope="session")
def loaded(sweep: Path) -> tuple[RunTable, list[Problem]]:
    """The sweep's runs, and what could not be read."""
    return load([sweep])


@pytest.fixture(scope="session")
def results(loaded: tuple[RunTable, list[Problem]]) -> RunTable:
    """The sweep's runs."""
    return loaded[0]


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> RunTable:
    """Two schemes at three densities of one width."""
    root = tmp_path_factory.mktemp("one_width")
    write_one_width(root)
    return load([root])[0]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Canvases that figures draw on, wide and compact; laying out and writing files, which takes time, is left out."""
    canvases: list[Canvas] = []

    def keep(canvas: Canvas) -> str:
        canvases.append(canvas)
        return '<svg viewBox="0 0 1 1"></svg>'

    monkeypatch.setattr(style, "_fix_layout", lambda canvas: None)
    monkeypatch.setattr(style, "_svg", keep)
    return canvases
