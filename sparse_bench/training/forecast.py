"""How long a run will train, said once after its first steps."""

import logging
import time

from sparse_bench.config.schema import TrainerConfig
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Task
from sparse_bench.training.progress import Progress

logger = logging.getLogger(__name__)

#: Batches and seconds after which the duration is estimated. The first batch is not timed: it also warms up.
BATCHES, SECONDS = 5, 2.0


class Forecast:
    """Logs the expected duration of training once. Runs of few seconds end before that.

    Args:
        name: of the run, for the message.
        task: gives the number of batches in the first and the last epoch; those between are taken to be in between.
        streams: the random streams of the run.
        settings: of the training.
    """

    def __init__(self, name: str, task: Task, streams: Streams, settings: TrainerConfig) -> None:
        self._count = lambda epoch: task.epoch_steps(epoch, streams)
        self._name, self._settings = name, settings
        self._started: float | None = None
        self._batches = 0
        self.said = False

    def batch_done(self, progress: Progress) -> None:
        """Note that a batch is done, and log the estimate when it is due."""
        if self.said:
            return
        now = time.monotonic()
        if self._started is None:
            self._started = now
            return
        self._batches += 1
        if self._batches >= BATCHES and now - self._started >= SECONDS:
            self.said = True
            each = (now - self._started) / self._batches
            left = duration(each * self._left(progress))
            logger.info("%s: about %s of training left, %.3g s a batch", self._name, left, each)

    def _left(self, progress: Progress) -> float:
        """Batches left, without early stopping."""
        settings = self._settings
        epochs = settings.epochs - progress.epoch
        left = (self._count(progress.epoch) + self._count(settings.epochs - 1)) / 2 * epochs - progress.batch
        if settings.steps is not None:
            left = min(left, (settings.steps - progress.step) * settings.accumulate)
        return max(0.0, left)


def duration(seconds: float) -> str:
    """A duration in its two largest units: ``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    for first, size, second, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {first} {whole % size // part} {second}"
    return f"{whole} s"
