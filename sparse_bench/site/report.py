"""A report of one's own runs: tables, figures and one page, from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.evidence import names
from sparse_bench.evidence.arms import Study, studies_of
from sparse_bench.evidence.display import markdown
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import FILES, WARNINGS, RunTable, csv_text, curves_kept, write
from sparse_bench.evidence.tables import facts, provenance, summary_frame
from sparse_bench.figures.single_run import study_portraits
from sparse_bench.figures.study import followed_metrics
from sparse_bench.record import FAILED
from sparse_bench.site.content import SectionContent, add_study
from sparse_bench.site.pages import section_parts
from sparse_bench.site.render import environment


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        paths: every file, in the order of writing.
        metrics: those reported.
        studies: those found.
    """

    paths: Sequence[Path]
    metrics: Sequence[str]
    studies: Sequence[Study]


def write_report(
    table: RunTable, out: Path, problems: list[Problem], metrics: Sequence[str] = (), title: str | None = None
) -> Report:
    """Write the tables, ``summary.csv``, ``summary.md``, ``figures/`` and ``index.html`` into ``out``.

    Args:
        table: the runs, as :func:`sparse_bench.evidence.store.load` gives them.
        out: a folder; made if it does not exist.
        problems: what could not be read; what cannot be drawn is added.
        metrics: those to report; by default all of the test split.
        title: of the page; by default the experiment's name.

    Raises:
        UnknownMetricError: no run has measured one of ``metrics``.
    """
    chosen = names.choose(table.metrics, metrics)
    studies = studies_of(table.runs)
    sections = [_section(study, table, chosen, problems) for study in studies]
    experiments = list(dict.fromkeys(study.experiment for study in studies))
    title = title or (experiments[0] if len(experiments) == 1 else f"Results of {len(experiments)} experiments")
    followed = {name for study in studies for name in followed_metrics(study, table.histories, chosen)}

    out.mkdir(parents=True, exist_ok=True)
    write(curves_kept(table, sorted(followed)), out)
    texts = {
        "summary.csv": csv_text(summary_frame(table.runs, chosen)),
        "summary.md": _summary(title, sections),
    }
    written = [*FILES, *texts]
    failed = table.runs[table.runs["status"] == FAILED]
    texts["index.html"] = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            page="index.html",
            root="",
            navigation=[],
            sections=[section_parts(number, section) for number, section in enumerate(sections, start=1)],
            runs=len(table) - len(failed),
            failed=[
                {name: str(row[name]) for name in ("experiment", "id", "seed", "error")} for _, row in failed.iterrows()
            ],
            problems=[*problems, *_repeated_seeds(studies)],
            warnings=_warnings(table),
            made=provenance(table.runs),
            settings=sorted(table.settings.items()),
            files=written,
        )
    )
    paths = [out / name for name in FILES]
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        paths.append(out / name)
    (out / "figures").mkdir(exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        paths.append(out / "figures" / f"{figure.name}.svg")
        paths[-1].write_text(figure.svg, encoding="utf-8")
    for old in (out / "figures").glob("*--*.svg"):  # of an earlier report, which would pass for this one's
        if old not in paths:
            old.unlink()
    return Report(paths, chosen, studies)


def _section(study: Study, table: RunTable, metrics: Sequence[str], problems: list[Problem]) -> SectionContent:
    labels = ", ".join(map(str, study.labels.values()))
    found = SectionContent(f"{study.experiment} ({labels})" if labels else study.experiment)
    ids = {run for arm in study.arms for run in arm.ids}
    runs = table.runs[(table.runs["experiment"] == study.experiment) & table.runs["id"].isin(ids)]
    found.facts = facts(runs, metrics)
    add_study(found, study, table, metrics, curves=True)
    found.figures += study_portraits(study, table, problems)
    return found


def _summary(title: str, sections: Sequence[SectionContent]) -> str:
    parts = [f"# {title}\n"]
    for section in sections:
        parts += [f"## {section.heading}\n", *map(markdown, section.tables)]
    return "\n".join(parts)


def _warnings(table: RunTable) -> list[str]:
    """What a reader must know before trusting a comparison."""
    values = {name: [value for value, _ in found] for name, found in provenance(table.runs)}
    found = []
    if "True" in values.get("uncommitted changes in the code", []):
        found.append("Some runs were made with uncommitted changes: their commit alone does not reproduce them.")
    if len(commits := values.get("code, at commit", [])) > 1:
        found.append(f"The runs were made at {len(commits)} different commits of the code.")
    if len(values.get("data, digest of checksums", [])) > 1 and table.runs["experiment"].nunique() == 1:
        found.append("Not all runs read the same data.")
    machines = [values.get(name, []) for name in ("processor", "device", "threads")]
    if any(len(kinds) > 1 for kinds in machines):
        found.append("The runs were made on several kinds of machine or settings of threads: compare times with care.")
    if WARNINGS in table.runs:
        found += sorted(set(table.runs[WARNINGS].dropna()))
    return found


def _repeated_seeds(studies: Sequence[Study]) -> list[Problem]:
    """A warning for each arm in which a seed finished more than once: such runs are averaged, not counted twice."""
    problems = []
    for arm in (arm for study in studies for arm in study.arms):
        counts = arm.runs["seed"].value_counts().sort_index()
        for seed, count in counts[counts > 1].items():
            ids = ", ".join(arm.runs.loc[arm.runs["seed"] == seed, "id"])
            reason = f"Seed {seed} of one arm finished {count} times ({ids}); its mean counts once."
            problems.append(Problem(arm.experiment, reason))
    return problems
