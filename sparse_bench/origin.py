"""Check whether a run's result, checkpoint or weights still belong to a configuration.

A run's name covers its settings. It does not cover its data, code outside the package, or the run that it starts from.
These are compared here.
"""

import logging
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from sparse_bench.config import build, own_code, target_of
from sparse_bench.errors import CheckpointError, ConfigError
from sparse_bench.record import FINISHED, Origin, Result, RunFolder, differences
from sparse_bench.source import Source
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.tasks.base import Task
from sparse_bench.training import checkpoint
from sparse_bench.training.trainer import Trainer

logger = logging.getLogger(__name__)


def origin_of(plain: dict[str, Any], checksums: dict[str, str], source: Source | None) -> Origin:
    """What a run's numbers depend on in addition to its settings, as SHA-256 by part and name.

    Args:
        plain: the resolved configuration.
        checksums: SHA-256 of its data, by name.
        source: the run that it starts from.
    """
    return {"data": checksums, "code": own_code(plain), "start_from": source.checksum if source else {}}


def finished_before(plain: dict[str, Any], folder: RunFolder, source: Source | None) -> Result | None:
    """The result of a run that has finished before; None if the run has to be trained.

    With ``force`` an existing result is set aside, and the run is trained again.

    Raises:
        ConfigError: its data or the run that it started from have changed. The message names the changes and choices.
        CheckpointError: the result cannot be read.
    """
    try:
        result = folder.result()
    except CheckpointError:
        if not plain["force"]:
            raise
    else:
        if result is None or result.status != FINISHED:
            return None
        if not plain["force"]:
            _compare(plain, folder, result, source)
            return result
    logger.warning("%s: run again (force=true); the earlier files are in %s", folder.path, folder.set_aside())
    return None


def set_aside_if_not_resumable(trainer: Trainer, folder: RunFolder) -> None:
    """Set the run's files aside if it cannot resume from its checkpoint."""
    try:
        trainer.resume()
    except CheckpointError as error:
        logger.warning("%s The run restarts (force=true); the earlier files are in %s", error, folder.set_aside())


def load_first_stage(source: Source, model: nn.Module, scheme: Scheme, origin: Origin) -> None:
    """Load the final weights of ``source`` into the model, and its scheme's state into the scheme.

    Raises:
        ConfigError: the scheme cannot start from them.
        CheckpointError: the weights cannot be read, are not those of its result, or come from other data or code.
    """
    state = checkpoint.load(source.weights)
    if source.checksum and source.checksum[source.name] != checkpoint.fingerprint(state["model"]):
        raise CheckpointError(
            f"The weights in {source.weights} are not those of the result in the same folder. "
            f"Run {source.name} again with force=true."
        )
    checkpoint.check_origin(source.weights, {**state["origin"], "start_from": {}}, origin)
    with checkpoint.fitting(source.weights):
        model.load_state_dict(state["model"])
        scheme.load_state_dict(state["scheme"])
    scheme.next_stage(model)


def _compare(plain: dict[str, Any], folder: RunFolder, result: Result, source: Source | None) -> None:
    """Refuse a result of other data; only warn about a result of other code.

    A result of other code is still a measurement, and the change may be no more than a comment.
    """
    checksums = _checksums_now(plain, folder)
    now = origin_of(plain, result.data if checksums is None else checksums, source)
    if changed := differences(result.origin, now, ("data", "start_from")):
        _cached_checksums.cache_clear()
        raise ConfigError(
            f"{folder.path} has finished, but its data or first stage have changed since then: {changed}. Restore "
            "them, choose another output, or run it again with force=true. Its files are then kept in .earlier."
        )
    if changed := differences(result.origin, now, ("code",)):
        logger.warning(
            "%s has finished, but its code has changed since then: %s. Its numbers are those of the earlier code. "
            "To run it again, add force=true",
            folder.path,
            changed,
        )


def _checksums_now(plain: dict[str, Any], folder: RunFolder) -> dict[str, str] | None:
    """Checksums of the present data; None if the data cannot be read here, since the result is still valid then.

    Only the corpus is read; the task is not built if its checksums are those of the corpus.
    """
    node = plain["dataset"]
    of_corpus = target_of(node, "dataset").checksums is Task.checksums and isinstance(node.get("corpus"), dict)
    try:
        return _cached_checksums(OmegaConf.to_yaml(OmegaConf.create(node["corpus"] if of_corpus else node)))
    except Exception as error:
        logger.warning("%s: its data cannot be read, so any change in them goes unnoticed: %s", folder.path, error)
        return None


@lru_cache(maxsize=64)  # many runs of a sweep share a corpus, and reading it takes seconds
def _cached_checksums(yaml: str) -> dict[str, str]:
    """Checksums of the corpus or task that ``yaml`` configures."""
    checksums = build(OmegaConf.to_container(OmegaConf.create(yaml)), _partial_=False).checksums
    return dict(checksums() if callable(checksums) else checksums)
