"""Which finished run another one starts from: the second stage of a training in two stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sparse_bench.config import identity, recorded_identity
from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.record import FINISHED, RunFolder

#: What a run must share with the one that it starts from.
_SHARED = ("seed", "model", "dataset", "sparsity")


class NoSourceError(ConfigError):
    """There is no run to start from, or none yet."""


@dataclass(frozen=True)
class Source:
    """A run to start from.

    Attributes:
        name: ``experiment/id``.
        weights: file of its final weights.
        checksum: the name, and what the run's result says of these weights; empty if an earlier version wrote it.
    """

    name: str
    weights: Path
    checksum: dict[str, str]


def find_source(config: DictConfig) -> Source | None:
    """The run that ``config.start_from`` asks for, None if it asks for none.

    ``start_from`` names an experiment, or one run of it as ``experiment/id``. Of its runs below ``config.output`` the
    one is meant that has finished, has kept its weights (``trainer.keep=weights``) and has the same seed, model,
    dataset and sparsity.

    Raises:
        NoSourceError: there is no such run; names the runs that there are.
        ConfigError: there are several.
    """
    wanted = config.start_from
    if wanted is None:
        return None
    output = Path(config.output)
    named = output / wanted
    try:
        folders = [named] if (named / "result.json").exists() else sorted(p.parent for p in named.glob("*/result.json"))
    except OSError as error:  # a name that no file can have
        raise NoSourceError(f"start_from='{wanted}' is the name of no experiment: {error.strerror}.") from error
    own = identity(config)
    unfit = {str(folder.relative_to(output)): _misfit(RunFolder(folder), own) for folder in folders}
    fit = [name for name, reason in unfit.items() if reason is None]
    if len(fit) == 1:
        folder = RunFolder(output / fit[0])
        result = folder.result()
        weights = result.weights if result is not None else None
        return Source(fit[0], folder.weights, {} if weights is None else {fit[0]: weights})
    if fit:
        raise ConfigError(f"start_from='{wanted}' fits several runs. Valid choices: {', '.join(fit)}.")
    there = "; ".join(f"{name} ({reason})" for name, reason in unfit.items()) or "none"
    raise NoSourceError(
        f"start_from='{wanted}' needs a finished run of that experiment in {output} with the same seed, model, dataset "
        f"and sparsity, and its weights (trainer.keep=weights). Runs there: {there}."
    )


def _misfit(folder: RunFolder, own: dict[str, Any]) -> str | None:
    """Why the run in ``folder`` cannot be started from; None if it can."""
    try:
        result = folder.result()
        if result is None or result.status != FINISHED:
            return "not finished"
        theirs = recorded_identity(result.config)
        other = [key for key in _SHARED if theirs[key] != own[key]]
    except (SparseBenchError, LookupError, TypeError, AttributeError) as error:
        return f"cannot be read: {error}"
    if other:
        return f"another {' and '.join(other)}"
    return None if folder.weights.exists() else "without weights"
