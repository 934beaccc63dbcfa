"""What is committed tells what the committed tables say: after `make results` nothing changes."""

from pathlib import Path

import pytest

from sparse_bench.report.catalog import experiments
from sparse_bench.report.claims.ledger import ledger_csv, ledger_markdown
from sparse_bench.report.claims.schema import FOLDER, read_documents
from sparse_bench.report.claims.verdicts import evaluate
from sparse_bench.report.papers import read_papers
from sparse_bench.report.selection import Evidence
from sparse_bench.report.site.content import paper_content
from sparse_bench.report.site.performance import FOLDER as PERFORMANCE
from sparse_bench.report.site.performance import benchmarks
from sparse_bench.report.site.readme import gist, readme, with_gist

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
