"""Reports over synthetic runs, built once, and claims by hand."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.report import style
from sparse_bench.report.build import Report, build
from sparse_bench.report.claims.schema import Document, read_documents
from sparse_bench.report.load import Results, load
from tests.report.example_site import Site, make_site
from tests.report.runs import write_one_width, write_run, write_sweep

#: Experiments that claims by hand speak of.
KNOWN = {"p/x", "p/y", "p/x_small", "p/y_small"}


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
def one_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two schemes at three densities of one width."""
    root = tmp_path_factory.mktemp("one_width")
    write_one_width(root)
    return root


@pytest.fixture(scope="session")
def results(sweep: Path) -> Results:
    """The sweep's runs."""
    return load([sweep])


@pytest.fixture(scope="session")
def compared(one_width: Path) -> Results:
    """The runs of one width."""
    return load([one_width])


@pytest.fixture(scope="session")
def report(results: Results, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A built report of the sweep: its folder and what was written."""
    out = tmp_path_factory.mktemp("report")
    return out, build(results, out, ["test/intent_f1"], "Intents & densities")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Canvases that figures draw on, wide and compact; laying out and writing files, which takes time, is left out."""
    return without_layout(monkeypatch)


def without_layout(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Figures are drawn on these canvases from now on, and neither laid out nor written."""
    canvases: list[Canvas] = []

    def keep(canvas: Canvas) -> str:
        canvases.append(canvas)
        return '<svg viewBox="0 0 1 1"></svg>'

    monkeypatch.setattr(style, "_fix_layout", lambda canvas: None)
    monkeypatch.setattr(style, "_svg", keep)
    monkeypatch.setattr(style, "_png", lambda canvas: b"")
    return canvases


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A built site over two invented papers."""
    return make_site(tmp_path_factory.mktemp("example"))


@pytest.fixture
def documents(tmp_path: Path) -> Callable[..., list[Document]]:
    """A function that makes the document of one claim from its tests."""

    def make(*tests: str, extra: str = "published: more") -> list[Document]:
        listed = "\n".join(f"- {textwrap.dedent(test).strip()}".replace("\n", "\n  ") for test in tests)
        claim = f"id: one\nwhere: here\nquotation: x is better\n{extra}\n"
        claim += f"tests:\n{textwrap.indent(listed, '  ')}\n" if tests else ""
        text = f"document: p\nclaims:\n- {claim.strip()}".replace("\n", "\n  ").replace("\n  claims:", "\nclaims:")
        (tmp_path / "p.yaml").write_text(text.replace("claims:\n  -", "claims:\n-") + "\n")
        return read_documents(tmp_path, ["p"], KNOWN)

    return make
