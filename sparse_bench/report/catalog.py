"""What the configuration tree knows: names that a claim or a page may speak of before anything has been run."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from omegaconf import OmegaConf

from sparse_bench.config import CONF
from sparse_bench.errors import SparseBenchError, unknown_choice

#: A stand-in has the paper's size and another corpus than the paper's, which is not to be had.
Scale = Literal["paper", "stand-in", "benchmark", "reduced"]
#: In the order in which verdicts are taken from them.
SCALES: tuple[Scale, ...] = get_args(Scale)
#: Experiments whose names hold one of these words are smaller than the paper's. (``small_dense`` is a scheme.)
_REDUCED = re.compile(r"(.*[_/])?(small|tiny|quickstart)(?!_dense)([_/].*)?")
#: A group's label in an experiment's name.
_LABEL = re.compile(r"\$\{(\w+)\.label\}")


class UnknownExperimentError(SparseBenchError):
    """A claim or a page names an experiment that no file of the configuration tree defines."""


class YAMLError(SparseBenchError):
    """A file of claims, or the description of a paper, is no YAML, or gives a key twice."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, in plain values.

    Raises:
        YAMLError: it is none, or gives a key twice (which yaml's own reading lets through).
    """
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except yaml.YAMLError as error:
        raise YAMLError(f"{path.name}: {error}") from error


@cache
def experiments(conf: Path = CONF) -> frozenset[str]:
    """Names of all experiments: ``experiment_name`` of the files of the groups ``experiment`` and ``sweep``.

    A name that holds a group's label, as ``x_${optimizer.label}`` does, stands for one name for each file of the group
    that the sweep goes over.
    """
    found = set()
    for group in ("experiment", "sweep"):
        for path in sorted((conf / group).rglob("*.yaml")):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            name = content.get("experiment_name")
            if name:
                found |= _names(str(name), content.get("hydra", {}).get("sweeper", {}).get("params", {}), conf)
    return frozenset(found)


def _names(name: str, swept: dict[str, Any], conf: Path) -> set[str]:
    match = _LABEL.search(name)
    if match is None:
        return set() if "${" in name else {name}
    found = set()
    for file in str(swept.get(match[1], "")).split(","):
        path = conf / match[1] / f"{file.strip()}.yaml"
        if path.is_file():
            label = yaml.safe_load(path.read_text(encoding="utf-8"))["label"]
            found |= _names(name.replace(match[0], str(label)), swept, conf)
    return found


def scale(experiment: str) -> Scale:
    """Whether an experiment has the paper's size or a smaller one, by its name; claims say which ones stand in."""
    return "reduced" if _REDUCED.fullmatch(experiment) else "paper"


def check_experiment(name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name, listing the known ones.

    Raises:
        UnknownExperimentError: see above.
    """
    known = set(known)
    if name not in known:
        raise UnknownExperimentError(unknown_choice("experiment", name, known))


def expand(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """Experiments that patterns such as ``brouns/*`` name, in the order of the patterns.

    Raises:
        UnknownExperimentError: a pattern names none.
    """
    names = sorted(known)
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise UnknownExperimentError(unknown_choice("experiment", pattern, names))
        found |= dict.fromkeys(matching)
    return list(found)
