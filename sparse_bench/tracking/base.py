"""What a tracker is, what it learns of a run, and how several of them work side by side without harming the run."""

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
#: Names in a run's summary, of its sparse layers: the density that was asked for, if one was, the density that the
#: trained model really has, and its number of weights.
ASKED, DENSITY, WEIGHTS = "sparsity/density_asked", "sparsity/density", "sparsity/weights"


@dataclass(frozen=True)
class RunInfo:
    """What identifies a run to those who look at its metrics.

    Attributes:
        id: the run's hash; the same run resumed has the same id.
        experiment: name of the experiment that the run is part of.
        labels: ``model``, ``dataset``, ``scheme`` and ``density`` of the run.
        seed: the run's seed.
        config: the resolved configuration, as plain dictionaries, lists and scalars.
        folder: the run's own folder; trackers that write files write them below it.
    """

    id: str
    experiment: str
    labels: Mapping[str, Any]
    seed: int
    config: dict[str, Any]
    folder: Path

    @property
    def group(self) -> str:
        """What the run is compared within: its experiment."""
        return self.experiment

    @property
    def job_type(self) -> str:
        """What the run tries: its sparsity scheme."""
        return str(self.labels["scheme"])

    @property
    def name(self) -> str:
        """A name for a legend: model/density/seed. The density is that asked for; what it came to is measured later."""
        density = self.labels["density"]
        shown = f"{density:g}" if isinstance(density, int | float) else str(density)
        return f"{self.labels['model']}/{shown}/{self.seed}"


class Tracker(ABC):
    """Follows one run: ``start``, then ``log`` any number of times, then ``finish`` once, whatever happened.

    ``finish`` may be called without a ``start`` that succeeded; it then only releases what is held.
    """

    @abstractmethod
    def start(self, info: RunInfo) -> None:
        """Open the run; called anew, with the same ``info.id``, when a run is resumed."""

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Note ``metrics`` (``split/name`` → value) after ``step`` optimizer steps, in ``epoch``.

        Steps never decrease within one run, but a resumed run may repeat those after its checkpoint.
        """

    @abstractmethod
    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Close the run.

        ``summary`` is flat: the final metrics by split (``test/…``, ``valid/…``), :data:`ASKED`, :data:`DENSITY` and
        :data:`WEIGHTS`, and what else describes the whole run. A failed run may have an empty one.
        """


class Trackers(Tracker):
    """Several trackers as one. A tracker that fails is reported once and dropped; the run goes on without it."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.active = dict(trackers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the trackers of a ``logger`` configuration: name → {``_target_``: class, settings…}.

        Raises:
            ConfigError: a tracker's settings are wrong, or a package that it needs is missing.
        """
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate

        trackers = {}
        for name, settings in config.items():
            try:
                trackers[str(name)] = instantiate(settings, _convert_="all")
            except InstantiationException as error:
                # Hydra wraps the error in its own; the project's message is the one that a user can act on.
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
                    "Tracker '%s' failed in %s and is dropped; the run goes on, with its metrics on disk (%s: %s)",
                    name,
                    method,
                    type(error).__name__,
                    error,
                )
                logger.debug("Traceback of tracker '%s'", name, exc_info=True)
                if method != "finish":
                    # Its record stays incomplete, so it is closed as failed. It may well fail again, and the
                    # user already knows why.
                    with contextlib.suppress(Exception):
                        tracker.finish("failed", {})
