"""Settings of runs: which define an arm, what older runs had where they lack one, and which runs are as shipped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import choices
from sparse_bench.config.identifier import defines_an_arm
from sparse_bench.config.nodes import recorded_parameters
from sparse_bench.config.schema import TrainerConfig
from sparse_bench.evidence.cells import flatten, plain, sort_key
from sparse_bench.sweeps import jobs, may_start, shipped_config

#: Null where the code's default is another. An empty cell is a setting that is younger than its run.
_NULL = "null"
#: Ways of computing a product are left to the machine: all agree to rounding.
_FREE = frozenset({"sparsity.execution"})


def defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that define an arm, by dotted path. None is the code's default; another null is a text."""
    found = {path: value for path, value in sorted(flatten(config).items()) if defines_an_arm(path)}
    nulls = [path for path, value in found.items() if value is None and _default(found, path) not in (MISSING, None)]
    return found | dict.fromkeys(nulls, _NULL)


def shared_and_varying(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Of flat defining settings: those on which all agree, with their value, and the names of the others."""
    paths = sorted({path for config in configs for path in config})
    values = {path: {sort_key(config.get(path)): config.get(path) for config in configs} for path in paths}
    shared = {path: plain(next(iter(found.values()))) for path, found in values.items() if len(found) == 1}
    return shared, [path for path in paths if path not in shared]


def completed(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flat defining settings with those that some runs are too old to have.

    A setting that is younger than a run had the code's default there: a default in the code never changes its meaning.
    """
    filled = [dict(config) for config in configs]
    paths = sorted({path for config in filled for path in config})
    for config in filled:
        for path in paths:
            if config.get(path) is None and (default := _default(config, path)) is not MISSING:
                config[path] = default
    return filled


def _default(config: Mapping[str, Any], path: str) -> Any:
    """What the code takes for a setting that a configuration lacks; MISSING if it belongs to nothing in it."""
    node, _, name = path.rpartition(".")
    if node == "trainer":
        return {field.name: field.default for field in fields(TrainerConfig)}.get(name, MISSING)
    target = config.get(f"{node}._target_")
    return _defaults(target).get(name, MISSING) if isinstance(target, str) else MISSING


@cache
def _defaults(target: str) -> Mapping[str, Any]:
    """Defaults of a target's arguments, as a configuration would hold them, where they can be known."""
    found = {
        name: list(one.default) if isinstance(one.default, tuple) else one.default
        for name, one in recorded_parameters(target).items()
    }
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str | list | None)}


def alterations(experiment: str, config: Mapping[str, Any]) -> str | None:
    """In what a run differs from the most similar one that the configuration tree defines; None if in nothing.

    An experiment's name says which paper and which scale its runs speak for. Someone who trains it for three epochs
    keeps the name; such runs are shown, but no claim and no figure beside the paper's counts them. Any seed is as
    shipped. A setting that the run does not have is younger than it is: the run had the code's default.

    Args:
        experiment: name of the experiment.
        config: the run's configuration, whole or flat.
    """
    known = _shipped(experiment)
    if not known:
        return "no shipped experiment has this name"
    own = defining(config)
    differences = [_differences(own, one) for one in known]
    nearest = min(differences, key=len)
    return "; ".join(nearest) or None


def _differences(own: Mapping[str, Any], shipped: Mapping[str, Any]) -> list[str]:
    """What is set otherwise in one flat configuration than in the other, a text each."""
    found = []
    for path in sorted({*own, *shipped} - _FREE):
        value, other = _value(own, path), _value(shipped, path)
        if sort_key(value) != sort_key(other):
            found.append(f"{path}: {value}, not {other}")
    return found


def _value(config: Mapping[str, Any], path: str) -> Any:
    """A setting, or the code's default where it is left out, as a table would hold it."""
    value = config.get(path)
    value = _default(config, path) if value is None else value
    return None if value is MISSING else plain(value)


@cache
def _shipped(experiment: str) -> tuple[Mapping[str, Any], ...]:
    """The settings of every run of an experiment that a sweep, or the experiment's own file, starts."""
    # Composing takes half a second a file, so only sweeps that may have the experiment are looked at.
    sweeps = [sweep for sweep in choices("sweep") if may_start(sweep, experiment)]
    found = [settings for sweep in sweeps for name, settings in _started(sweep) if name == experiment]
    if experiment in choices("experiment"):
        found.append(_plain(shipped_config(experiment)))
    return tuple({str(settings): settings for settings in found}.values())


@cache
def _started(sweep: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Experiment and settings of every run that a sweep starts."""
    return tuple((job.experiment, _plain(job.config)) for job in jobs(sweep, Path()))


def _plain(config: DictConfig) -> dict[str, Any]:
    return defining(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
