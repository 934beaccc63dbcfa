"""From results to a folder of tables, figures and a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.report import metric_names, tables, tidy, weights
from sparse_bench.report.arms import Study, studies_of
from sparse_bench.report.densities import density_table
from sparse_bench.report.figures import study_figure
from sparse_bench.report.learning_curves import Histories, followed_metrics, learning_curves, read_histories
from sparse_bench.report.load import Problem, Results
from sparse_bench.report.page import Section, render_page
from sparse_bench.report.topology import KINDS, Changes, read_topologies, topology_figures


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        paths: every file, in the order of writing.
        metrics: those reported.
        studies: those found.
        problems: folders left out, and warnings.
    """

    paths: Sequence[Path]
    metrics: Sequence[str]
    studies: Sequence[Study]
    problems: Sequence[Problem]


def build(results: Results, out: Path, metrics: Sequence[str] = (), title: str | None = None) -> Report:
    """Write the tidy tables, ``summary.csv``, ``summary.md``, ``figures/`` and ``index.html`` into ``out``.

    Args:
        results: what :func:`sparse_bench.report.load.load` found.
        out: a folder; made if it does not exist.
        metrics: those to report; by default all of the test split.
        title: of the page; by default the experiment's name.

    Raises:
        UnknownMetricError: no run has measured one of ``metrics``.
    """
    chosen = metric_names.choose(results.metrics, metrics)
    histories, unreadable = read_histories(results)
    changes, unreadable_too = read_topologies(results)
    summaries, unreadable_as_well = weights.read_summaries(results)
    problems = (*results.problems, *unreadable, *unreadable_too, *unreadable_as_well)
    results = Results(results.runs, results.records, problems)
    sections = [_section(study, results, histories, changes, summaries, chosen) for study in studies_of(results.runs)]
    names = list(dict.fromkeys(section.heading for section in sections))
    title = title or (names[0] if len(names) == 1 else f"Results of {len(names)} experiments")

    followed = {name for section in sections for name in followed_metrics(section.study, histories, chosen)}
    out.mkdir(parents=True, exist_ok=True)
    paths = tidy.write(tidy.tables_of(results, histories, sorted(followed)), out)
    texts = {
        "summary.csv": tables.summary_csv(results.runs, chosen),
        "summary.md": _summary_markdown(title, sections),
    }
    names_written = [path.name for path in paths] + list(texts)
    texts["index.html"] = render_page(title, results, sections, names_written)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        paths.append(out / name)
    for section in sections:
        for figure in (*section.figures, *section.curves, *section.topology):
            paths += figure.save(out / "figures")
    _remove_stale(out / "figures", paths)
    return Report(paths, chosen, [section.study for section in sections], results.problems)


def _remove_stale(folder: Path, written: Sequence[Path]) -> None:
    """Figures of an earlier report that this one no longer has would pass for its own."""
    for kind in ("weights", "density", "curves", *KINDS, weights.KIND):
        for path in sorted(folder.glob(f"{kind}--*")):
            if path not in written and path.suffix in (".svg", ".png"):
                path.unlink()


def _section(
    study: Study,
    results: Results,
    histories: Histories,
    changes: Changes,
    summaries: weights.Summaries,
    metrics: Sequence[str],
) -> Section:
    measured = [metric for metric in metrics if any(arm.values(f"metric:{metric}") for arm in study.arms)]
    figures = [study_figure(study, metric) for metric in measured]
    curves = [
        learning_curves(study, histories, metric) for metric in followed_metrics(study, histories, measured or metrics)
    ]
    ids = {run for arm in study.arms for run in arm.ids}
    records = [record for record in results.records if record.experiment == study.experiment and record.id in ids]
    return Section(
        study=study,
        records=records,
        figures=[figure for figure in figures if figure is not None],
        curves=[figure for figure in curves if figure is not None],
        table=tables.study_table(study, measured),
        comparison=tables.comparison_table(study, measured),
        densities=density_table(study, measured),
        topology=[*topology_figures(study, histories, changes), *weights.weight_figures(study, summaries)],
    )


def _summary_markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}\n"]
    for section in sections:
        names = ", ".join(str(value) for value in section.study.labels.values())
        parts.append(f"## {section.heading}" + (f" ({names})" if names else "") + "\n")
        parts += [tables.markdown(table) for table in section.tables]
    return "\n".join(parts)
