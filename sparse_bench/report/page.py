"""One self-contained page: figures, tables, and how each number was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from sparse_bench.record import FAILED, FINISHED, Result
from sparse_bench.report.arms import SPARSE_WEIGHTS, Study, by_density, percent, unlike
from sparse_bench.report.load import Problem, Results
from sparse_bench.report.provenance import duration, provenance, shared_settings
from sparse_bench.report.style import Figure, theme_css
from sparse_bench.report.tables import DisplayTable, whole

TEMPLATE = "page.html.j2"
STYLE = "page.css"


@dataclass(frozen=True)
class Section:
    """What the page shows of one study.

    Attributes:
        study: the study.
        records: results of its runs, failed ones included.
        figures: metric against weights or density.
        curves: learning curves.
        table: the arms.
        comparison: how they compare, if they can be compared.
        densities: how far the density can go down, if dense arms say what it is compared with.
        topology: what rewiring did to the topology, where there are dynamic arms.
    """

    study: Study
    records: Sequence[Result]
    figures: Sequence[Figure]
    curves: Sequence[Figure]
    table: DisplayTable
    comparison: DisplayTable | None
    densities: DisplayTable | None = None
    topology: Sequence[Figure] = ()

    @property
    def tables(self) -> list[DisplayTable]:
        """All tables that there are."""
        return [table for table in (self.table, self.comparison, self.densities) if table is not None]

    @property
    def heading(self) -> str:
        """The experiment's name."""
        return self.study.experiment

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was run, in short."""
        facts = [(name.replace("_", " "), str(value)) for name, value in self.study.labels.items()]
        labels = [arm.labels for arm in self.study.arms]
        schemes = dict.fromkeys(str(label["scheme"]).replace("_", " ") for label in labels if label.get("scheme"))
        densities = by_density(self.study.arms)
        told = [percent(asked) + unlike(asked, found) for asked, found in densities.items()]
        if schemes:
            facts.append(("scheme" if len(schemes) == 1 else "schemes", ", ".join(schemes)))
        if densities:
            facts.append(("density" if len(densities) == 1 else "densities", ", ".join(told)))
        weights = [arm.mean(SPARSE_WEIGHTS) for arm in self.study.arms]
        facts.append(("weights in sparse layers", _range([value for value in weights if value is not None])))
        facts.append(("arms", str(len(self.study.arms))))
        finished = [record for record in self.records if record.status == FINISHED]
        failed = len(self.records) - len(finished)
        facts.append(("runs", f"{len(finished)} finished" + (f", {failed} failed" if failed else "")))
        facts.append(("seeds", ", ".join(map(str, sorted({record.seed for record in self.records})))))
        for name in ("epochs", "steps"):
            counts = [getattr(record, name) for record in finished if getattr(record, name) is not None]
            facts += [(name, _range(counts))]
        facts.append(("time of all runs", duration(provenance(self.records).seconds)))
        return [(name, value) for name, value in facts if value]


def render_page(title: str, results: Results, sections: Sequence[Section], files_written: Sequence[str]) -> str:
    """The page as text.

    Args:
        title: heading and title.
        results: everything that was read.
        sections: one a study.
        files_written: names of the files beside the page, relative to it.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    status = results.runs["status"]
    return environment.from_string(resource(TEMPLATE)).render(
        title=title,
        theme=Markup(theme_css()),
        css=Markup(resource(STYLE)),
        finished=int((status == FINISHED).sum()),
        arms=sum(len(section.study.arms) for section in sections),
        experiments=int(results.runs["experiment"].nunique()),
        sections=[
            {
                "anchor": f"study-{number}",
                "heading": section.heading if len(sections) > 1 or section.heading != title else "What was run",
                "labels": ", ".join(str(value) for value in section.study.labels.values()),
                "facts": section.facts,
                "figures": [figure_parts(figure) for figure in section.figures],
                "curves": [figure_parts(figure) for figure in section.curves],
                "topology": [figure_parts(figure) for figure in section.topology],
                "tables": [{"table": table, "caption": unbroken(table.caption)} for table in section.tables],
                "settings": shared_settings(section.records),
            }
            for number, section in enumerate(sections, start=1)
        ],
        failed=_failed(results.runs),
        problems=[*repeated_seeds(sections), *results.problems],
        provenance=provenance(results.records),
        duration=duration,
        files=files_written,
    )


def resource(name: str) -> str:
    """A text file of this package."""
    return files("sparse_bench.report").joinpath(name).read_text(encoding="utf-8")


def repeated_seeds(sections: Sequence[Section]) -> list[Problem]:
    """A warning for each arm in which a seed finished more than once: such runs are averaged, not counted twice."""
    problems = []
    for section in sections:
        for arm in section.study.arms:
            counts = arm.runs["seed"].value_counts().sort_index()
            for seed, count in counts[counts > 1].items():
                ids = ", ".join(arm.runs.loc[arm.runs["seed"] == seed, "id"])
                reason = f"Seed {seed} of one arm finished {count} times ({ids}); its mean counts once."
                problems.append(Problem(arm.experiment, reason))
    return problems


def figure_parts(figure: Figure) -> dict[str, Any]:
    """What a template needs of a figure."""
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": unbroken(figure.caption),
        "wide": Markup(figure.inline(compact=False)),
        "compact": Markup(figure.inline(compact=True)),
    }


def _failed(runs: pd.DataFrame) -> list[dict[str, str]]:
    labels = [column for column in runs.columns if column.startswith("label:")]
    failed = []
    for row in runs[runs["status"] == FAILED].to_dict("records"):
        known = [str(row[column]) for column in labels if not pd.isna(row[column])]
        failed.append(
            {
                "experiment": row["experiment"],
                "id": row["id"],
                "labels": ", ".join(known),
                "seed": str(row["seed"]),
                "error": row["error"] if isinstance(row["error"], str) else "no message",
            }
        )
    return failed


def unbroken(text: str) -> str:
    """Keeps a percent sign on the line of its number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = whole(min(values)), whole(max(values))
    return low if low == high else f"{low} to {high}"
