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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.ledger import VERDICT_RULE
from sparse_bench.evidence.store import FILES
from sparse_bench.evidence.verdicts import Entry
from sparse_bench.figures.style import write_figures
from sparse_bench.papers import BENCHMARK
from sparse_bench.papers.page import Paper
from sparse_bench.record import write_atomically, write_together
from sparse_bench.site.content import PaperContent, findings, paper_content
from sparse_bench.site.measurements import FOLDER, Measurement, measurements_in, reports_in
from sparse_bench.site.readme import readme, summary, with_summary
from sparse_bench.site.render import environment
from sparse_bench.site.runs import run_entries

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
    measurements = measurements_in(evidence.root / FOLDER)
    paths = _write_pages(out, page_texts(evidence.root, contents, entries, measurements))
    drawn = {content.paper.name: content.figures for content in contents}
    drawn[FOLDER] = [figure for measured in measurements for figure in measured.figures]
    for name, figures in drawn.items():
        paths += write_figures(out / "figures" / name, figures)
    for content in contents:
        folder = evidence.root / content.paper.name
        write_together({folder / file: text.encode() for file, text in content.files.items()})
        copied = [*_tables(folder, content), *(file for report in reports_in(folder) for file in report.files)]
        paths += _copy(copied, out / "data" / content.paper.name)
    paths += _copy([file for measured in measurements for file in measured.files], out / "data" / FOLDER)
    for name, figures in drawn.items():
        paths += write_figures(evidence.root / name / "figures", figures)
    listed = readme(contents, entries, measurements)
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
    own = {paper.name: [entry for entry in entries if entry.document == paper.name] for paper in papers}
    told = {paper.name: findings(paper, entries) for paper in papers}
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
        papers=[(content, own[content.paper.name], told[content.paper.name]) for content in contents],
        entries=entries,
        verdict_rule=VERDICT_RULE,
        runs=sum(len(content.table.runs) for content in contents if content.table is not None),
    )
    # Each paper has a page, a list of its runs, and a page a run.
    for content in contents:
        paper, folder = content.paper, results / content.paper.name
        render(
            f"{paper.name}.html",
            "paper.html.j2",
            title=paper.title,
            paper=paper,
            sections=content.sections,
            findings=told[paper.name],
            entries=own[paper.name],
            made=content.made,
            reports=reports_in(folder),
            files=_tables(folder, content),
        )
        if content.table is not None:
            runs, shared = run_entries(paper, content.table), sorted(content.table.settings.items())
            render(f"{paper.name}-runs.html", "runs.html.j2", title=f"Runs: {paper.title}", paper=paper, runs=runs)
            for run in runs:
                title = f"{run['experiment']} {run['id']}"
                render(f"{RUN_PAGES}/{run['file']}", "run.html.j2", title=title, paper=paper, run=run, shared=shared)
    render("performance.html", "performance.html.j2", title="Performance", measurements=measurements, folder=FOLDER)
    return texts


def _tables(folder: Path, content: PaperContent) -> list[Path]:
    """The files of a paper's committed runs, and its further tables."""
    if content.table is None:
        return []
    return [*(folder / name for name in FILES if (folder / name).is_file()), *(folder / name for name in content.files)]


def _write_pages(out: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write the pages, and remove pages of runs that are gone."""
    (out / RUN_PAGES).mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*-runs.html"), *out.glob(f"{RUN_PAGES}/*.html")):
        if old.relative_to(out).as_posix() not in texts:
            old.unlink()
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def _copy(files: Sequence[Path], folder: Path) -> list[Path]:
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / path.name)) for path in files]
