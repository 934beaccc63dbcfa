"""The page of measurements, and the figures that stand for the papers on the overview."""

import re
from pathlib import Path

from sparse_bench.config.catalog import experiments
from sparse_bench.figures.performance import Declared
from sparse_bench.figures.section import SectionContent
from sparse_bench.figures.style import Figure
from sparse_bench.papers import BENCHMARK
from sparse_bench.papers.page import Paper, read_papers
from sparse_bench.site.content import PaperContent
from sparse_bench.site.measurements import measurements_in
from tests.site.example_site import Site

DOTS = {"kind": "dots", "title": "T", "of": "times", "axis": "times", "rows": "{arm}"}


def test_declared_tables_come_first_and_have_figures(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text("arm,times\nsparse,7.5\n")
    (tmp_path / "d.md").write_text("# Only a page\n")
    entries = {
        "d": Declared.model_validate({"tables": ["d"], "figures": [DOTS]}),
        "absent": Declared.model_validate({"tables": ["absent"], "figures": [DOTS]}),
        "c": Declared.model_validate({"tables": ["c"], "figures": [DOTS]}),
        "b": Declared.model_validate({"tables": ["b"], "without": "No reason."}),
    }
    found = [(one.name, [figure.name for figure in one.figures]) for one in measurements_in(tmp_path, entries)]
    assert found == [("d", []), ("c", ["measured--c--t"]), ("b", []), ("a", [])]


def drawn(name: str) -> Figure:
    drawing = '<svg viewBox="0 0 1 1"></svg>'
    return Figure(name, name, "", "", drawing, drawing)


def test_the_first_main_figure_stands_for_a_page_or_else_its_first(example_site: Site) -> None:
    paper = example_site.papers["first"]
    first, second, third = map(drawn, "abc")
    plain = SectionContent("1", figures=[first])
    assert PaperContent(paper, None, [plain], []).main == first
    marked = SectionContent("2", figures=[second, third], main=[third])
    assert PaperContent(paper, None, [plain, marked], []).main == third
    assert PaperContent(paper, None, [], []).main is None


def main_figures(paper: Paper) -> int:
    return sum(getattr(figure, "main", False) for section in paper.sections for figure in section.figures)


def test_every_paper_names_its_main_figure() -> None:
    papers = read_papers(experiments())
    assert all(main_figures(paper) for name, paper in papers.items() if name != BENCHMARK)


def test_the_overview_has_a_figure_per_paper_that_leads_to_its_page(example_site: Site) -> None:
    text = (example_site.out / "index.html").read_text(encoding="utf-8")
    assert text.index('id="card-first"') < text.index("<figure id=") < text.index('id="card-second"')
    (figure,) = re.findall(r'<figure id="([^"]+)"', text)
    assert "<strong>Accuracy per epoch.</strong>" in text
    assert "dense, published" in text
    assert f'<a href="first.html#{figure}">On its page</a>' in text
    assert f'<figure id="{figure}"' in (example_site.out / "first.html").read_text(encoding="utf-8")
    assert (example_site.out / f"figures/first/{figure}.svg").is_file()


def test_the_lede_counts_documents_and_names_the_benchmark_apart(example_site: Site) -> None:
    text = (example_site.out / "index.html").read_text(encoding="utf-8")
    assert '<p class="lede">2 documents on sparse connectivity' in text
    assert "Apart from them" not in text
