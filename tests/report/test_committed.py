"""What is committed tells what the committed tables say: after `make results` nothing changes."""

from pathlib import Path

import pytest

from sparse_bench.config import choices
from sparse_bench.report.catalog import experiments
from sparse_bench.report.claims.ledger import ledger_csv, ledger_markdown
from sparse_bench.report.claims.schema import FOLDER, read_documents
from sparse_bench.report.claims.verdicts import evaluate
from sparse_bench.report.papers import read_papers
from sparse_bench.report.selection import Evidence
from sparse_bench.report.shipped import ALTERED
from sparse_bench.report.site.content import paper_content
from sparse_bench.report.site.performance import FOLDER as PERFORMANCE
from sparse_bench.report.site.performance import benchmarks
from sparse_bench.report.site.readme import gist, readme, with_gist
from sparse_bench.sweeps import jobs, may_start

ROOT = Path(__file__).resolve().parents[2]
STALE = "is not what the committed tables say; run `make results`"


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="needs the repository's results")
def test_documents_are_current() -> None:
    papers = read_papers(experiments())
    evidence = Evidence.committed(ROOT / "results", papers)
    entries = evaluate(read_documents(FOLDER, list(papers), experiments()), evidence)
    contents = [paper_content(paper, evidence) for paper in papers.values()]
    titles = {name: paper.short for name, paper in papers.items()}
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    expected = {
        "README.md": with_gist(front, gist(contents, entries, "results")),
        "results/README.md": readme(contents, entries, benchmarks(evidence.root / PERFORMANCE)),
        "results/claims.md": ledger_markdown(entries, titles),
        "results/claims.csv": ledger_csv(entries),
    }
    for name, text in expected.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} {STALE}"
    for content in contents:
        for figure in content.figures:
            path = evidence.root / content.paper.name / "figures" / f"{figure.name}.svg"
            assert path.is_file(), f"{path} is missing; run `make results`"


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="needs the repository's results")
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
