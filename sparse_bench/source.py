"""Find the finished run whose weights another run starts from, as the second of two training stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sparse_bench.config import identity, recorded_identity
from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.record import FINISHED, RunFolder

#: Settings that a run must share with the run that it starts from.
_SHARED = ("seed", "model", "dataset", "sparsity")


class NoSourceError(ConfigError):
    """There is no finished run to start from, or not yet."""


@dataclass(frozen=True)
class Source:
    """A run to start from.

    Attributes:
        name: ``experiment/id``.
        weights: file of its final weights.
        checksum: the name → the SHA-256 of these weights by the run's result; empty if the result has none, as those
            of earlier versions.
    """

    name: str
    weights: Path
    checksum: dict[str, str]


def find_source(config: DictConfig) -> Source | None:
    """Find the run that ``config.start_from`` names; None if it is null.

    ``start_from`` names an experiment, or one of its runs as ``experiment/id``. The run must lie below
    ``config.output``, have finished, and have kept its weights (``trainer.keep=weights``). Its seed, model, dataset and
    sparsity must be the same.

    Raises:
        NoSourceError: no run fits; the message lists the existing runs.
        ConfigError: several runs fit.
    """
    wanted = config.start_from
    if wanted is None:
        return None
    output = Path(config.output)
    named = output / wanted
    try:
        folders = [named] if (named / "result.json").exists() else sorted(p.parent for p in named.glob("*/result.json"))
    except OSError as error:  # an impossible file name
        raise NoSourceError(f"start_from='{wanted}' cannot be the name of an experiment: {error.strerror}.") from error
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
        f"start_from='{wanted}' needs a finished run of that experiment in {output} that kept its weights "
        f"(trainer.keep=weights) and has the same seed, model, dataset and sparsity. Runs found: {there}."
    )


def _misfit(folder: RunFolder, own: dict[str, Any]) -> str | None:
    """Why no run can start from the run in ``folder``; None if one can."""
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
