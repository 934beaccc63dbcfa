"""The form of claims.yaml, checked strictly.

A file holds ``claims`` and ``caveats``. A caveat has ``experiments`` (patterns) and a ``text``, which becomes a note of
every rule that measures these experiments, except rules about counts.

A claim has

    id            unique, lower case, words joined by hyphens
    where         place of the sentence in the document
    quotation     the words of the document; or ``paraphrase``: the meaning, for instance of a figure
    published     the value that the document gives, in a few words
    tests         one or more rules; or ``untestable``: why there is no rule
    registered    the commit of the rules, if it is older than every run that they judge
    beside        optional: measurements that no rule judges
    headline      optional: the claim in plain English, for the table of headline claims
    unit          optional: what a benchmark's number is, for that table
    note          optional: what a reader has to know
    revised       optional: how the rules were changed after runs existed, and the verdict before

A test has ``measure``, ``of``, ``epochs`` and ``biases`` as in :class:`sparse_bench.papers.schema.Comparison`, and

    experiment    of all cases: a name, or ``{paper: NAME, reduced: NAME}``, which makes a test for each scale
    where         labels and settings that all cases share
    cases         ``first`` and ``second`` (``first`` alone for a value); ``label`` if there are several cases;
                  ``epochs`` if they differ from the test's
    reproduced    region in which the interval has to lie: ``above X``, ``below X``, ``within A to B``,
                  ``outside A to B`` (wholly below A or wholly above B), and ``exactly X`` for counts
    contradicted  the same form; must not overlap with ``reproduced``. All else is inconclusive.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from sparse_bench.config.catalog import check_experiment, expand
from sparse_bench.papers import FOLDER, papers_in
from sparse_bench.papers.schema import (
    ORIGINS,
    Comparison,
    DescriptionError,
    Measure,
    Names,
    Origin,
    Side,
    Strict,
    Target,
    read_description,
)

_REGION = re.compile(r"(above|below) (\S+)|(within|outside) (\S+) to (\S+)|exactly (\S+)")
_EPOCHS = re.compile(r"epoch [1-9]\d*|last [1-9]\d*|lowest|highest")
#: Counts follow from the configuration and a seed's topology, so they have no error.
_EXACT = re.compile(r"(count|macs):.+|epochs|steps")


def is_exact(name: str) -> bool:
    """Whether a quantity of runs has no error."""
    return _EXACT.fullmatch(name) is not None


@dataclass(frozen=True)
class Region:
    """A region for an interval: between ``low`` and ``high``, or outside of them if ``inverted``."""

    text: str
    low: float
    high: float
    inverted: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number without error lies in the region.

        The borders of ``within`` and ``exactly`` belong to the region; those of ``above``, ``below`` and ``outside``
        do not.
        """
        if self.inverted:
            return value < self.low or value > self.high
        if math.isinf(self.low) or math.isinf(self.high):
            return self.low < value < self.high
        return self.low <= value <= self.high

    def overlaps(self, other: "Region") -> bool:
        """Whether a value can lie in both regions; a shared border does not count."""
        return any(max(a, c) < min(b, d) for a, b in self._parts for c, d in other._parts)

    @property
    def _parts(self) -> list[tuple[float, float]]:
        return [(-math.inf, self.low), (self.high, math.inf)] if self.inverted else [(self.low, self.high)]


def region(text: str) -> Region:
    """Parse ``above 0``, ``below -0.02``, ``within 58.2 to 59.4``, ``outside 0.9 to 1.1`` or ``exactly 106496``.

    Raises:
        ValueError: the text has another form, or a number that is not finite.
    """
    match = _REGION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"'{text}' is not a region; write 'above X', 'below X', 'within A to B', 'outside A to B' or 'exactly X'"
        )
    try:
        bounds = [float(match[i]) for i in (2, 4, 5, 6) if match[i] is not None]
    except ValueError:
        raise ValueError(f"'{text}' does not hold numbers") from None
    if not all(map(math.isfinite, bounds)):
        raise ValueError(f"'{text}' holds a number that is not finite")
    if match[1]:
        return Region(text, bounds[0], math.inf) if match[1] == "above" else Region(text, -math.inf, bounds[0])
    if bounds[0] > bounds[-1]:
        raise ValueError(f"in '{text}' the first number must not be larger than the second")
    return Region(text, bounds[0], bounds[-1], match[3] == "outside")


Regions = Annotated[Region, BeforeValidator(lambda value: region(str(value)))]


class Case(Strict):
    """One comparison of a test; see the module."""

    label: str = ""
    first: Side
    second: Side | None = None
    epochs: str | None = None


class Measurement(Strict):
    """A measurement; see the module."""

    measure: Measure
    of: str
    biases: int = 0
    epochs: str | None = None
    experiment: Names | None = None
    where: dict[str, object] = Field(default_factory=dict)
    cases: list[Case] = Field(min_length=1)
    note: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> "Measurement":
        if self.biases and self.measure != "value":
            raise ValueError("biases are allowed only with the measure 'value'")
        for case in self.cases:
            epochs = case.epochs or self.epochs
            if epochs is not None and not _EPOCHS.fullmatch(epochs):
                raise ValueError(f"epochs '{epochs}': write 'epoch N', 'last N', 'lowest' or 'highest'")
            if (case.second is None) != (self.measure == "value"):
                raise ValueError(f"{self.measure} needs {'one side' if self.measure == 'value' else 'two sides'}")
            if len(self.cases) > 1 and not case.label:
                raise ValueError("several cases need a label each")
        if not self.resolved():
            raise ValueError("no scale has an experiment or a table for every side")
        return self

    def resolved(self) -> list["Resolved"]:
        """The test at each scale at which every side has an experiment or a table."""
        shared, found = Side(experiment=self.experiment, where=self.where), []
        for origin in ORIGINS:
            cases: list[tuple[str, Comparison]] = []
            for case in self.cases:
                sides = [side.at(origin, shared) for side in (case.first, case.second) if side is not None]
                known = [side for side in sides if side is not None]
                if len(known) == len(sides):
                    epochs = case.epochs or self.epochs
                    cases.append((case.label, Comparison(self.measure, self.of, known, epochs, self.biases)))
            if len(cases) == len(self.cases):
                found.append(Resolved(self, origin, cases))
        return found


class Test(Measurement):
    """A rule; see the module."""

    __test__ = False  # pytest must not collect it

    reproduced: Regions
    contradicted: Regions

    @model_validator(mode="after")
    def _decides(self) -> "Test":
        if self.reproduced.overlaps(self.contradicted):
            raise ValueError(f"'{self.reproduced.text}' and '{self.contradicted.text}' overlap")
        return self


@dataclass(frozen=True)
class Resolved:
    """A test, or an unjudged measurement, at one scale; ``cases`` are pairs of label and comparison."""

    rule: Measurement
    scale: Origin
    cases: Sequence[tuple[str, Comparison]]


class Claim(Strict):
    """A claim; see the module."""

    id: str = Field(pattern=r"[a-z0-9]+(-[a-z0-9]+)*")
    where: str
    quotation: str = ""
    paraphrase: str = ""
    published: str
    tests: list[Test] = Field(default_factory=list)
    untestable: str = ""
    registered: str = Field(default="", pattern=r"^([0-9a-f]{40})?$")
    beside: list[Measurement] = Field(default_factory=list)
    headline: str = ""
    unit: str = ""
    note: str = ""
    revised: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if bool(self.quotation) == bool(self.paraphrase):
            raise ValueError("needs either a quotation or a paraphrase")
        if bool(self.tests) == bool(self.untestable):
            raise ValueError("needs either tests or 'untestable' with the reason")
        return self

    @property
    def text(self) -> str:
        """The quotation in quotation marks, or the paraphrase."""
        return f"“{self.quotation}”" if self.quotation else self.paraphrase

    @property
    def rules(self) -> list[Measurement]:
        """All tests, then the measurements that no rule judges."""
        return [*self.tests, *self.beside]

    def resolved(self) -> list[Resolved]:
        """All rules at all their scales, in the order of the scales."""
        found = [one for rule in self.rules for one in rule.resolved()]
        return sorted(found, key=lambda one: ORIGINS.index(one.scale))


class Caveat(Strict):
    """A note on all results of some experiments."""

    experiments: list[str] = Field(min_length=1)
    text: str


class Document(Strict):
    """The claims of one document. :func:`read_claims` adds its caveats to the notes of the tests."""

    name: str
    caveats: list[Caveat] = Field(default_factory=list)
    claims: list[Claim]


def read_claims(known: Iterable[str], folder: Path = FOLDER) -> list[Document]:
    """Read the claims of every paper with claims.yaml, in the order of the ledger.

    Args:
        known: experiments that exist.
        folder: parent of the papers' folders.

    Raises:
        DescriptionError: a file does not follow the form, or two claims have the same id.
        UnknownExperimentError: a test or a caveat names an experiment that does not exist.
    """
    known = set(known)
    files = {name: folder / name / "claims.yaml" for name in papers_in(folder)}
    documents = [
        _with_caveats(read_description(path, Document, name=name), known)
        for name, path in files.items()
        if path.is_file()
    ]
    seen: set[str] = set()
    for claim in (claim for document in documents for claim in document.claims):
        if claim.id in seen:
            raise DescriptionError(f"Two claims have the id '{claim.id}'.")
        seen.add(claim.id)
        for target in targets(claim.resolved()):
            if target.experiment:
                check_experiment(target.experiment, known)
    return documents


def targets(resolved: Sequence[Resolved]) -> list[Target]:
    """The sides of all tests."""
    return [side for test in resolved for _, comparison in test.cases for side in comparison.sides]


_Measured = TypeVar("_Measured", bound=Measurement)


def _with_caveats(document: Document, known: set[str]) -> Document:
    caveats = [(set(expand(caveat.experiments, known)), caveat.text.strip()) for caveat in document.caveats]
    noted = partial(_noted, caveats=caveats)
    claims = [
        claim.model_copy(update={"tests": list(map(noted, claim.tests)), "beside": list(map(noted, claim.beside))})
        for claim in document.claims
    ]
    return document.model_copy(update={"claims": claims})


def _noted(test: _Measured, caveats: Sequence[tuple[set[str], str]]) -> _Measured:
    judged = {target.experiment for target in targets(test.resolved())}
    texts = [] if is_exact(test.of) else [text for names, text in caveats if names & judged]
    return test.model_copy(update={"note": " ".join(filter(None, [test.note.strip(), *texts]))})
