"""A report of one's own runs: tables, figures and one page, from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from sparse_bench.benchmark.content import Content
from sparse_bench.config import CONF, choices
from sparse_bench.evidence import names
from sparse_bench.evidence.arms import Study, studies_of
from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.evidence.display import interval, joined, markdown, whole
from sparse_bench.evidence.folders import Problem
from sparse_bench.evidence.store import FILES, WARNINGS, RunTable, curves_kept, write
from sparse_bench.evidence.tables import facts, provenance, summary_frame
from sparse_bench.figures.section import SectionContent
from sparse_bench.figures.single_run import study_portraits
from sparse_bench.figures.study import followed_metrics
from sparse_bench.figures.style import write_figures
from sparse_bench.record import FAILED
from sparse_bench.site.content import add_study
from sparse_bench.site.render import environment


@dataclass(frozen=True)
class Report:
    """A written report: its files in the order of writing, and the metrics and studies in it."""

    paths: Sequence[Path]
    metrics: Sequence[str]
    studies: Sequence[Study]


def write_report(
    table: RunTable,
    out: Path,
    problems: list[Problem],
    metrics: Sequence[str] = (),
    title: str | None = None,
    compared: Content | None = None,
) -> Report:
    """Write the tables, ``summary.csv``, ``summary.md``, ``figures/`` and ``index.html`` into ``out``.

    Args:
        table: the runs, as :func:`sparse_bench.evidence.store.load` gives them.
        out: folder of the report, created if missing.
        problems: what could not be read. What cannot be drawn is added.
        metrics: metrics to report; by default all of the test split.
        title: title of the page; by default the experiment's name.
        compared: parts that the page shows first: these runs next to those of the benchmark.

    Raises:
        UnknownMetricError: no run has measured one of ``metrics``.
    """
    chosen = names.choose(table.metrics, metrics)
    studies = studies_of(table.runs)
    sections = [_section(study, table, chosen, problems) for study in studies]
    if compared is not None:
        sections = [*compared.parts, *sections]
    experiments = list(dict.fromkeys(study.experiment for study in studies))
    title = title or (experiments[0] if len(experiments) == 1 else f"Results of {len(experiments)} experiments")
    followed = {name for study in studies for name in followed_metrics(study, table.histories, chosen)}

    # The tables first: the page links to them.
    out.mkdir(parents=True, exist_ok=True)
    write(curves_kept(table, sorted(followed)), out)
    texts = {
        "summary.csv": csv_text(summary_frame(table.runs, chosen)),
        "summary.md": _summary(title, sections),
        **({f"benchmark_{name}": text for name, text in compared.files.items()} if compared is not None else {}),
    }
    failed = table.runs[table.runs["status"] == FAILED]
    page = environment().get_template("report.html.j2")
    texts["index.html"] = page.render(
        title=title,
        page="index.html",
        root="",
        navigation=[],
        sections=sections,
        runs=len(table) - len(failed),
        failed=failed.to_dict("records"),
        problems=[*problems, *_repeated_seeds(studies)],
        warnings=_warnings(table),
        made=provenance(table.runs),
        settings=sorted(table.settings.items()),
        files=[*FILES, *texts],
    )
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    figures = write_figures(out / "figures", [figure for section in sections for figure in section.figures])
    return Report([*(out / name for name in (*FILES, *texts)), *figures], chosen, studies)


def _section(study: Study, table: RunTable, metrics: Sequence[str], problems: list[Problem]) -> SectionContent:
    experiment, *labels = study.names
    found = SectionContent(f"{experiment} ({', '.join(labels)})" if labels else experiment)
    ids = {run for arm in study.arms for run in arm.ids}
    runs = table.runs[(table.runs["experiment"] == study.experiment) & table.runs["id"].isin(ids)]
    found.text = joined([_finding(study, metrics), _described(study)])
    found.facts = facts(runs, metrics)
    add_study(found, study, table, metrics, curves=True)
    found.figures += study_portraits(study, table, problems)
    return found


def _finding(study: Study, metrics: Sequence[str]) -> str:
    """The best mean of the first measured metric for each curve, as a sentence; empty without a metric."""
    for metric in metrics:
        sign = -1.0 if names.lower_is_better(metric) else 1.0
        parts = []
        for curve in study.curves:
            known = [(arm, value) for arm in curve.arms if (value := arm.interval(f"metric:{metric}")) is not None]
            if known:
                arm, best = max(known, key=lambda pair: sign * pair[1].mean)
                parts.append(f"{curve.title} {interval(best)} with {whole(arm.mean(names.SPARSE_WEIGHTS))} weights")
        if parts:
            return f"Best {names.title(metric)}, with the weights in the sparse layers: {'; '.join(parts)}."
    return ""


def _described(study: Study) -> str:
    """What the model and the dataset are: the comments at the top of their configuration files."""
    texts = []
    for group in ("model", "dataset"):
        label = str(study.labels.get(group))
        if label in choices(group):
            lines = (CONF / group / f"{label}.yaml").read_text(encoding="utf-8").splitlines()
            comment = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda x: x.startswith("#"), lines))
            texts += [f"{group.capitalize()} {label}: {comment}"] if comment else []
    return joined(texts)


def _summary(title: str, sections: Sequence[SectionContent]) -> str:
    parts = [f"# {title}\n"]
    for section in sections:
        parts += [f"## {section.heading}\n", *([f"{section.text}\n"] if section.text else [])]
        parts += map(markdown, section.tables)
    return "\n".join(parts)


def _warnings(table: RunTable) -> list[str]:
    """Warnings that a reader must know before trusting a comparison."""
    values = {name: [value for value, _ in found] for name, found in provenance(table.runs)}
    found = []
    if "True" in values.get("uncommitted changes in the code", []):
        found.append("Some runs were made with uncommitted changes. Their commit alone does not reproduce them.")
    if len(commits := values.get("code, at commit", [])) > 1:
        found.append(f"The runs were made at {len(commits)} different commits of the code.")
    if len(values.get("data, digest of checksums", [])) > 1 and table.runs["experiment"].nunique() == 1:
        found.append("Not all runs read the same data.")
    machines = [values.get(name, []) for name in ("processor", "device", "threads")]
    if any(len(kinds) > 1 for kinds in machines):
        found.append("The runs used several kinds of machine or numbers of threads. Compare times with care.")
    if WARNINGS in table.runs:
        found += sorted(set(table.runs[WARNINGS].dropna()))
    return found


def _repeated_seeds(studies: Sequence[Study]) -> list[Problem]:
    """A warning for each arm and seed that finished more than once. Such runs are averaged, not counted twice."""
    problems = []
    for arm in (arm for study in studies for arm in study.arms):
        counts = arm.runs["seed"].value_counts().sort_index()
        for seed, count in counts[counts > 1].items():
            ids = ", ".join(arm.runs.loc[arm.runs["seed"] == seed, "id"])
            reason = f"Seed {seed} of one arm finished {count} times ({ids}); its mean counts once."
            problems.append(Problem(arm.experiment, reason))
    return problems
