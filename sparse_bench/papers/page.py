"""The form of page.yaml, which describes a paper's page, checked strictly.

    title, short    the page's heading, and the name in tables and navigation
    document        authors and place of publication
    summary         what the document did, in a sentence or two
    findings        what we found, a sentence or two each: ``text``, and ``rests_on``: ids of claims with their
                    verdicts (``reproduced``, ``reproduced (reduced)``). A finding is shown while all of these hold.
    experiments     experiments whose runs are committed below ``results/NAME`` (patterns such as ``brouns/*``)
    sweeps          the sweeps that reproduce the paper, ``full`` and ``small`` (minutes)
    corpora         downloads that the sweeps need, ``full`` and ``small``
    curves          patterns of the metrics whose learning curves are committed
    sections        parts of the page

A section has ``heading``, ``text`` (optional), ``experiments`` (patterns), ``metrics``, ``command`` (how to run them),
``against`` (optional: the reference arm), ``each_run`` (optional: heading → column of ``runs.csv``, for a table with a
row a run) and ``figures``. A metric that only learning curves hold is shown with its value at the last epoch. A figure
is one of

    {kind: studies}                    each experiment's metric against weights or density, and its learning curves
    {kind: epochs, of, series, …}      a metric per epoch, an arm a line
    {kind: curve, of, along, series}   a metric against a count or a setting, the arms of a series joined; or one
                                       column of a benchmark against another (series with ``table``)
    {kind: dots, rows, …}              single numbers, measured and published
    {kind: degrees, experiment, …}     degrees of a run's layers before and after training (first seed)
    {kind: weights, experiment, …}     histograms and a map of a run's trained weights (first seed)

with a ``title``. ``published`` names a CSV file in the paper's folder; in a series or a row it names a series of that
file. A row without sides shows a published number alone. ``front`` is the caption of a figure in the project's README,
which shows the first such figure that was run. The overview shows each paper's first figure with ``main: true`` that
was run, and without any the page's first figure.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sparse_bench.config.catalog import check_experiment, expand
from sparse_bench.papers import FOLDER, papers_in
from sparse_bench.papers.schema import Comparison, Measure, Side, Strict, Target, read_description


class Series(Side):
    """A line of a figure: runs of an experiment or rows of a benchmark's table, a published series, or both."""

    label: str
    published: str | None = None
    ink: bool = False

    @model_validator(mode="after")
    def _something_to_draw(self) -> "Series":
        if self.experiment is not None and self.table is not None:
            raise ValueError("a series has an experiment or a table, not both")
        if self.experiment is None and self.table is None and self.published is None:
            raise ValueError("a series needs an experiment or a table, a published series, or both")
        return self


class _Figure(Strict):
    title: str
    published: str | None = None
    note: str = ""
    front: str = ""
    main: bool = False


class _Lines(_Figure):
    of: str
    series: list[Series] = Field(min_length=1)

    @property
    def targets(self) -> list[Target]:
        """The runs and rows that the figure shows."""
        return [target for one in self.series if (target := one.only()) is not None]


class Epochs(_Lines):
    """A metric per epoch."""

    kind: Literal["epochs"]


class Along(_Lines):
    """A metric against a count or a setting; or a column of a benchmark's table against another.

    ``axis`` and ``below`` are titles of the vertical and horizontal axis; by default the names of the quantities.
    """

    kind: Literal["curve"]
    along: str
    logarithmic: bool = True
    axis: str = ""
    below: str = ""
    logarithmic_values: bool = False


class Row(Strict):
    """A row of a figure of single numbers."""

    label: str
    of: str
    measure: Measure = "value"
    epochs: str | None = None
    first: Side | None = None
    second: Side | None = None
    published: str | None = None

    @model_validator(mode="after")
    def _something_to_show(self) -> "Row":
        if self.first is None and (self.second is not None or self.published is None):
            raise ValueError("a row needs a first side, or a published number alone")
        if any(side.only() is None for side in (self.first, self.second) if side is not None):
            raise ValueError("needs either an experiment or a table")
        return self

    @property
    def comparison(self) -> Comparison | None:
        """What is measured; None if the row shows a published number alone."""
        sides = [side.only() for side in (self.first, self.second) if side is not None]
        known = [side for side in sides if side is not None]
        return Comparison(self.measure, self.of, known, self.epochs) if known else None


class Dots(_Figure):
    """Single numbers, measured and published."""

    kind: Literal["dots"]
    rows: list[Row] = Field(min_length=1)
    logarithmic: bool = False
    axis: str

    @property
    def targets(self) -> list[Target]:
        """The runs and rows that the figure shows."""
        return [side for row in self.rows if row.comparison is not None for side in row.comparison.sides]


class Studies(Strict):
    """The default figures of each experiment: metric against weights or density, learning curves."""

    kind: Literal["studies"]
    curves: bool = True
    main: bool = False

    @property
    def targets(self) -> list[Target]:
        """Empty: it shows the section's experiments."""
        return []


class SingleRun(_Figure):
    """A figure of one run: its degree distributions before and after training, or its trained weights."""

    kind: Literal["degrees", "weights"]
    experiment: str
    where: dict[str, Any] = Field(default_factory=dict)

    @property
    def target(self) -> Target:
        """The runs from which one is chosen."""
        return Target(self.experiment, "", self.where)

    @property
    def targets(self) -> list[Target]:
        """The runs from which one is chosen, as a list."""
        return [self.target]


FigureSpec = Annotated[Epochs | Along | Dots | Studies | SingleRun, Field(discriminator="kind")]


class Section(Strict):
    """A part of a paper's page."""

    heading: str
    text: str = ""
    experiments: list[str] = Field(min_length=1)
    metrics: list[str] = Field(default_factory=list)
    command: str
    against: Side | None = None
    each_run: dict[str, str] = Field(default_factory=dict)
    figures: list[FigureSpec] = Field(default_factory=list)


class Finding(Strict):
    """A finding in words, and the verdicts that it rests on."""

    text: str
    rests_on: dict[str, str] = Field(min_length=1)


class Sizes(Strict):
    """Names for the full and the small reproduction of a paper."""

    full: list[str]
    small: list[str]


class Paper(Strict):
    """A paper's page; see the module. :func:`read_papers` replaces patterns of experiments by names."""

    title: str
    short: str
    document: str
    summary: str
    findings: list[Finding] = Field(default_factory=list)
    experiments: list[str] = Field(min_length=1)
    sweeps: Sizes = Sizes(full=[], small=[])
    corpora: Sizes = Sizes(full=[], small=[])
    curves: list[str]
    sections: list[Section] = Field(min_length=1)
    name: str = ""
    folder: Path = FOLDER

    @property
    def single_runs(self) -> list[SingleRun]:
        """All figures of single runs, in the order of the sections."""
        return [figure for section in self.sections for figure in section.figures if isinstance(figure, SingleRun)]


def read_papers(known: Iterable[str], folder: Path = FOLDER) -> dict[str, Paper]:
    """Read all pages, by the papers' names, in their order.

    Raises:
        DescriptionError: a file does not follow the form.
        UnknownExperimentError: a file names an experiment that does not exist.
    """
    known = set(known)
    return {name: _read(folder / name, known) for name in papers_in(folder) if (folder / name / "page.yaml").is_file()}


def _read(folder: Path, known: set[str]) -> Paper:
    paper = read_description(folder / "page.yaml", Paper, name=folder.name, folder=folder)
    sections = []
    for section in paper.sections:
        compared = [section.against.only()] if section.against is not None else []
        shown = [target for figure in section.figures for target in figure.targets]
        for target in (*compared, *shown):
            if target is not None and target.experiment:
                check_experiment(target.experiment, known)
        sections.append(section.model_copy(update={"experiments": expand(section.experiments, known)}))
    return paper.model_copy(update={"experiments": expand(paper.experiments, known), "sections": sections})
