"""Writes static pages from the committed tables, and the README in the folder of results.

    index.html            overview: findings, a figure for each paper, and the ledger of claims
    NAME.html             a paper: claims, figures with published numbers, tables
    NAME-runs.html        the paper's runs
    runs/*.html           a run: its measurements, learning curves and configuration
    performance.html      speed measurements
    figures/NAME/*.svg    the figures of the pages
    data/                 copies of the tables from which everything was made

The pages load nothing from elsewhere. The only script filters the overview's claims, and the overview works without it.
The same tables give the same bytes.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.ledger import (
    VERDICT_RULE,
    measured,
    revisions,
    rule_text,
    rule_written,
    seeds,
    verdict_text,
)
from sparse_bench.evidence.store import FILES
from sparse_bench.evidence.verdicts import VERDICTS, Entry
from sparse_bench.figures.style import Figure
from sparse_bench.papers import BENCHMARK
from sparse_bench.papers.page import Paper
from sparse_bench.record import write_atomically, write_together
from sparse_bench.site.content import PaperContent, SectionContent, findings, paper_content
from sparse_bench.site.performance import Measurement, measurements_of
from sparse_bench.site.readme import readme, summary, with_summary
from sparse_bench.site.render import environment, figure_parts, table_parts, unbroken
from sparse_bench.site.runs import run_entries, shared_settings
from sparse_bench.site.table_files import FOLDER, TableFile, table_files

#: Folder of the pages of single runs.
RUN_PAGES = "runs"


def build_site(
    evidence: Evidence, papers: Mapping[str, Paper], entries: Sequence[Entry], out: Path, front: Path | None = None
) -> list[Path]:
    """Write the pages into ``out``, and ``README.md`` with its figures into the folder of results.

    Args:
        evidence: the committed tables.
        papers: descriptions by name.
        entries: the decided claims.
        out: folder of the pages, created if missing. Figures of an earlier site are removed.
        front: the project's README, whose part on results is updated.

    Returns:
        Every file written.

    Raises:
        ReadmeError: ``front`` has no lines that mark a part to be written.
    """
    contents = [paper_content(paper, evidence) for paper in papers.values()]
    measurements = measurements_of(evidence.root / FOLDER)
    paths = _write_texts(out, page_texts(evidence.root, contents, entries, measurements))
    drawn = {content.paper.name: content.figures for content in contents}
    drawn[FOLDER] = [figure for measurement in measurements for figure in measurement.figures]
    paths += _write_figures(out / "figures", drawn)
    for content in contents:
        name = content.paper.name
        if content.table is not None:
            paths += _copy(_table_files(evidence.root / name), out / "data" / name)
        if content.files:
            write_together({evidence.root / name / file: text.encode() for file, text in content.files.items()})
            paths += _copy([evidence.root / name / file for file in content.files], out / "data" / name)
        for report in _reports(evidence.root / name):
            paths += _copy(report.files, out / "data" / name)
    for measurement in measurements:
        paths += _copy(measurement.table.files, out / "data" / FOLDER)
    paths += _write_figures(evidence.root, drawn, below="figures")
    listed = readme(contents, entries, table_files(evidence.root / FOLDER))
    write_atomically(evidence.root / "README.md", listed.encode())
    if front is not None:
        written = summary(contents, entries, evidence, Path(os.path.relpath(evidence.root, front.parent)).as_posix())
        write_atomically(front, with_summary(front.read_text(encoding="utf-8"), written).encode())
    return [*paths, evidence.root / "README.md"]


def page_texts(
    results: Path, contents: Sequence[PaperContent], entries: Sequence[Entry], measurements: Sequence[Measurement]
) -> dict[str, str]:
    """Every page as text, by its path below the site.

    Args:
        results: the folder of the committed tables.
        contents: content of the papers' pages.
        entries: the decided claims.
        measurements: the speed measurements, in the order of their page.
    """
    templates = environment()
    papers = [content.paper for content in contents]
    navigation = [("index.html", "Overview"), *((f"{paper.name}.html", paper.short) for paper in papers)]
    navigation.append(("performance.html", "Performance"))
    texts: dict[str, str] = {}

    def render(name: str, template: str, **values: Any) -> None:
        root = "../" * name.count("/")
        texts[name] = templates.get_template(template).render(page=name, root=root, navigation=navigation, **values)

    render(
        "index.html",
        "index.html.j2",
        title="What reproduces",
        documents=sum(paper.name != BENCHMARK for paper in papers),
        benchmark=BENCHMARK if any(paper.name == BENCHMARK for paper in papers) else None,
        papers=[_card(content, entries) for content in contents],
        claims=[(paper, [_claim(entry) for entry in _of(entries, paper)]) for paper in papers],
        totals=_totals(entries),
        verdict_rule=VERDICT_RULE,
        revisions=revisions(entries),
        runs=sum(len(content.table.runs) for content in contents if content.table is not None),
    )
    # Each paper has a page, a list of its runs, and a page a run.
    for content in contents:
        paper = content.paper
        render(
            f"{paper.name}.html",
            "paper.html.j2",
            title=paper.title,
            paper=paper,
            sections=[section_parts(number, section) for number, section in enumerate(content.sections, start=1)],
            findings=findings(paper, entries),
            claims=[_claim(entry) for entry in _of(entries, paper)],
            totals=_totals(_of(entries, paper)),
            made=content.made,
            reports=_reports(results / paper.name),
            files=_table_files(results / paper.name, content.files) if content.table is not None else [],
        )
        if content.table is not None:
            runs, shared = run_entries(paper, content.table), shared_settings(content.table)
            render(f"{paper.name}-runs.html", "runs.html.j2", title=f"Runs: {paper.title}", paper=paper, runs=runs)
            for run in runs:
                title = f"{run.experiment} {run.id}"
                render(f"{RUN_PAGES}/{run.file}", "run.html.j2", title=title, paper=paper, run=run, shared=shared)
    tables = [(measured.table, [figure_parts(one) for one in measured.figures]) for measured in measurements]
    render("performance.html", "performance.html.j2", title="Performance", benchmarks=tables, folder=FOLDER)
    return texts


def _of(entries: Sequence[Entry], paper: Paper) -> list[Entry]:
    return [entry for entry in entries if entry.document == paper.name]


def _totals(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    counts = Counter(entry.verdict for entry in entries)
    return [(verdict, counts[verdict]) for verdict in VERDICTS]


def _card(content: PaperContent, entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "paper": content.paper,
        "figure": None if content.main is None else figure_parts(content.main),
        "findings": findings(content.paper, entries),
        "totals": _totals(_of(entries, content.paper)),
        "runs": 0 if content.table is None else len(content.table.runs),
    }


def _claim(entry: Entry) -> dict[str, Any]:
    outcomes = [
        {
            "scale": outcome.test.scale,
            "judged": outcome.judged,
            "measured": unbroken(measured(outcome)),
            "seeds": seeds(outcome),
        }
        for outcome in entry.shown
    ]
    rules = (*entry.claim.tests, *entry.claim.beside)
    return {
        "id": entry.claim.id,
        "text": unbroken(entry.claim.text),
        "where": entry.claim.where,
        "published": unbroken(entry.claim.published),
        "note": entry.claim.note,
        "revised": entry.claim.revised,
        "written": rule_written(entry),
        "untestable": entry.claim.untestable,
        "verdict": entry.verdict,
        "verdict_text": verdict_text(entry),
        "outcomes": outcomes,
        "rules": [unbroken(rule_text(test)) for rule in rules for test in rule.resolved()],
        "notes": [unbroken(rule.note) for rule in rules if rule.note],
    }


def section_parts(number: int, content: SectionContent) -> dict[str, Any]:
    """The values of a section that a template needs."""
    return {
        "anchor": f"section-{number}",
        "heading": content.heading,
        "text": content.text,
        "command": content.command,
        "facts": content.facts,
        "figures": [figure_parts(figure) for figure in content.figures],
        "tables": [table_parts(table) for table in content.tables],
        "lacking": content.lacking,
    }


def _reports(folder: Path) -> list[TableFile]:
    """Further measurements of a paper, as Markdown files in its folder, without the summary of its runs."""
    return [report for report in table_files(folder, (".md",)) if report.name != "summary"]


def _table_files(folder: Path, more: Iterable[str] = ()) -> list[Path]:
    return [*(folder / name for name in FILES if (folder / name).is_file()), *(folder / name for name in more)]


def _write_texts(out: Path, texts: Mapping[str, str]) -> list[Path]:
    (out / RUN_PAGES).mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*-runs.html"), *out.glob(f"{RUN_PAGES}/*.html")):
        if old.relative_to(out).as_posix() not in texts:
            old.unlink()
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def _write_figures(root: Path, drawn: Mapping[str, Sequence[Figure]], below: str = "") -> list[Path]:
    """Write each page's figures as SVG, and remove old ones that no page has now."""
    paths = []
    for name, figures in drawn.items():
        folder = root / name / below
        written = [folder / f"{figure.name}.svg" for figure in figures]
        for path in folder.glob("*--*.svg"):
            if path not in written:
                path.unlink()
        if written:
            folder.mkdir(parents=True, exist_ok=True)
        for path, figure in zip(written, figures, strict=True):
            path.write_text(figure.svg, encoding="utf-8")
        paths += written
    return paths


def _copy(files: Sequence[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / path.name)) for path in files]
