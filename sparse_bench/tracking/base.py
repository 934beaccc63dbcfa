"""The interface of trackers, and a tracker that combines several so that none of them can harm the run."""

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from sparse_bench.errors import SparseBenchError

logger = logging.getLogger(__name__)

Status = Literal["finished", "failed"]
#: Names in a run's summary for its sparse layers: the requested density, if any; the realised density of the trained
#: model; and its number of weights.
ASKED, DENSITY, WEIGHTS = "sparsity/density_asked", "sparsity/density", "sparsity/weights"


@dataclass(frozen=True)
class RunInfo:
    """What a tracker needs to identify a run.

    Attributes:
        id: the run's hash; a resumed run keeps its id.
        name: name for a legend, model/density/seed.
        experiment: name of the experiment that the run is part of.
        labels: ``model``, ``dataset``, ``scheme`` and ``density`` of the run.
        seed: the run's seed.
        config: the resolved configuration, as plain dictionaries, lists and scalars.
        folder: the run's own folder; trackers write their files below it.
    """

    id: str
    name: str
    experiment: str
    labels: Mapping[str, Any]
    seed: int
    config: dict[str, Any]
    folder: Path

    @property
    def job_type(self) -> str:
        """The kind of run: its sparsity scheme."""
        return str(self.labels["scheme"])


class Tracker(ABC):
    """Records one run: ``start``, then ``log`` any number of times, then ``finish`` once, even after an error.

    If ``start`` failed or was never called, ``finish`` only releases resources.
    """

    @abstractmethod
    def start(self, info: RunInfo) -> None:
        """Open the run. A resumed run calls this again, with the same ``info.id``."""

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Record ``metrics`` (``split/name`` → value) after ``step`` optimizer steps, in ``epoch``.

        Steps never decrease, but a resumed run may repeat the steps after its checkpoint.
        """

    @abstractmethod
    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Close the run.

        ``summary`` is a flat mapping. It holds the final metrics by split (``test/…``, ``valid/…``), :data:`ASKED`,
        :data:`DENSITY`, :data:`WEIGHTS`, and other facts about the whole run. It may be empty for a failed run.
        """


class Trackers(Tracker):
    """Several trackers as one. If a tracker fails, a warning is logged and the run continues without it."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.active = dict(trackers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the trackers of a ``logger`` configuration: name → {``_target_``: class, settings…}.

        The console is always one of them, unless the configuration is empty.

        Raises:
            ConfigError: a tracker's settings are wrong, or a package that it needs is missing.
        """
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate

        if config and "console" not in config:  # other loggers are added to it
            config = {"console": {"_target_": "sparse_bench.tracking.console.ConsoleTracker"}, **config}
        trackers = {}
        for name, settings in config.items():
            try:
                trackers[str(name)] = instantiate(settings, _convert_="all")
            except InstantiationException as error:
                # Hydra wraps the project's error, but that error's message is the one that a user can act on.
                if isinstance(error.__cause__, SparseBenchError):
                    raise error.__cause__ from None
                raise
        return cls(trackers)

    def start(self, info: RunInfo) -> None:
        """Start every tracker."""
        self._each("start", info)

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Pass the metrics to every tracker that still works."""
        self._each("log", metrics, step, epoch)

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Finish every tracker that still works."""
        self._each("finish", status, summary)

    def _each(self, method: str, *arguments: Any) -> None:
        for name, tracker in list(self.active.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:
                del self.active[name]
                logger.warning(
                    "Tracker '%s' failed in %s and is dropped. The run continues, with its metrics on disk (%s: %s)",
                    name,
                    method,
                    type(error).__name__,
                    error,
                )
                logger.debug("Traceback of tracker '%s'", name, exc_info=True)
                if method != "finish":
                    # The record stays incomplete, so it is closed as failed. Another failure is ignored, because
                    # the user has already seen the reason.
                    with contextlib.suppress(Exception):
                        tracker.finish("failed", {})
