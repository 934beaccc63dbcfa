"""Whether what a run has left behind, a result, a checkpoint or weights, still belongs to a configuration.

Settings name a run. Data, code outside the package and the run that it starts from do not, so they are compared.
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
    """What a run's numbers come from besides its settings.

    Args:
        plain: the resolved configuration.
        checksums: of its data.
        source: the run that it starts from.
    """
    return {"data": checksums, "code": own_code(plain), "start_from": source.checksum if source else {}}


def finished_before(plain: dict[str, Any], folder: RunFolder, source: Source | None) -> Result | None:
    """The result of a run that need not be made again; None if there is none yet, or if ``force`` asks for another.

    Then what is there is put aside.

    Raises:
        ConfigError: its data, or the run that it started from, have changed; names what has, and the choices.
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
    logger.warning("%s: run again (force=true); what was there is in %s", folder.path, folder.set_aside())
    return None


def set_aside_unless_it_goes_on(trainer: Trainer, folder: RunFolder) -> None:
    """Put a checkpoint aside that the run cannot go on from."""
    try:
        trainer.resume()
    except CheckpointError as error:
        logger.warning("%s It is begun anew (force=true); what was there is in %s", error, folder.set_aside())


def load_first_stage(source: Source, model: nn.Module, scheme: Scheme, origin: Origin) -> None:
    """Give the model the weights that ``source`` ended with, and the scheme its state.

    Raises:
        CheckpointError: they cannot be read, are not those of its result, or were made from other data or code.
    """
    state = checkpoint.load(source.weights)
    if source.checksum and source.checksum[source.name] != checkpoint.fingerprint(state["model"]):
        raise CheckpointError(
            f"{source.weights} holds other weights than the result beside it was measured with. "
            f"Run {source.name} again with force=true."
        )
    checkpoint.check_origin(source.weights, {**state["origin"], "start_from": {}}, origin)
    with checkpoint.fitting(source.weights):
        model.load_state_dict(state["model"])
        scheme.load_state_dict(state["scheme"])


def _compare(plain: dict[str, Any], folder: RunFolder, result: Result, source: Source | None) -> None:
    """Refuse a result of other data. Of other code it is still a measurement, and may differ from the present one in
    no more than a comment: that is said."""
    checksums = _checksums_now(plain, folder)
    now = origin_of(plain, result.data if checksums is None else checksums, source)
    if changed := differences(result.origin, now, ("data", "start_from")):
        _cached_checksums.cache_clear()
        raise ConfigError(
            f"{folder.path} has finished, with something else than there is now: {changed}. Restore it, or run it "
            "again with force=true (what is there is kept in its folder's .earlier), or choose another output."
        )
    if changed := differences(result.origin, now, ("code",)):
        logger.warning(
            "%s: finished with something else than there is now: %s. Its numbers are those of the earlier code; "
            "force=true runs it again",
            folder.path,
            changed,
        )


def _checksums_now(plain: dict[str, Any], folder: RunFolder) -> dict[str, str] | None:
    """Of the data as they are now: the corpus is read, and nothing is made of it. None where it cannot be read here,
    which is no reason to refuse what has been measured."""
    node = plain["dataset"]
    of_corpus = target_of(node, "dataset").checksums is Task.checksums and isinstance(node.get("corpus"), dict)
    try:
        return _cached_checksums(OmegaConf.to_yaml(OmegaConf.create(node["corpus"] if of_corpus else node)))
    except Exception as error:
        logger.warning("%s: whether its data have changed is not known, as they cannot be read: %s", folder.path, error)
        return None


@lru_cache(maxsize=64)  # of the runs of a sweep many share a corpus, and reading it takes seconds
def _cached_checksums(yaml: str) -> dict[str, str]:
    """Of a corpus, or of a task where that alone knows."""
    checksums = build(OmegaConf.to_container(OmegaConf.create(yaml)), _partial_=False).checksums
    return dict(checksums() if callable(checksums) else checksums)
