"""What a paper's page shows: its sections with figures, tables and what has not been run."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from sparse_bench.errors import unknown_choice
from sparse_bench.record import FINISHED
from sparse_bench.report import metric_names
from sparse_bench.report.arms import (
    DENSITY,
    SPARSE_WEIGHTS,
    TRAINABLE,
    WARNINGS,
    Arm,
    arms_of,
    identifying_settings,
    studies_of,
    warned,
)
from sparse_bench.report.beside import Shown, curve_figure, epochs_figure
from sparse_bench.report.catalog import scale
from sparse_bench.report.densities import density_table
from sparse_bench.report.figures import study_figure
from sparse_bench.report.learning_curves import followed_metrics, learning_curves
from sparse_bench.report.papers import Along, Epochs, OneRun, Paper, Section, Studies
from sparse_bench.report.portraits import portrait_figure
from sparse_bench.report.portraits import read as read_portraits
from sparse_bench.report.provenance import duration
from sparse_bench.report.selection import Evidence, Runs, SelectionError, one_arm
from sparse_bench.report.shipped import ALTERED
from sparse_bench.report.style import Figure
from sparse_bench.report.tables import (
    DENSITIES,
    MISSING,
    PAIRED,
    REALISED,
    DisplayTable,
    comparison_table,
    decimal,
    densities,
    differences,
    mean_of_seeds,
    setting,
    study_table,
    whole,
    with_warnings,
)
from sparse_bench.report.tidy import Tables
from sparse_bench.report.topology import evolution_figure
from sparse_bench.report.values import values_figure

#: Where the table of runs says what each was made on.
DEVICE = "made:device"
#: What a metric is called whose last value along the learning curves stands for it.
AT_LAST = " at the last epoch"


@dataclass(frozen=True)
class SectionContent:
    """A part of a page.

    Attributes:
        section: what was asked for.
        facts: what was run, in short.
        figures: in the order of the description.
        front: those that may stand in the project's README, each with what is said of it there.
        tables: arms, comparisons, densities; each with a caption.
        lacking: what could not be drawn because it has not been run, as sentences.
    """

    section: Section
    facts: Sequence[tuple[str, str]]
    figures: Sequence[Figure] = field(default_factory=list)
    front: Sequence[tuple[Figure, str]] = field(default_factory=list)
    tables: Sequence[DisplayTable] = field(default_factory=list)
    lacking: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class PaperContent:
    """A page.

    Attributes:
        paper: its description.
        tables: the committed tables; None if nothing has been run.
        sections: its parts.
        made: what stands behind the numbers: name → values with their number of runs.
    """

    paper: Paper
    tables: Tables | None
    sections: Sequence[SectionContent]
    made: Sequence[tuple[str, Sequence[tuple[str, int]]]]

    @property
    def figures(self) -> list[Figure]:
        """All figures of the page."""
        return [figure for section in self.sections for figure in section.figures]


def paper_content(paper: Paper, evidence: Evidence) -> PaperContent:
    """Everything that the page of ``paper`` shows."""
    tables = evidence.tables.get(paper.name)
    sections = [_section(section, paper.name, evidence, tables) for section in paper.sections]
    return PaperContent(paper, tables, sections, _made(tables.runs) if tables is not None else [])


def _section(section: Section, paper: str, evidence: Evidence, tables: Tables | None) -> SectionContent:
    part = tables.only(section.experiments) if tables is not None else None
    metrics: Sequence[str] = section.metrics
    if part is not None:
        part, metrics = with_last_epochs(part, section.metrics)
    figures: list[Figure] = []
    front: list[tuple[Figure, str]] = []
    shown_tables: list[DisplayTable] = []
    lacking: list[str] = []
    has_studies = any(isinstance(spec, Studies) for spec in section.figures)
    for spec in section.figures:
        if isinstance(spec, Studies):
            if part is not None and len(part.runs):
                drawn, written = _studies(part, metrics, curves=spec.curves)
                figures += drawn
                shown_tables += written
            continue
        if isinstance(spec, OneRun):
            drawn_run = portrait_figure(spec, evidence, read_portraits(evidence.root / paper), paper)
            figures += [drawn_run] if drawn_run is not None else []
            lacking += [f"{spec.title}: not run."] if drawn_run is None else []
            continue
        shown: Shown
        if isinstance(spec, Epochs):
            shown = epochs_figure(spec, evidence, paper)
        elif isinstance(spec, Along):
            shown = curve_figure(spec, evidence, paper)
        else:
            shown = values_figure(spec, evidence, paper)
        figures += [shown.figure] if shown.figure is not None else []
        front += [(shown.figure, spec.front)] if shown.figure is not None and spec.front else []
        shown_tables += [shown.table] if shown.table is not None else []
        if shown.figure is None:
            lacking.append(f"{shown.title}: not run.")
    if part is not None and len(part.runs) and not has_studies:
        shown_tables.append(arms_table(part.runs, metrics))
        shown_tables += _compared(part.runs, metrics, section, evidence)
    if part is not None and len(part.runs) and section.each_run:
        shown_tables.append(each_run_table(part.runs, section.each_run))
    known = set(part.runs["experiment"]) if part is not None else set()
    if missing := [name for name in section.experiments if name not in known]:
        lacking.append(f"Not run: {', '.join(missing)}.")
    facts = _facts(part.runs, metrics) if part is not None and len(part.runs) else []
    return SectionContent(section, facts, figures, front, shown_tables, lacking)


def with_last_epochs(tables: Tables, metrics: Sequence[str]) -> tuple[Tables, list[str]]:
    """The tables with a column for each metric that only learning curves hold, and the names to look for.

    Such a metric (accuracy in training, for one) is what it was at a run's last epoch, and its name says so.
    """
    runs, names = tables.runs, []
    for metric in metrics:
        column, followed = f"metric:{metric}", tables.curves[tables.curves["metric"] == metric]
        if (column in runs and bool(runs[column].notna().any())) or followed.empty:
            names.append(metric)
            continue
        last = followed.sort_values("epoch").groupby(["experiment", "id"])["value"].last()
        values = [last.get(key, math.nan) for key in zip(runs["experiment"], runs["id"], strict=True)]
        runs = runs.assign(**{f"{column}{AT_LAST}": values})
        names.append(f"{metric}{AT_LAST}")
    return replace(tables, runs=runs), names


def _studies(tables: Tables, metrics: Sequence[str], *, curves: bool) -> tuple[list[Figure], list[DisplayTable]]:
    """Figures and tables of every experiment of a section, the paper's scale first."""
    histories = tables.histories
    figures: list[Figure] = []
    written: list[DisplayTable] = []
    for study in sorted(studies_of(tables.runs), key=lambda study: scale(study.experiment) != "paper"):
        measured = [metric for metric in metrics if any(arm.values(f"metric:{metric}") for arm in study.arms)]
        drawn = [study_figure(study, metric) for metric in measured]
        if curves:
            names = followed_metrics(study, histories, [metric.removesuffix(AT_LAST) for metric in measured])
            drawn += [learning_curves(study, histories, name) for name in names]
        drawn.append(evolution_figure(study, histories))
        figures += [figure for figure in drawn if figure is not None]
        found = [study_table(study, measured), comparison_table(study, measured), density_table(study, measured)]
        written += [_titled(table, study.experiment) for table in found if table is not None]
    return figures, written


def _compared(runs: pd.DataFrame, metrics: Sequence[str], section: Section, evidence: Evidence) -> list[DisplayTable]:
    """Differences to the arm that the section names, and how far the density can go down where there are several."""
    found = []
    if section.against is not None:
        selector = Runs(section.against.experiment, section.against.where)
        chosen = evidence.runs(selector)
        if chosen is not None:
            reference, _ = with_last_epochs(replace(chosen[0], runs=chosen[1]), section.metrics)
            found.append(differences_table(runs, one_arm(reference.runs), str(selector), metrics))
    for study in studies_of(runs):
        measured = [metric for metric in metrics if any(arm.values(f"metric:{metric}") for arm in study.arms)]
        table = density_table(study, measured) if len({arm.mean(DENSITY) for arm in study.arms}) > 2 else None
        found.append(None if table is None else _titled(table, study.experiment))
    return [table for table in found if table is not None]


def _titled(table: DisplayTable, name: str) -> DisplayTable:
    return DisplayTable(f"{name}. {table.caption}", table.columns, table.rows, table.numeric)


def arms_table(runs: pd.DataFrame, metrics: Sequence[str]) -> DisplayTable:
    """An arm a row, over several experiments: what tells it apart, its weights, its metrics.

    What each arm was made on is said where not all were made on the same.
    """
    arms = _ordered(arms_of(runs))
    several = len(_devices(arms)) > 1
    measured = [metric for metric in metrics if any(arm.values(f"metric:{metric}") for arm in arms)]
    names, cells = _told_apart(arms)
    rows = [
        [
            *cells[place],
            whole(arm.mean(SPARSE_WEIGHTS)),
            whole(arm.mean(TRAINABLE)),
            *(mean_of_seeds(arm, metric) for metric in measured),
            arm.seeds,
            *([made_on(arm.runs)] if several else []),
        ]
        for place, arm in enumerate(arms)
    ]
    columns = [*names, "weights in sparse layers", "trainable", *(metric_names.title(m) for m in measured), "seeds"]
    columns += ["made"] if several else []
    caption = f"Mean over seeds ± half-width of the 95 % t-interval; none of a single seed. {REALISED}"
    numeric = [False, False, *(name != "made" for name in columns[2:])]
    return DisplayTable(with_warnings(caption, arms), columns, rows, numeric)


def differences_table(runs: pd.DataFrame, reference: Arm, name: str, metrics: Sequence[str]) -> DisplayTable | None:
    """How far each arm is from the reference, called ``name``, seed by seed; None if nothing can be compared."""
    arms = [arm for arm in _ordered(arms_of(runs)) if set(arm.ids) != set(reference.ids)]
    measured = [m for m in metrics if reference.values(f"metric:{m}")]
    if not arms or not measured:
        return None
    names, cells = _told_apart(arms)
    found = {metric: differences(arms, reference, metric) for metric in measured}
    rows = [[*cells[place], *(found[metric][place] for metric in measured)] for place in range(len(arms))]
    caption = f"Differences to {name}. {PAIRED}"
    if len(_devices([*arms, reference])) > 1:
        caption += (
            " Not all runs were made on the same device. A seed's runs on different ones drew different random numbers "
            "while they trained, so that pairing them takes little noise out."
        )
    columns = [*names, *(metric_names.title(metric) for metric in measured)]
    return DisplayTable(
        with_warnings(caption, [*arms, reference]), columns, rows, [False, False] + [True] * (len(columns) - 2)
    )


def each_run_table(runs: pd.DataFrame, columns: Mapping[str, str]) -> DisplayTable:
    """A finished run a row: its experiment, its seed, what these columns hold, and its warnings if any run has some.

    Args:
        runs: the runs.
        columns: names of columns by heading.

    Raises:
        SelectionError: there is no such column.
    """
    for column in columns.values():
        if column not in runs.columns:
            raise SelectionError(
                f"In a table of single runs: {unknown_choice('column', column, map(str, runs.columns))}"
            )
    finished = runs[runs["status"] == FINISHED]
    if warned(finished):
        columns = {**columns, "warnings": WARNINGS}
    rows = [
        [str(row["experiment"]), str(row["seed"]), *(_cell(row[column]) for column in columns.values())]
        for row in finished.to_dict("records")
    ]
    numeric = [pd.api.types.is_numeric_dtype(finished[column]) for column in columns.values()]
    return DisplayTable("Single runs.", ["experiment", "seed", *columns], rows, [False, True, *numeric])


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return MISSING
    if not isinstance(value, int | float):
        return str(value)
    return whole(value) if value == round(value) else decimal(value)


def _devices(arms: Sequence[Arm]) -> set[str]:
    """What the arms' runs were made on, as far as it is known."""
    return {str(device) for arm in arms if DEVICE in arm.runs for device in arm.runs[DEVICE].dropna()}


def _ordered(arms: Sequence[Arm]) -> list[Arm]:
    """The paper's scale first."""
    return sorted(arms, key=lambda arm: scale(arm.experiment) != "paper")


def _told_apart(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Columns that tell arms of several experiments apart, and each arm's cells."""
    settings = [name for name in identifying_settings(arms)[0] if not name.rsplit(".", 1)[-1].startswith("_")]
    by_experiment: dict[str, set[str]] = {}
    for arm in arms:
        by_experiment.setdefault(arm.experiment, set()).add(str([arm.settings[name] for name in settings]))
    # A setting that differs only between experiments is told by the experiment's name.
    settings = [
        name
        for name in settings
        if any(
            len({str(arm.settings[name]) for arm in arms if arm.experiment == experiment}) > 1
            for experiment in by_experiment
        )
    ]
    cells = [
        [
            arm.experiment,
            str(arm.labels.get("scheme", MISSING)).replace("_", " "),
            *densities(arm, arm.realised),
            *(setting(arm.settings[name]) for name in settings),
        ]
        for arm in arms
    ]
    names = (name.rsplit(".", 1)[-1].replace("_", " ") for name in settings)
    return ["experiment", "scheme", *DENSITIES, *names], cells


def _facts(runs: pd.DataFrame, metrics: Sequence[str]) -> list[tuple[str, str]]:
    finished = runs[runs["status"] == FINISHED]
    failed = len(runs) - len(finished)
    facts = [("runs", f"{len(finished)} finished" + (f", {failed} failed" if failed else ""))]
    altered = finished[finished[ALTERED].notna()] if ALTERED in finished else finished[:0]
    if len(altered):
        what = " / ".join(sorted(set(altered[ALTERED])))
        facts.append(("not as shipped, so not counted beside published values", f"{len(altered)} runs ({what})"))
    if told := warned(finished):
        facts.append(("warnings", told))
    if made := made_on(finished):
        facts.append(("made", made))
    columns = {metric: f"metric:{metric}" for metric in metrics}
    lacking = [m for m, column in columns.items() if column not in finished or finished[column].isna().all()]
    if lacking and len(finished):
        facts.append(("not recorded by these runs", ", ".join(map(metric_names.title, lacking))))
    facts.append(("seeds", ", ".join(str(seed) for seed in sorted(set(runs["seed"])))))
    for name in ("epochs", "steps"):
        values = sorted({int(value) for value in finished.get(name, pd.Series(dtype="Int64")).dropna()})
        if values:
            facts.append((name, f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"))
    if "seconds:total" in runs.columns:
        facts.append(("clocks of all runs, added up", duration(float(runs["seconds:total"].fillna(0.0).sum()))))
    return facts


def made_on(runs: pd.DataFrame) -> str:
    """How many runs were made on which kind of device; empty where none is known."""
    devices = runs[DEVICE].dropna() if DEVICE in runs else pd.Series(dtype="object")
    return ", ".join(f"{n} on {'a CPU' if name == 'cpu' else name}" for name, n in devices.value_counts().items())


def _made(runs: pd.DataFrame) -> list[tuple[str, Sequence[tuple[str, int]]]]:
    names = {
        "made:commit": "code, at commit", "made:processor": "processor", "made:vectors": "vector instructions",
        DEVICE: "device", "made:threads": "threads", "made:python": "Python", "made:torch": "torch",
        "made:data": "data, digest of checksums",
    }  # fmt: skip
    found: list[tuple[str, Sequence[tuple[str, int]]]] = []
    for column, name in names.items():
        if column in runs.columns:
            counts = Counter(_plain(value) for value in runs[column])
            found.append((name, sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
    return found


def _plain(value: Any) -> str:
    return "unknown" if value is None or pd.isna(value) else str(value)
