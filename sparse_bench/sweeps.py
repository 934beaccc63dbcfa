"""List the runs of a sweep that Hydra would start, with their configurations, without starting them."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from sparse_bench.config import CONF, choices, register, run_id
from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.record import FINISHED, Result, RunFolder
from sparse_bench.source import NoSourceError, find_source


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        sweep: the sweep's name.
        arm: the overrides that distinguish the run from others of its sweep, without the seed, joined by spaces.
        config: the complete configuration.
        id: name of the run; None while the run that it starts from has not finished.
    """

    sweep: str
    arm: str
    config: DictConfig
    id: str | None

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.config.experiment_name)

    def result(self) -> Result | None:
        """The run's result if it has finished, else None."""
        if self.id is None:
            return None
        found = RunFolder(Path(self.config.output) / self.experiment / self.id).result()
        return found if found is not None and found.status == FINISHED else None


def overrides(sweep: str, own: Path | None = None) -> list[list[str]]:
    """The overrides of each run of a sweep, in the order of Hydra's own sweeper; ``own`` is ``--config-dir``.

    Raises:
        ConfigError: there is no such sweep.
    """
    known = {*choices("sweep"), *(choices("sweep", own) if own is not None else [])}
    if sweep not in known:
        raise ConfigError(unknown_choice("sweep", sweep, known))
    axes = [f"{key}={value}" for key, value in _read("sweep", sweep, own)["hydra"]["sweeper"]["params"].items()]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(axes), None)
    return [list(job) for job in batch]


def jobs(sweep: str, output: Path, own: Path | None = None) -> list[Job]:
    """All runs of a sweep, with ``output`` as the folder of runs; ``own`` as of :func:`overrides`.

    Raises:
        ConfigError: there is no such sweep.
    """
    return list(_jobs(sweep, output, own))


def may_start(sweep: str, experiment: str) -> bool:
    """Whether a sweep may have runs of an experiment, according to its file; True if the file leaves that open."""
    node = _read("sweep", sweep)
    if "experiment_name" in node:
        named = [node["experiment_name"]]
    else:
        chosen = [
            default[key] for default in node.get("defaults", []) for key in default if key.endswith("/experiment")
        ]
        files = [*chosen, *node["hydra"]["sweeper"]["params"].get("experiment", "").split(",")]
        named = [_read("experiment", file.strip())["experiment_name"] for file in files if file.strip()]
    return any(fnmatchcase(experiment, re.sub(r"\$\{[^}]*\}", "*", name)) for name in named)


def shipped_config(experiment: str) -> DictConfig:
    """The configuration of ``experiment=NAME`` without further overrides."""
    return copy.deepcopy(_compose(f"experiment={experiment}"))


@cache  # reading a file takes milliseconds, and finding the sweeps of an experiment reads hundreds
def _read(group: str, name: str, own: Path | None = None) -> Any:
    shipped = CONF / group / f"{name}.yaml"
    path = shipped if shipped.is_file() or own is None else own / group / f"{name}.yaml"
    return OmegaConf.to_container(OmegaConf.load(path))


def _jobs(sweep: str, output: Path, own: Path | None) -> Iterator[Job]:
    parser = OverridesParser.create()
    for job in overrides(sweep, own):
        parsed = parser.parse_overrides(job)
        # Runs with the same files differ only in values, so the composed configuration is reused.
        files = [text for text, override in zip(job, parsed, strict=True) if _chooses_a_file(override, own)]
        config = copy.deepcopy(_compose(f"sweep={sweep}", *files, own=own))
        with open_dict(config):
            config.output = str(output)  # not an override, where commas and brackets have a meaning
            for override in parsed:
                if not _chooses_a_file(override, own):
                    OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
        arm = [text for text, override in zip(job, parsed, strict=True) if override.key_or_group != "seed"]
        yield Job(sweep, " ".join(arm), config, _run_id(config))


def _chooses_a_file(override: Override, own: Path | None) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in (CONF, own) if folder is not None)


@cache  # composing takes 0.2 s, and callers list the runs of the same sweeps repeatedly
def _compose(*chosen: str, own: Path | None = None) -> DictConfig:
    """A composed configuration; callers must copy it before they change it."""
    register()
    searched = [] if own is None else [f"hydra.searchpath=[file://{own.resolve()}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*searched, *chosen])


def _run_id(config: Any) -> str | None:
    try:
        source = find_source(config)
    except NoSourceError:
        return None
    return run_id(config, source.name if source else None)
