"""Whether a run is one that a shipped experiment or sweep starts, or one with settings of its own.

An experiment's name says which paper and which scale its runs speak for. Someone who trains it for three epochs, or
with narrower layers, keeps the name; such runs are shown, but no claim and no figure beside the paper's counts them. (A
number of weights does not depend on how long a run was; it is taken from a shorter one where there is no other.)
"""

from collections.abc import Mapping
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import choices
from sparse_bench.report.load import NOT_DEFINING, default_of, flatten, plain, sort_key
from sparse_bench.sweeps import jobs, may_start, shipped_config

#: The column of a table of runs: what was changed, as text; empty for a run as shipped.
ALTERED = "altered"
#: How a product is computed is left to the machine: all ways agree to rounding.
_FREE = frozenset({"sparsity.execution"})


def alterations(experiment: str, config: Mapping[str, Any]) -> str | None:
    """In what a run differs from the most similar one that the configuration tree defines; None if in nothing.

    Any seed is as shipped. A setting that the run does not have is younger than it is: the run had the code's default.

    Args:
        experiment: name of the experiment.
        config: the run's whole configuration.
    """
    known = _shipped(experiment)
    if not known:
        return "no shipped experiment has this name"
    flat = flatten(config)
    own = _settings(flat)

    def differences(one: Mapping[str, str]) -> list[str]:
        younger = {path: default_of(flat, path) for path in one if path not in own}
        every = own | _settings({path: value for path, value in younger.items() if value is not MISSING})
        return [
            f"{path}: {value}, not {one.get(path, 'set')}" for path, value in every.items() if one.get(path) != value
        ]

    nearest = min(map(differences, known), key=len)
    return "; ".join(nearest) or None


@cache
def _shipped(experiment: str) -> tuple[Mapping[str, str], ...]:
    """The settings of every run of an experiment that a sweep, or the experiment's own file, starts."""
    # Composing takes half a second a file, so only sweeps that may have the experiment are looked at.
    sweeps = [sweep for sweep in choices("sweep") if may_start(sweep, experiment)]
    found = [settings for sweep in sweeps for name, settings in _started(sweep) if name == experiment]
    if experiment in choices("experiment"):
        found.append(_settings_of(shipped_config(experiment)))
    return tuple({tuple(settings.items()): settings for settings in found}.values())


@cache
def _started(sweep: str) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """Experiment and settings of every run that a sweep starts."""
    return tuple((job.experiment, _settings_of(job.config)) for job in jobs(sweep, Path()))


def _settings_of(config: DictConfig) -> dict[str, str]:
    return _settings(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """What defines a run, by dotted path, as text that is equal for equal values (1 and 1.0). No paths: they differ."""
    return {
        path: str(sort_key(value)[1] if sort_key(value)[0] == 1 else plain(value))
        for path, value in sorted(flatten(config).items())
        if not NOT_DEFINING.fullmatch(path) and path not in _FREE and not str(value).startswith(("/", "~"))
    }
