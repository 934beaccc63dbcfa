"""The page and the folder around it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import RunTable, load
from sparse_bench.site.report import Report, write_report
from tests.evidence.runs import write_run

Built = tuple[Path, Report]


class Elements(HTMLParser):
    """All elements of a page with their attributes; fails where tags do not nest."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def build(
    table: tuple[RunTable, list[Problem]], out: Path, metrics: tuple[str, ...] = (), title: str | None = None
) -> Report:
    return write_report(table[0], out, table[1], metrics, title)


@pytest.fixture(scope="module")
def page(report: Built) -> str:
    return (report[0] / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def test_every_file_is_written(report: Built) -> None:
    out, built = report
    assert sorted(built.paths) == sorted(path for path in out.rglob("*") if path.is_file())
    names = {str(path.relative_to(out)) for path in built.paths}
    stems = [
        "weights--rasa-diet--diet--sara--test-intent-f1",
        "curves--rasa-diet--diet--sara--test-intent-f1",
        "curves--rasa-diet--diet--sara--train-loss",
    ]
    figures = {f"figures/{stem}.svg" for stem in stems}
    assert names == {"runs.csv", "settings.csv", "curves.csv", "summary.csv", "summary.md", "index.html"} | figures
    assert all(path.stat().st_size > 0 for path in built.paths)


def test_every_figure_is_in_the_page_wide_and_compact_with_words(report: Built, elements: Elements) -> None:
    stems = {path.stem for path in report[1].paths if path.suffix == ".svg"}
    assert {attributes["id"] for tag, attributes in elements.found if tag == "figure"} == stems
    drawings = [attributes for tag, attributes in elements.found if tag == "svg"]
    assert len(drawings) == 2 * len(stems)
    assert all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 80 for attributes in drawings)


def test_names_in_the_page_are_unique(elements: Elements) -> None:
    names = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(names) == len(set(names))


def test_links_inside_the_page_lead_somewhere(report: Built, elements: Elements) -> None:
    names = {attributes.get("id") for _, attributes in elements.found}
    for _, attributes in elements.found:
        target = attributes.get("href")
        if target is None:
            continue
        if target.startswith("#"):
            assert target[1:] in names
        else:
            assert (report[0] / target).is_file()
    references = set(re.findall(r"url\(#([^)]+)\)", (report[0] / "index.html").read_text()))
    assert references
    assert references <= names


def test_nothing_is_loaded_from_elsewhere(page: str, elements: Elements) -> None:
    assert not re.search(r"https?://", page)
    assert not re.search(r"@import|@font-face|url\((?!#)", page)
    assert not {tag for tag, _ in elements.found} & {"script", "link", "iframe", "img", "object", "embed"}
    assert not any("src" in attributes for _, attributes in elements.found)


def test_the_page_says_what_was_run_and_how(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Intents &amp; densities",
        "57 finished runs and 1 failed.",
        "Best intent F1 (test), with the weights in the sparse layers: dense",
        "Model diet: DIET, Rasa 2.6",
        "Dataset sara: Sara, the Rasa demo assistant",
        "57 finished, 1 failed",
        "NonFiniteLossError: diverged",
        "rasa/diet/0123456789ab The run has not ended",
        "0123456789abcdef0123456789abcdef01234567",
        "processor Test Processor",
        "torch 2.6.0",
        "trainable weights, all dense.",
    ):
        assert words in text, words


def test_the_page_follows_the_reader_s_theme(page: str, elements: Elements) -> None:
    assert page.count("@media (prefers-color-scheme: dark)") >= 2
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in elements.found
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert ("meta", viewport) in elements.found


def test_the_summary_is_markdown(report: Built) -> None:
    text = (report[0] / "summary.md").read_text(encoding="utf-8")
    assert text.startswith(
        "# Intents & densities\n\n## rasa/diet (diet, sara)\n\nBest intent F1 (test), with the weights"
    )
    assert "\n\nrasa/diet. Mean over seeds ± half-width of the 95 %" in text
    rows = [line for line in text.splitlines() if re.match(r"\| (dense|random connected|small dense) \|", line)]
    assert len(rows) == 19 + 3  # arms, and three widths of sparse models that a dense arm has


def test_regenerated_files_are_the_same_bytes(tmp_path: Path) -> None:
    for seed in (0, 1):
        for density in (1.0, 0.1):
            write_run(tmp_path / "runs", seed=seed, density=density)
    first, second = tmp_path / "first", tmp_path / "second"
    written = build(load([tmp_path / "runs"]), first, ("test/intent_f1",)).paths
    build(load([tmp_path / "runs"]), second, ("test/intent_f1",))
    assert len(written) == 9
    for path in written:
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name


def test_names_and_errors_are_escaped(tmp_path: Path) -> None:
    error = {"type": "ValueError", "message": "<script>alert(1)</script>", "traceback": ""}
    write_run(tmp_path / "runs", history=False)
    write_run(tmp_path / "runs", seed=1, status="failed", error=error, history=False)
    build(load([tmp_path / "runs"]), tmp_path / "out", title="<b>bold</b>")
    page = (tmp_path / "out/index.html").read_text()
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "ValueError: &lt;script&gt;" in page
    Elements(page)


def test_only_failed_runs_still_make_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", status="failed", counts={}, seconds={}, history=False)
    built = build(load([tmp_path / "runs"]), tmp_path / "out")
    names = ["runs.csv", "settings.csv", "curves.csv", "summary.csv", "summary.md", "index.html"]
    assert [path.name for path in built.paths] == names
    page = (tmp_path / "out/index.html").read_text()
    assert "0 finished runs and 1 failed" in page
    Elements(page)


def test_a_broken_learning_curve_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", seed=1)
    folder = write_run(tmp_path / "runs")
    (folder / "metrics.jsonl").write_text("nonsense\n{}\n")
    table, problems = load([tmp_path / "runs"])
    assert list(table.runs["seed"]) == [0, 1], "the run keeps its numbers"
    assert "The learning curve cannot be read and is skipped: metrics.jsonl, line 1" in problems[0].reason


def test_runs_made_differently_are_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", seed=0, git={"commit": "a", "dirty": True}, history=False)
    write_run(
        tmp_path / "runs", seed=1, git={"commit": None, "dirty": None}, data={"nlu.yml": "cd" * 32}, history=False
    )
    other = {"processor": "Other", "cores": 8, "threads": 4, "device": "cpu"}
    write_run(tmp_path / "runs", seed=2, machine=other, warnings=["F1 is odd."], history=False)
    build(load([tmp_path / "runs"]), tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    for words in (
        "uncommitted changes",
        "3 different commits",
        "Not all runs read the same data",
        "several kinds of machine",
        "F1 is odd.",
    ):
        assert words in page, words


def test_a_seed_that_was_run_twice_is_reported(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / "runs" / str(number), id=f"{number:012x}", history=False)
    build(load([tmp_path / "runs"]), tmp_path / "out")
    assert (
        "Seed 0 of one arm finished 2 times (000000000000, 000000000001)" in (tmp_path / "out/index.html").read_text()
    )


def test_figures_of_an_earlier_report_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", history=False)
    figures = tmp_path / "out/figures"
    figures.mkdir(parents=True)
    for name in ("weights--old.svg", "curves--old.svg", "weights--note.txt", "mine.png"):
        (figures / name).touch()
    build(load([tmp_path / "runs"]), tmp_path / "out")
    assert sorted(path.name for path in figures.iterdir()) == ["mine.png", "weights--note.txt"]
