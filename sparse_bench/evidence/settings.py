"""Settings of runs: which define an arm, what older runs had where they lack one, and which runs are as shipped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparse_bench.config import choices
from sparse_bench.config.identifier import defines_an_arm
from sparse_bench.config.nodes import recorded_parameters
from sparse_bench.config.schema import TrainerConfig
from sparse_bench.evidence.cells import flatten, plain, sort_key
from sparse_bench.sweeps import jobs, may_start, shipped_config

#: Ways of computing a product are left to the machine: all agree to rounding.
_FREE = frozenset({"sparsity.execution"})


def defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that define an arm, by dotted path. Paths of files are left out: they belong to a machine."""
    return {
        path: value
        for path, value in sorted(flatten(config).items())
        if defines_an_arm(path) and not str(value).startswith(("/", "~"))
    }


def shared_and_varying(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Of flat defining settings: those on which all agree, with their value, and the names of the others."""
    paths = sorted({path for config in configs for path in config})
    values = {path: {sort_key(config.get(path)): config.get(path) for config in configs} for path in paths}
    shared = {path: plain(next(iter(found.values()))) for path, found in values.items() if len(found) == 1}
    return shared, [path for path in paths if path not in shared]


def completed(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flat settings with those that some runs are too old to have.

    A setting that is younger than a run had the code's default there: a default in the code never changes its meaning.
    """
    filled = [dict(config) for config in configs]
    paths = sorted({path for config in filled for path in config})
    for config in filled:
        for path in paths:
            if path not in config and (default := _default(config, path)) is not MISSING:
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
    flat = {path: value for path, value in flatten(config).items() if value is not None}
    return "; ".join(min((_differences(flat, one) for one in known), key=len)) or None


def _differences(flat: Mapping[str, Any], shipped: Mapping[str, tuple[Any, str]]) -> list[str]:
    """What is set otherwise in a flat configuration than in a shipped one, a text each."""
    younger = {path: _default(flat, path) for path in shipped if path not in flat}
    every = _compared(flat | {path: value for path, value in younger.items() if value is not MISSING})
    unset = (sort_key(None), "None")
    return [
        f"{path}: {every.get(path, unset)[1]}, not {shipped.get(path, unset)[1]}"
        for path in sorted({*every, *shipped})
        if every.get(path, unset)[0] != shipped.get(path, unset)[0] and (path in every or path in younger)
    ]


@cache
def _shipped(experiment: str) -> tuple[Mapping[str, tuple[Any, str]], ...]:
    """The settings of every run of an experiment that a sweep, or the experiment's own file, starts."""
    # Composing takes half a second a file, so only sweeps that may have the experiment are looked at.
    sweeps = [sweep for sweep in choices("sweep") if may_start(sweep, experiment)]
    found = [settings for sweep in sweeps for name, settings in _started(sweep) if name == experiment]
    if experiment in choices("experiment"):
        found.append(_compared(OmegaConf.to_container(shipped_config(experiment), resolve=True)))  # type: ignore[arg-type]
    return tuple({tuple(settings.items()): settings for settings in found}.values())


@cache
def _started(sweep: str) -> tuple[tuple[str, Mapping[str, tuple[Any, str]]], ...]:
    """Experiment and settings of every run that a sweep starts."""
    plain_configs = [(job.experiment, OmegaConf.to_container(job.config, resolve=True)) for job in jobs(sweep, Path())]
    return tuple((name, _compared(config)) for name, config in plain_configs)  # type: ignore[arg-type]


def _compared(config: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """What defines an arm, as what is compared and its text."""
    return {path: (sort_key(value), str(plain(value))) for path, value in defining(config).items() if path not in _FREE}
