"""The experiments that the configuration tree defines, each with its scale."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sparse_bench.config.schema import CONF
from sparse_bench.errors import ConfigError, unknown_choice

#: A stand-in has the paper's size, on another corpus, as the paper's own corpus is not available.
Scale = Literal["paper", "stand-in", "reduced"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class UnknownExperimentError(ConfigError):
    """An experiment is not defined by any file of the configuration tree."""


@cache
def experiments(conf: Path = CONF) -> Mapping[str, Scale]:
    """Experiment → its scale, for each file of the groups ``experiment`` and ``sweep`` with an ``experiment_name``.

    A name with the label of a group, such as ``x_${optimizer.label}``, stands for several: one for each file of that
    group in the sweep.
    """
    found: dict[str, Scale] = {}
    for path in sorted([*(conf / "experiment").rglob("*.yaml"), *(conf / "sweep").rglob("*.yaml")]):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        swept = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        names = _names(str(content.get("experiment_name", "${")), swept, conf)
        found |= dict.fromkeys(names, content.get("scale", "paper"))
    return found


def _names(name: str, swept: Mapping[str, Any], conf: Path) -> list[str]:
    if "${" not in name:
        return [name]
    start, _, rest = name.partition("${")
    key, _, end = rest.partition("}")
    group, _, field = key.partition(".")
    if field != "label":  # a value that another file defines
        return []
    files = [conf / group / f"{file.strip()}.yaml" for file in str(swept.get(group, "")).split(",")]
    labels = [yaml.safe_load(path.read_text(encoding="utf-8"))["label"] for path in files if path.is_file()]
    return [found for label in labels for found in _names(f"{start}{label}{end}", swept, conf)]


def check_experiment(name: str, known: Iterable[str]) -> None:
    """Check that an experiment is known.

    Raises:
        UnknownExperimentError: it is not; the message lists the known ones.
    """
    known = list(known)
    if name not in known:
        raise UnknownExperimentError(unknown_choice("experiment", name, known))


def expand(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """The experiments that match patterns such as ``brouns/*``, in the order of the patterns.

    Raises:
        UnknownExperimentError: a pattern matches no experiment.
    """
    names = sorted(known)
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise UnknownExperimentError(unknown_choice("experiment", pattern, names))
        found |= dict.fromkeys(matching)
    return list(found)
