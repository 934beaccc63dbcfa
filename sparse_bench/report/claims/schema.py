"""The vocabulary of claims, checked strictly.

A file holds ``document`` (the paper's name), ``claims``, and ``caveats``: what has to be known of all results of some
``experiments`` (patterns), as ``text``. It becomes a note of whatever measures them, except of their counts.

A claim has

    id            unique, lower case, words joined by hyphens
    where         where the sentence stands in the document
    quotation     its words, or ``paraphrase``: its sense (a figure's, a table's)
    published     the value that the document gives, in a few words
    tests         one or more rules; or ``untestable``: why there can be none
    beside        optional: what was measured besides (tests without regions), to be shown and to decide nothing
    note          what a reader has to know, optional
    revised       what of the rules was changed when runs that they judge were there, why, and what the verdict had
                  been; else left out

A test has

    measure       ``value`` of one arm; ``difference`` first − second or ``ratio`` first / second, paired over the seeds
                  that both have; ``share_above``: the share of epochs at which the first lies above the second
    of            a metric (``test/intent_f1``), ``count:…``, ``seconds:…``, ``macs:…``, or a column of a table
    biases        optional, for a value: how many biases the document counts as well as the weights; added to the value
    epochs        optional, for metrics with a learning curve: ``epoch N``, ``last N`` (their mean), ``lowest``
                  or ``highest`` (of all epochs, of each seed its own), or ``all``
    along         optional: average over a logarithmic axis (``count:sparse_layers``), over the range that both curves
                  share, instead of a single arm's value
    experiment    of all cases: a name, or ``{paper: NAME, reduced: NAME}``, which makes a test for each scale;
                  ``stand-in`` in place of ``paper``: the paper's size on another corpus than the paper's
    where         labels and settings that all cases have in common
    cases         what is compared: ``first`` and ``second`` (or ``first`` alone for a value), each with ``where``,
                  its own ``experiment``, or a benchmark's ``table``; ``label`` where there are several
    reproduced    where the interval has to lie: ``above X``, ``below X``, ``within A to B``, ``outside A to B`` (clear
                  of both on one side), and ``exactly X`` for counts
    contradicted  the same; it must not overlap with ``reproduced``. Anything else is inconclusive.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sparse_bench.errors import SparseBenchError, unknown_choice
from sparse_bench.report.catalog import SCALES, Scale, check_experiment, expand, read_yaml, scale
from sparse_bench.report.measure import Measure, is_exact
from sparse_bench.report.selection import Row, Runs

FOLDER = Path(__file__).parent
_REGION = re.compile(r"(above|below) (\S+)|(within|outside) (\S+) to (\S+)|exactly (\S+)")
_EPOCHS = re.compile(r"epoch [1-9]\d*|last [1-9]\d*|lowest|highest|all")


class ClaimError(SparseBenchError):
    """A file of claims that does not follow the vocabulary, or that the results do not fit."""


@dataclass(frozen=True)
class Region:
    """Where an interval has to lie: between ``low`` and ``high``, or, inverted, clear of them."""

    text: str
    low: float
    high: float
    inverted: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number without error lies in it. The borders of an interval belong to it, a single one does not."""
        if self.inverted:
            return value < self.low or value > self.high
        if math.isinf(self.low) or math.isinf(self.high):
            return self.low < value < self.high
        return self.low <= value <= self.high

    def overlaps(self, other: "Region") -> bool:
        """Whether a value can lie in both; a shared border is no overlap."""
        return any(max(a, c) < min(b, d) for a, b in self._parts for c, d in other._parts)

    @property
    def _parts(self) -> list[tuple[float, float]]:
        return [(-math.inf, self.low), (self.high, math.inf)] if self.inverted else [(self.low, self.high)]


def region(text: str) -> Region:
    """Parse ``above 0``, ``below -0.02``, ``within 58.2 to 59.4``, ``outside 0.9 to 1.1`` or ``exactly 106496``."""
    match = _REGION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"'{text}' is no region; write 'above X', 'below X', 'within A to B', 'outside A to B' or 'exactly X'"
        )
    try:
        bounds = [float(match[i]) for i in (2, 4, 5, 6) if match[i] is not None]
    except ValueError:
        raise ValueError(f"'{text}' holds what is no number") from None
    if not all(map(math.isfinite, bounds)):
        raise ValueError(f"'{text}' holds a number that is not finite")
    if match[1]:
        return Region(text, bounds[0], math.inf) if match[1] == "above" else Region(text, -math.inf, bounds[0])
    if bounds[0] > bounds[-1]:
        raise ValueError(f"in '{text}' the first number has to be the smaller one")
    return Region(text, bounds[0], bounds[-1], match[3] == "outside")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _experiments(value: Any) -> Any:
    return {scale(value): value} if isinstance(value, str) else value


def _named_for_their_scale(names: dict[Scale, str]) -> dict[Scale, str]:
    for wanted, name in names.items():
        if (scale(name) == "reduced") != (wanted == "reduced"):
            raise ValueError(f"'{name}' is not of {wanted} scale by its name (reduced ones end in _small)")
    return names


#: An experiment's names at its scales.
Names = Annotated[
    dict[Literal["paper", "stand-in", "reduced"], str],
    BeforeValidator(_experiments),
    AfterValidator(_named_for_their_scale),
]
Regions = Annotated[Region, BeforeValidator(lambda value: region(str(value)))]


class Side(_Strict):
    """One side of a comparison."""

    experiment: Names | None = None
    table: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)


class Case(_Strict):
    """What is compared."""

    label: str = ""
    first: Side
    second: Side | None = None


class Measurement(_Strict):
    """What is measured; see the module."""

    measure: Measure
    of: str
    biases: int = 0
    epochs: str | None = None
    along: str | None = None
    experiment: Names | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    cases: list[Case] = Field(min_length=1)
    note: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> "Measurement":
        if self.epochs is not None and not _EPOCHS.fullmatch(self.epochs):
            raise ValueError(f"epochs '{self.epochs}': write 'epoch N', 'last N', 'lowest', 'highest' or 'all'")
        if (self.measure == "share_above") != (self.epochs == "all"):
            raise ValueError("share_above and 'epochs: all' go together")
        if self.biases and self.measure != "value":
            raise ValueError("biases are added to a value alone")
        for case in self.cases:
            if (case.second is None) != (self.measure == "value"):
                raise ValueError(f"{self.measure} needs {'one side' if self.measure == 'value' else 'two sides'}")
            if len(self.cases) > 1 and not case.label:
                raise ValueError("several cases need a label each")
        if not self.resolved():
            raise ValueError("no scale has an experiment or a table for every side")
        return self

    def resolved(self) -> list["Resolved"]:
        """The test at each scale for which every side names an experiment (or a table)."""
        found: list[Resolved] = []
        for at in SCALES:
            cases = [
                (case.label, self._side(case.first, at), self._side(case.second, at) if case.second else None)
                for case in self.cases
            ]
            if all(first and (second or self.measure == "value") for _, first, second in cases):
                chosen = [ResolvedCase(label, [side for side in sides if side]) for label, *sides in cases]
                found.append(Resolved(self, at, chosen))
        return found

    def _side(self, side: Side, at: Scale) -> Runs | Row | None:
        where = {**self.where, **side.where}
        if side.table is not None:
            return Row(side.table, where) if at == "benchmark" else None
        names = side.experiment or self.experiment or {}
        return Runs(names[at], where) if at != "benchmark" and at in names else None


_Measured = TypeVar("_Measured", bound=Measurement)


class Test(Measurement):
    """A rule; see the module."""

    __test__ = False  # no test of pytest's

    reproduced: Regions
    contradicted: Regions

    @model_validator(mode="after")
    def _decides(self) -> "Test":
        if self.reproduced.overlaps(self.contradicted):
            raise ValueError(f"'{self.reproduced.text}' and '{self.contradicted.text}' overlap")
        return self


@dataclass(frozen=True)
class ResolvedCase:
    """A case whose sides are known."""

    label: str
    sides: Sequence[Runs | Row]


@dataclass(frozen=True)
class Resolved:
    """A test at one scale, or a measurement that is no test."""

    rule: Measurement
    scale: Scale
    cases: Sequence[ResolvedCase]


class Claim(_Strict):
    """A claim; see the module."""

    id: str = Field(pattern=r"[a-z0-9]+(-[a-z0-9]+)*")
    where: str
    quotation: str = ""
    paraphrase: str = ""
    published: str
    tests: list[Test] = Field(default_factory=list)
    untestable: str = ""
    beside: list[Measurement] = Field(default_factory=list)
    note: str = ""
    revised: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if bool(self.quotation) == bool(self.paraphrase):
            raise ValueError("needs either a quotation or a paraphrase")
        if bool(self.tests) == bool(self.untestable):
            raise ValueError("needs either tests or 'untestable' with the reason")
        return self

    def resolved(self) -> list[Resolved]:
        """All tests (or what is shown without one) at all their scales, in the order of the scales."""
        found = [one for rule in (*self.tests, *self.beside) for one in rule.resolved()]
        return sorted(found, key=lambda one: SCALES.index(one.scale))


class Caveat(_Strict):
    """What has to be known of all results of some experiments."""

    experiments: list[str] = Field(min_length=1)
    text: str


class Document(_Strict):
    """The claims of one document. After reading, its caveats are in the notes of the tests."""

    document: str
    caveats: list[Caveat] = Field(default_factory=list)
    claims: list[Claim]


def read_documents(folder: Path, names: Sequence[str], known: Iterable[str]) -> list[Document]:
    """Read and check ``NAME.yaml`` of each paper.

    Args:
        folder: where the files are.
        names: of the papers, in the order of the ledger.
        known: experiments that exist.

    Raises:
        ClaimError: a file does not follow the vocabulary; the message names the place and the valid choices.
        UnknownExperimentError: a test or a caveat names an experiment that does not exist.
    """
    known = set(known)
    documents = [
        _with_caveats(_read(folder / f"{name}.yaml"), known) for name in names if (folder / f"{name}.yaml").is_file()
    ]
    seen: set[str] = set()
    for document in documents:
        if document.document not in names:
            raise ClaimError(unknown_choice("document", document.document, names))
        for claim in document.claims:
            if claim.id in seen:
                raise ClaimError(f"Two claims have the id '{claim.id}'.")
            seen.add(claim.id)
            for side in _sides(claim):
                if isinstance(side, Runs):
                    check_experiment(side.experiment, known)
    return documents


def _sides(claim: Claim | Measurement) -> list[Runs | Row]:
    return [side for test in claim.resolved() for case in test.cases for side in case.sides]


def _with_caveats(document: Document, known: set[str]) -> Document:
    told = [(set(expand(caveat.experiments, known)), caveat.text.strip()) for caveat in document.caveats]

    def noted(test: _Measured) -> _Measured:
        judged = {side.experiment for side in _sides(test) if isinstance(side, Runs)}
        texts = [] if is_exact(test.of) else [text for names, text in told if names & judged]
        return test.model_copy(update={"note": " ".join(filter(None, [test.note.strip(), *texts]))})

    claims = [
        claim.model_copy(update={"tests": list(map(noted, claim.tests)), "beside": list(map(noted, claim.beside))})
        for claim in document.claims
    ]
    return document.model_copy(update={"claims": claims})


def _read(path: Path) -> Document:
    content = read_yaml(path)
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        raise ClaimError(
            f"{path.name}: {'; '.join(_reason(content, problem) for problem in error.errors())}"
        ) from error


_FIELDS: Mapping[str, type[BaseModel]] = {
    "claims": Claim, "tests": Test, "beside": Measurement, "caveats": Caveat, "cases": Case, "first": Side,
    "second": Side,
}  # fmt: skip


def _reason(content: Any, problem: Mapping[str, Any]) -> str:
    """One fault, with the id of its claim and, for an unknown key, the valid ones."""
    place = [part for part in problem["loc"] if isinstance(part, str | int)]
    named = content
    if len(place) > 1 and place[0] == "claims" and isinstance(place[1], int):
        entry = content["claims"][place[1]]
        named = entry.get("id", place[1]) if isinstance(entry, dict) else place[1]
    where = ".".join(str(part) for part in place[2:]) if named is not content else ".".join(map(str, place))
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        holder = next((part for part in reversed(place[:-1]) if isinstance(part, str)), "")
        text = unknown_choice("key", place[-1], _FIELDS.get(holder, Document).model_fields)
    prefix = f"claim '{named}'" if named is not content else "file"
    return f"{prefix}{f', {where}' if where else ''}: {text}"
