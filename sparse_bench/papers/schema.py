"""Parts that claims and pages share: sides, and measurements of one or two sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sparse_bench.config.catalog import Scale, experiments
from sparse_bench.errors import SparseBenchError, unknown_choice

Measure = Literal["value", "difference", "ratio"]
#: Origin of a number: the scale of an experiment, or a benchmark.
Origin = Literal["paper", "stand-in", "benchmark", "reduced"]
#: Origins in the order in which they decide a verdict.
ORIGINS: tuple[Origin, ...] = ("paper", "stand-in", "benchmark", "reduced")


class DescriptionError(SparseBenchError):
    """A description does not follow its form; the message names the place and the valid choices."""


class Strict(BaseModel):
    """Base of all parts of descriptions: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _by_scale(value: Any) -> Any:
    return {experiments().get(value, "paper"): value} if isinstance(value, str) else value


Names = Annotated[dict[Scale, str], BeforeValidator(_by_scale)]


class Side(Strict):
    """Runs of an experiment, or a row of a benchmark's table.

    Attributes:
        experiment: a name, or one for each scale.
        table: path of a CSV file below the folder of results.
        where: a value or a list of values for labels (``density``), for settings by dotted path
            (``model.transformer_size``), or for columns of the table. Runs without the setting do not match.
    """

    experiment: Names | None = None
    table: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "Side":
        for scale, name in (self.experiment or {}).items():
            if experiments().get(name, scale) != scale:
                raise ValueError(f"'{name}' has the scale {experiments()[name]}, not {scale}")
        return self

    def at(self, origin: Origin, shared: "Side") -> "Target | None":
        """The side at one scale, with the parts that all sides share; None if it has nothing at that scale."""
        where = {**shared.where, **self.where}
        if self.table is not None:
            return Target("", self.table, where) if origin == "benchmark" else None
        names = self.experiment or shared.experiment or {}
        return Target(names[origin], "", where) if origin != "benchmark" and origin in names else None

    def only(self) -> "Target | None":
        """The side at its only scale, as on pages; None without experiment and table."""
        found = [self.at(origin, Side()) for origin in ORIGINS]
        return next((target for target in found if target is not None), None)


@dataclass(frozen=True)
class Target:
    """A side at one scale: runs of an experiment, or a row of a table. The other name is empty."""

    experiment: str
    table: str
    where: Mapping[str, Any]

    def __str__(self) -> str:
        parts = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.where.items())
        name = self.experiment or self.table
        return f"{name} ({parts})" if parts else name


@dataclass(frozen=True)
class Comparison:
    """A measurement of one or two sides.

    Attributes:
        measure: ``value`` of the first side, ``difference`` first − second or ``ratio`` first / second, paired over the
            seeds that both have.
        of: a metric (``test/intent_f1``), ``count:…``, ``seconds:…``, ``macs:…``, or a column of a benchmark's table.
        sides: one side for a value, else two.
        epochs: what is taken from each seed's learning curve in place of the final value: ``epoch N``, ``last N``
            (their mean), ``lowest`` or ``highest``.
        biases: number of biases that the document counts too; added to a value.
    """

    measure: Measure
    of: str
    sides: Sequence[Target]
    epochs: str | None = None
    biases: int = 0


_Model = TypeVar("_Model", bound=BaseModel)


def read_description(path: Path, model: type[_Model], **extra: Any) -> _Model:
    """Read and check a YAML file.

    Raises:
        DescriptionError: the file is not YAML, repeats a key, or does not follow ``model``.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except yaml.YAMLError as error:
        raise DescriptionError(f"{path}: {error}") from error
    try:
        return model.model_validate({**content, **extra} if isinstance(content, dict) else content)
    except ValidationError as error:
        reasons = "; ".join(_reason(content, model, problem) for problem in error.errors())
        raise DescriptionError(f"{path.parent.name}/{path.name}: {reasons}") from error


def _reason(content: Any, model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """One fault as text, with the id of its claim if it has one, and the valid keys if a key is unknown."""
    place = list(problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = unknown_choice("key", place[-1], sorted(_fields(model, place[:-1])))
    if len(place) > 1 and place[0] == "claims" and isinstance(content["claims"][place[1]], dict):
        claim = content["claims"][place[1]].get("id", place[1])
        return f"claim '{claim}', {'.'.join(map(str, place[2:]))}: {text}"
    return f"{'.'.join(map(str, place))}: {text}"


def _fields(model: Any, place: Sequence[Any]) -> set[str]:
    """The valid keys at a place: the fields of all models that may stand there."""
    models = {model}
    for part in place:
        if isinstance(part, str):
            inner = {found for one in models if part in one.model_fields for found in _models(one, part)}
            models = inner or {one for one in models if _tag(one) == part} or models
    return {name for one in models for name in one.model_fields}


def _models(model: type[BaseModel], field: str) -> set[type[BaseModel]]:
    waiting, found = [model.model_fields[field].annotation], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.add(one)
        waiting += getattr(one, "__args__", ())
    return found


def _tag(model: type[BaseModel]) -> Any:
    kinds = getattr(model.model_fields.get("kind"), "annotation", None)
    return next(iter(getattr(kinds, "__args__", ())), None)
