"""What is told of each reproduced document: a file each, ``NAME.yaml``; no code of its own.

A file holds

    title, short    the page's heading, and the name in tables and navigation
    document        who published it where
    summary         what it did, in a sentence or two
    findings        what came of it here, a sentence or two each: ``text``, and ``rests_on``: claims' ids and verdicts
                    (``reproduced``, ``reproduced (reduced)``); told only as long as all of these hold
    experiments     those whose runs are committed below ``results/NAME`` (patterns such as ``brouns/*``)
    curves          patterns of the metrics whose learning curves are committed
    sections        parts of the page

A section has ``heading``, ``text`` (optional), ``experiments`` (patterns), ``metrics``, ``command`` (what runs them),
``against`` (optional: the arm that the others are compared with, ``{experiment, where}``), ``each_run`` (optional:
columns of ``runs.csv`` by heading, for a table with a row a run) and ``figures``. A metric that only learning curves
hold is shown as it was at the last epoch. A figure is one of

    {kind: studies}                    each experiment's metric against weights or density, and its learning curves
    {kind: epochs, of, series, …}      a metric per epoch, an arm a line
    {kind: curve, of, along, series}   a metric against a count or a setting, arms of a series joined; or a column of
                                       a benchmark's table (series with ``table``) against another
    {kind: values, rows, …}            single numbers beside published ones
    {kind: degrees, experiment, …}     degrees of a run's layers before and after training (its first seed)
    {kind: weights, experiment, …}     histograms and a map of a run's trained weights (its first seed)

with ``title``; ``published`` names a file of :mod:`sparse_bench.report.published`, and a series or a row says which
of its series it belongs to. Sides of rows are written as in a claim; a row without sides shows a published number
alone. ``front`` makes one of epochs, a curve or values the figure of the project's README, the first that has been run,
and says there what it is.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.report.catalog import check_experiment, expand, read_yaml
from sparse_bench.report.published import PUBLISHED

#: The order of pages and of the ledger.
ORDER = ("rasa", "brouns", "demeester", "sparselang", "embeddings")
FOLDER = Path(__file__).parent


class PaperError(SparseBenchError):
    """A description of a paper that cannot be read."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Strict):
    """A line of a figure: runs of an experiment or rows of a benchmark's table, a published series, or both."""

    label: str
    experiment: str | None = None
    table: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    published: str | None = None
    ink: bool = False

    @model_validator(mode="after")
    def _something_to_draw(self) -> "Series":
        if self.experiment is not None and self.table is not None:
            raise ValueError("a series is of an experiment or of a table, not of both")
        if self.experiment is None and self.table is None and self.published is None:
            raise ValueError("a series needs an experiment or a table, a published series, or both")
        return self


class _Figure(_Strict):
    title: str
    published: Literal[PUBLISHED] | None = None  # type: ignore[valid-type]
    note: str = ""
    front: str = ""

    @property
    def names(self) -> list[str]:
        """Experiments that the figure shows."""
        return []


class Epochs(_Figure):
    """A metric per epoch."""

    kind: Literal["epochs"]
    of: str
    series: list[Series] = Field(min_length=1)

    @property
    def names(self) -> list[str]:
        return [series.experiment for series in self.series if series.experiment]


class Along(_Figure):
    """A metric against a count or a setting; or a column of a benchmark's table against another."""

    kind: Literal["curve"]
    of: str
    along: str
    series: list[Series] = Field(min_length=1)
    logarithmic: bool = True
    axis: str = ""  # what stands at the left and below, where the names of the columns do not say it
    below: str = ""
    logarithmic_values: bool = False

    @property
    def names(self) -> list[str]:
        return [series.experiment for series in self.series if series.experiment]


class Place(_Strict):
    """One side of a row: runs of an experiment, or a row of a benchmark's table."""

    experiment: str | None = None
    table: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Place":
        if (self.experiment is None) == (self.table is None):
            raise ValueError("needs either an experiment or a table")
        return self


class Value(_Strict):
    """A row of a figure of single numbers."""

    label: str
    of: str
    measure: Literal["value", "difference", "ratio"] = "value"
    epochs: str | None = None
    first: Place | None = None
    second: Place | None = None
    published: str | None = None

    @model_validator(mode="after")
    def _something_to_show(self) -> "Value":
        if self.first is None and (self.second is not None or self.published is None):
            raise ValueError("a row needs a first side, or a published number alone")
        return self

    @property
    def sides(self) -> list[Place]:
        """Where its number comes from; none where only the published one is shown."""
        return [side for side in (self.first, self.second) if side is not None]


class Values(_Figure):
    """Single numbers beside published ones."""

    kind: Literal["values"]
    rows: list[Value] = Field(min_length=1)
    logarithmic: bool = False
    axis: str

    @property
    def names(self) -> list[str]:
        return [side.experiment for row in self.rows for side in row.sides if side.experiment]


class Studies(_Strict):
    """What every experiment gets without being asked: metric against weights or density, learning curves."""

    kind: Literal["studies"]
    curves: bool = True

    @property
    def names(self) -> list[str]:
        """None of its own: it shows the section's."""
        return []


class OneRun(_Figure):
    """What one run looks like: the degrees of its topology at first and at last, or its trained weights."""

    kind: Literal["degrees", "weights"]
    experiment: str
    where: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [self.experiment]


FigureSpec = Annotated[Epochs | Along | Values | Studies | OneRun, Field(discriminator="kind")]


class Reference(_Strict):
    """The arm that a section's arms are compared with."""

    experiment: str
    where: dict[str, Any] = Field(default_factory=dict)


class Section(_Strict):
    """A part of a paper's page."""

    heading: str
    text: str = ""
    experiments: list[str] = Field(min_length=1)
    metrics: list[str] = Field(default_factory=list)
    command: str
    against: Reference | None = None
    each_run: dict[str, str] = Field(default_factory=dict)
    figures: list[FigureSpec] = Field(default_factory=list)


class Finding(_Strict):
    """What came of the experiments, in words, and the verdicts that it rests on."""

    text: str
    rests_on: dict[str, str] = Field(min_length=1)


class Paper(_Strict):
    """A paper's page; see the package. After reading, ``experiments`` are names, not patterns."""

    title: str
    short: str
    document: str
    summary: str
    findings: list[Finding] = Field(default_factory=list)
    experiments: list[str] = Field(min_length=1)
    curves: list[str]
    sections: list[Section] = Field(min_length=1)
    name: str = ""

    @property
    def single_runs(self) -> list[OneRun]:
        """The figures of all sections that show one run."""
        return [figure for section in self.sections for figure in section.figures if isinstance(figure, OneRun)]


def read_papers(known: Iterable[str], folder: Path = FOLDER) -> dict[str, Paper]:
    """All descriptions in ``folder`` by name, in the order of the pages.

    Raises:
        PaperError: a file does not follow the form.
        UnknownExperimentError: a file names an experiment that does not exist.
    """
    known = set(known)
    files = {path.stem: path for path in folder.glob("*.yaml")}
    names = [name for name in ORDER if name in files] + sorted(files.keys() - set(ORDER))
    return {name: _read(files[name], known) for name in names}


def _read(path: Path, known: set[str]) -> Paper:
    content = read_yaml(path)
    try:
        paper = Paper.model_validate({**content, "name": path.stem})
    except ValidationError as error:
        raise PaperError(f"{path.name}: {'; '.join(map(_reason, error.errors()))}") from error
    for section in paper.sections:
        compared = [section.against.experiment] if section.against is not None else []
        for name in [*compared, *(name for figure in section.figures for name in figure.names)]:
            check_experiment(name, known)
    sections = [
        section.model_copy(update={"experiments": expand(section.experiments, known)}) for section in paper.sections
    ]
    return paper.model_copy(update={"experiments": expand(paper.experiments, known), "sections": sections})


def _reason(problem: Mapping[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        kinds: dict[str, type[BaseModel]] = {
            "findings": Finding, "sections": Section, "against": Reference, "series": Series, "rows": Value,
            "first": Place, "second": Place, "epochs": Epochs, "curve": Along, "values": Values, "studies": Studies,
            "degrees": OneRun, "weights": OneRun,
        }  # fmt: skip
        holder = next((kinds[part] for part in reversed(place[:-1]) if part in kinds), Paper)
        text = unknown_choice("key", place[-1], holder.model_fields)
    return f"{'.'.join(place)}: {text}"
