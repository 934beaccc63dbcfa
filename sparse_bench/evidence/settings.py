"""Settings of runs: those that define an arm, the defaults of older runs, and differences from shipped runs."""

import json
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
from sparse_bench.evidence.csv_tables import flatten, plain, sort_key
from sparse_bench.sweeps import jobs, may_start, shipped_config

#: Text for a null where the code's default is not null. An empty cell means that the setting is younger than the run.
_NULL = "null"
#: Ways of computing a product may differ between machines: all agree to rounding.
_FREE = frozenset({"sparsity.execution"})
_TRAINER = {field.name: field.default for field in fields(TrainerConfig)}


def defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that define an arm, by dotted path. None is the code's default; any other null is a text."""
    found = {path: value for path, value in sorted(flatten(config).items()) if defines_an_arm(path)}
    nulls = [path for path, value in found.items() if value is None and _default(found, path) not in (MISSING, None)]
    return found | dict.fromkeys(nulls, _NULL)


def shared_and_varying(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Split flat settings into those on which all configurations agree, with values, and the names of the others."""
    paths = sorted({path for config in configs for path in config})
    values = {path: {sort_key(config.get(path)): config.get(path) for config in configs} for path in paths}
    shared = {path: plain(next(iter(found.values()))) for path, found in values.items() if len(found) == 1}
    return shared, [path for path in paths if path not in shared]


def completed(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the settings that some runs are too old to have, with the code's default.

    This is valid because a default in the code never changes its meaning.
    """
    filled = [dict(config) for config in configs]
    paths = sorted({path for config in filled for path in config})
    for config in filled:
        for path in paths:
            if config.get(path) is None and (default := _default(config, path)) is not MISSING:
                config[path] = default
    return filled


def _default(config: Mapping[str, Any], path: str) -> Any:
    """The code's default of a setting; MISSING if the configuration has no node with such a setting."""
    node, _, name = path.rpartition(".")
    if node == "trainer":
        return _TRAINER.get(name, MISSING)
    target = config.get(f"{node}._target_")
    return _defaults(target).get(name, MISSING) if isinstance(target, str) else MISSING


@cache
def _defaults(target: str) -> Mapping[str, Any]:
    """Known defaults of a target's arguments, as a configuration would hold them."""
    found = {
        name: list(one.default) if isinstance(one.default, tuple) else one.default
        for name, one in recorded_parameters(target).items()
    }
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str | list | None)}


def alterations(experiment: str, config: Mapping[str, Any]) -> str | None:
    """Differences of a run from the most similar run that the configuration tree ships; None without differences.

    An experiment's name stands for a paper and a scale. A run with other settings, such as three epochs, keeps the
    name: pages show it, but no claim and no comparison with published values uses it. Any seed counts as shipped. A
    missing setting has the code's default.

    Args:
        experiment: name of the experiment.
        config: the run's configuration, nested or flat.
    """
    return _alterations(experiment, json.dumps(defining(config)))


@cache  # runs that differ in their seeds alone are compared once
def _alterations(experiment: str, own_text: str) -> str | None:
    own, known = json.loads(own_text), _shipped(experiment)
    if not known:
        return "no shipped experiment has this name"
    keys = _keys(own)
    differences = [_differences(own, one, keys, others) for one, others in known]
    nearest = min(differences, key=len)
    return "; ".join(nearest) or None


#: Setting and key of its value, for all settings of a configuration.
_Keys = frozenset[tuple[str, tuple[int, float, str]]]


def _keys(config: Mapping[str, Any]) -> _Keys:
    return frozenset((path, sort_key(_value(config, path))) for path in config)


def _differences(own: Mapping[str, Any], shipped: Mapping[str, Any], keys: _Keys, others: _Keys) -> list[str]:
    """The settings in which two flat configurations differ, a text each; ``keys`` and ``others`` are their keys."""
    found = []
    # Only one of them may hold a setting, and the other its default, so what the sets say is looked at more closely.
    for path in sorted({path for path, _ in keys ^ others} - _FREE):
        value, other = _value(own, path), _value(shipped, path)
        if sort_key(value) != sort_key(other):
            found.append(f"{path}: {value}, not {other}")
    return found


def _value(config: Mapping[str, Any], path: str) -> Any:
    """A setting as a cell; by default that of the code."""
    value = config.get(path)
    value = _default(config, path) if value is None else value
    return None if value is MISSING else plain(value)


@cache
def _shipped(experiment: str) -> tuple[tuple[Mapping[str, Any], _Keys], ...]:
    """The settings of every run of an experiment that a sweep or the experiment's own file starts."""
    # Composing takes half a second a file, so only sweeps that may start the experiment are composed.
    sweeps = [sweep for sweep in choices("sweep") if may_start(sweep, experiment)]
    found = [settings for sweep in sweeps for name, settings in _started(sweep) if name == experiment]
    if experiment in choices("experiment"):
        found.append(_plain(shipped_config(experiment)))
    return tuple((settings, _keys(settings)) for settings in {str(one): one for one in found}.values())


@cache
def _started(sweep: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Experiment and settings of every run that a sweep starts."""
    return tuple((job.experiment, _plain(job.config)) for job in jobs(sweep, Path()))


def _plain(config: DictConfig) -> dict[str, Any]:
    return defining(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
