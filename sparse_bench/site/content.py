"""Content of a page: sections with figures, tables, and a list of what was not run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparse_bench.benchmark.content import Content
from sparse_bench.benchmark.content import content as benchmark_content
from sparse_bench.config.catalog import experiments
from sparse_bench.errors import unknown_choice
from sparse_bench.evidence import names, single_runs
from sparse_bench.evidence.arms import Arm, Study, arms_of, studies_of
from sparse_bench.evidence.compare import Evidence, one_arm, remarks_on
from sparse_bench.evidence.display import DisplayTable
from sparse_bench.evidence.ledger import verdict_text
from sparse_bench.evidence.store import RunTable
from sparse_bench.evidence.tables import (
    AT_LAST,
    arms_table,
    density_table,
    differences_table,
    each_run_table,
    facts,
    measured_metrics,
    provenance,
    with_last_epochs,
)
from sparse_bench.evidence.verdicts import VERDICTS, Entry
from sparse_bench.figures.described import dots_figure, lines_figure
from sparse_bench.figures.section import SectionContent
from sparse_bench.figures.single_run import portrait_figure
from sparse_bench.figures.study import evolution_figure, followed_metrics, learning_curves, metric_figure
from sparse_bench.figures.style import Figure, file_stem
from sparse_bench.papers import BENCHMARK
from sparse_bench.papers.page import Dots, Paper, Section, SingleRun, Studies
from sparse_bench.papers.schema import ORIGINS, DescriptionError


@dataclass(frozen=True)
class PaperContent:
    """Content of a paper's page.

    Attributes:
        paper: description of the page.
        table: the committed runs; None without any.
        sections: parts of the page.
        made: code, machine and data behind the numbers: name, and values with their numbers of runs.
        files: texts of further tables for the folder of results, by file name.
    """

    paper: Paper
    table: RunTable | None
    sections: Sequence[SectionContent]
    made: Sequence[tuple[str, Sequence[tuple[str, int]]]]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        """All figures of the page."""
        return [figure for section in self.sections for figure in section.figures]

    @property
    def main(self) -> Figure | None:
        """The figure that stands for the page on the overview; None without figures."""
        chosen = [figure for section in self.sections for figure in section.main]
        return next(iter([*chosen, *self.figures]), None)


def paper_content(paper: Paper, evidence: Evidence) -> PaperContent:
    """Build the content of the page of ``paper``."""
    table = evidence.tables.get(paper.name)
    sections = [_section(section, paper, evidence, table) for section in paper.sections]
    if table is None:
        return PaperContent(paper, None, sections, [])
    first = benchmark_content(table, evidence.root / paper.name) if paper.name == BENCHMARK else Content([], {})
    return PaperContent(paper, table, [*first.parts, *sections], provenance(table.runs), first.files)


def _section(section: Section, paper: Paper, evidence: Evidence, table: RunTable | None) -> SectionContent:
    found = SectionContent(section.heading, section.text, section.command)
    part = table.only(section.experiments) if table is not None else None
    metrics = list(section.metrics)
    if part is not None and len(part):
        part, metrics = with_last_epochs(part, section.metrics)
        found.facts = facts(part.runs, metrics)
    else:
        part = None
    for spec in section.figures:
        if isinstance(spec, Studies):
            if part is None:
                continue
            before = len(found.figures)
            for study in sorted(studies_of(part.runs), key=_reduced):
                add_study(found, study, part, metrics, curves=spec.curves)
            found.main += found.figures[before:] if spec.main else []
            continue
        if isinstance(spec, SingleRun):
            kept = single_runs.find(spec, evidence, single_runs.read(evidence.root / paper.name))
            chosen = evidence.runs(spec.target)
            label = ", ".join([spec.title, *(remarks_on(chosen.runs) if chosen is not None else ())])
            figure = portrait_figure(kept, label, file_stem(paper.name, spec.title)) if kept is not None else None
        elif isinstance(spec, Dots):
            figure, numbers = dots_figure(spec, evidence, paper)
            found.tables.append(numbers)
        else:
            figure = lines_figure(spec, evidence, paper)
        if figure is None:
            found.lacking.append(f"{spec.title}: not run.")
            continue
        found.figures.append(figure)
        found.front += [(figure, spec.front)] if spec.front else []
        found.main += [figure] if spec.main else []
    if part is not None:
        if not any(isinstance(spec, Studies) for spec in section.figures):
            found.tables += _arms(part, metrics, section, evidence)
        if section.each_run:
            found.tables.append(each_run_table(part.runs, section.each_run))
    known = set(part.runs["experiment"]) if part is not None else set()
    if missing := [name for name in section.experiments if name not in known]:
        found.lacking.append(f"Not run: {', '.join(missing)}.")
    return found


def add_study(found: SectionContent, study: Study, table: RunTable, metrics: Sequence[str], *, curves: bool) -> None:
    """Add the default figures and tables of a study to a section.

    Args:
        found: the section.
        study: the arms to show.
        table: the runs, with their learning curves.
        metrics: metrics to show.
        curves: whether to draw learning curves.
    """
    measured, histories = measured_metrics(study.arms, metrics), table.histories
    drawn = [metric_figure(study, metric) for metric in measured]
    if curves:
        followed = followed_metrics(study, histories, [metric.removesuffix(AT_LAST) for metric in measured])
        drawn += [learning_curves(study, histories, name) for name in followed]
    drawn.append(evolution_figure(study, histories))
    found.figures += [figure for figure in drawn if figure is not None]
    dense = [curve for curve in study.curves if curve.kind == "dense"]
    tables: list[DisplayTable | None] = [arms_table(study.arms, measured)]
    if study.one_width and len(dense) == 1:
        tables.append(differences_table(study.arms, dense[0].arms[0], "the dense arm", measured))
    tables.append(density_table(study, measured))
    found.tables += [_titled(one, study.experiment) for one in tables if one is not None]


def _arms(part: RunTable, metrics: Sequence[str], section: Section, evidence: Evidence) -> list[DisplayTable]:
    """Tables of the arms, of their differences to the section's reference arm, and of the smallest good density."""
    arms = sorted(arms_of(part.runs), key=_reduced)
    tables: list[DisplayTable | None] = [arms_table(arms, measured_metrics(arms, metrics))]
    target = section.against.only() if section.against is not None else None
    chosen = evidence.runs(target) if target is not None else None
    if chosen is not None:
        with_curves, _ = with_last_epochs(chosen, section.metrics)
        tables.append(differences_table(arms, one_arm(with_curves.runs), str(target), metrics))
    for study in studies_of(part.runs):
        if len({arm.mean(names.DENSITY) for arm in study.arms}) > 2:
            smallest = density_table(study, measured_metrics(study.arms, metrics))
            tables.append(smallest and _titled(smallest, study.experiment))
    return [table for table in tables if table is not None]


def _titled(table: DisplayTable, name: str) -> DisplayTable:
    return replace(table, caption=f"{name}. {table.caption}")


def _reduced(group: Arm | Study) -> bool:
    """Whether an arm or a study is at reduced scale; such ones come last."""
    return experiments().get(group.experiment) == "reduced"


def findings(paper: Paper, entries: Sequence[Entry]) -> list[str]:
    """The findings of ``paper`` whose claims all have the verdicts that they rest on.

    Args:
        paper: description of the page.
        entries: all decided claims.

    Raises:
        DescriptionError: a finding names an unknown claim of the paper or an unknown verdict; the message lists the
            valid choices.
    """
    verdicts = {entry.claim.id: verdict_text(entry) for entry in entries if entry.document == paper.name}
    valid = [*VERDICTS, *(f"{verdict} ({scale})" for verdict in VERDICTS for scale in ORIGINS if scale != "paper")]
    for finding in paper.findings:
        for claim, verdict in finding.rests_on.items():
            if claim not in verdicts:
                raise DescriptionError(f"{paper.name}, findings: {unknown_choice('claim', claim, verdicts)}")
            if verdict not in valid:
                raise DescriptionError(f"{paper.name}, findings: {unknown_choice('verdict', verdict, valid)}")
    return [
        finding.text.strip()
        for finding in paper.findings
        if all(verdicts[claim] == verdict for claim, verdict in finding.rests_on.items())
    ]
