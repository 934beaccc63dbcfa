"""What is committed tells what the committed tables say: after `make results` nothing changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparse_bench.config import choices
from sparse_bench.config.catalog import experiments
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.ledger import ledger_csv, ledger_markdown
from sparse_bench.evidence.store import ALTERED
from sparse_bench.evidence.verdicts import Entry, evaluate
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import read_papers
from sparse_bench.site.content import PaperContent, paper_content
from sparse_bench.site.measurements import FOLDER as PERFORMANCE
from sparse_bench.site.measurements import measurements_in
from sparse_bench.site.pages import page_texts
from sparse_bench.site.readme import readme, summary, with_summary
from sparse_bench.sweeps import jobs, may_start
from tests.figures.conftest import without_layout
from tests.site.browser import brightness, find_browser, measure

ROOT = Path(__file__).resolve().parents[2]
STALE = "is not what the committed tables say; run `make results`"

pytestmark = pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="needs the repository's results")


@dataclass(frozen=True)
class Committed:
    """The committed tables and what they give: the papers' pages and the decided claims."""

    evidence: Evidence
    contents: Sequence[PaperContent]
    entries: Sequence[Entry]


def content_of_the_tables() -> Committed:
    papers = read_papers(experiments())
    evidence = Evidence.committed(ROOT / "results", papers)
    entries = evaluate(read_claims(experiments()), evidence)
    return Committed(evidence, [paper_content(paper, evidence) for paper in papers.values()], entries)


@pytest.fixture(scope="module")
def committed() -> Committed:
    """Made once, with figures that are not laid out, which takes most of a minute."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_layout(monkeypatch)
        return content_of_the_tables()


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


@pytest.fixture(scope="module")
def pages(browser: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The papers' pages, the overview and the page of measurements as files."""
    folder, whole = tmp_path_factory.mktemp("pages"), content_of_the_tables()
    measurements = measurements_in(whole.evidence.root / PERFORMANCE)
    texts = page_texts(whole.evidence.root, whole.contents, whole.entries, measurements)
    names = [content.paper.name for content in whole.contents]
    found = [folder / f"{name}.html" for name in (*names, "index", "performance")]
    for page in found:
        page.write_text(texts[page.name], encoding="utf-8")
    return found


@pytest.mark.slow
def test_documents_are_current(committed: Committed) -> None:
    titles = {content.paper.name: content.paper.short for content in committed.contents}
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    measurements = measurements_in(committed.evidence.root / PERFORMANCE)
    expected = {
        "README.md": with_summary(front, summary(committed.contents, committed.entries, committed.evidence, "results")),
        "results/README.md": readme(committed.contents, committed.entries, measurements),
        "results/claims.md": ledger_markdown(committed.entries, titles),
        "results/claims.csv": ledger_csv(committed.entries),
    }
    for name, text in expected.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} {STALE}"
    for content in committed.contents:
        for figure in content.figures:
            path = committed.evidence.root / content.paper.name / "figures" / f"{figure.name}.svg"
            assert path.is_file(), f"{path} is missing; run `make results`"
    folder = committed.evidence.root / PERFORMANCE / "figures"
    drawn = {f"{figure.name}.svg" for measured in measurements for figure in measured.figures}
    assert drawn == {path.name for path in folder.glob("*.svg")}, f"{folder} {STALE}"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk, light", "phone, dark"])
def test_the_pages_fit_the_screen(
    browser: str, committed: Committed, pages: list[Path], tmp_path: Path, width: int, dark: bool
) -> None:
    results = measure(browser, pages, tmp_path, width, dark)
    figures = {content.paper.name: len(content.figures) for content in committed.contents}
    figures["index"] = sum(content.main is not None for content in committed.contents)
    measured = measurements_in(committed.evidence.root / PERFORMANCE)
    figures["performance"] = sum(len(measurement.figures) for measurement in measured)
    assert figures["index"] >= 5
    assert figures["performance"] >= len(measured) - 1
    for page, found in zip(pages, results, strict=True):
        assert found["client"] == width, page.name
        assert found["scroll"] <= width, f"{page.name} scrolls sideways"
        assert found["figures"] == len(found["shown"]) == figures[page.stem], page.name
        assert found["compact"] is (width < 500) or not figures[page.stem]
        assert found["inside"], f"in {page.name} text leaves its figure"
        assert found["letters"] >= 10, f"in {page.name} letters are too small to read"
        assert (brightness(found["background"]) < 3 * 60) is dark
        assert (brightness(found["ink"]) > 3 * 128) is dark


@pytest.mark.slow
def test_sweeps_still_start_the_runs_that_are_committed(tmp_path: Path) -> None:
    """A setting that renames runs would have them all made again, and would leave the committed ones behind."""
    tables = Evidence.committed(ROOT / "results", read_papers(experiments())).tables.values()
    committed: dict[str, set[str]] = {}
    for table in tables:
        # A second stage's name holds its first one's, whose folder is not here.
        own = table.runs[table.runs[ALTERED].isna() & ~table.runs["experiment"].str.endswith("_finetune")]
        for experiment, run in zip(own["experiment"], own["id"], strict=True):
            committed.setdefault(experiment, set()).add(run)
    sweeps = {sweep for sweep in choices("sweep") for experiment in committed if may_start(sweep, experiment)}
    started: dict[str, set[str | None]] = {}
    for sweep in sweeps:
        for job in jobs(sweep, tmp_path):
            started.setdefault(job.experiment, set()).add(job.id)
    assert not {experiment for experiment, runs in committed.items() if not runs <= started.get(experiment, set())}
