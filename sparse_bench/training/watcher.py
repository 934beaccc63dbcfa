"""What evaluations during training decide: which weights are best, when training stops, when averaging begins."""

import math
from collections.abc import Callable, Mapping

from torch.optim import Optimizer

from sparse_bench.config.schema import TrainerConfig
from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.tasks.base import Task
from sparse_bench.training.averaging import AveragingOptimizer
from sparse_bench.training.progress import Progress
from sparse_bench.training.stopping import StoppingRule


class Watcher:
    """Looks at every evaluation. What it has seen is part of a run's :class:`Progress`, and of the averaging optimizer.

    Nothing counts before the scheme has reached its density: a denser model is not the one that is asked for.

    Args:
        settings: what is chosen, by which metric, and how long that may get no better.
        task: names the metric where the settings do not.
        scheme: whose density counts.
        optimizer: one that averages is told of every evaluation at an epoch's end.
        stop: ends training; None: only ``settings.early_stopping`` does.
        keep: called while the best weights so far stand in the model, if they are to be chosen.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        task: Task,
        scheme: Scheme,
        optimizer: Optimizer,
        stop: StoppingRule | None,
        keep: Callable[[], None],
    ) -> None:
        #: The metric that decides, where any does.
        self.metric = settings.monitor or f"{task.splits[0]}/{task.monitor[0]}"
        self._sign = -1.0 if (settings.monitor_mode or task.monitor[1]) == "max" else 1.0
        self._patience, self._stop, self._scheme = settings.early_stopping, stop, scheme
        self._averaging = optimizer if isinstance(optimizer, AveragingOptimizer) else None
        self._keep = keep if settings.select == "best" else None
        deciding = (self._keep, self._patience, self._stop, self._averaging)
        #: Whether evaluations decide anything.
        self.decides = any(one is not None for one in deciding)

    def look(self, evaluated: Mapping[str, float], progress: Progress) -> float | None:
        """Keep the best weights, and stop when the metric has not improved for too long.

        Returns:
            The metric if it counts, with its sign changed where more is better: less is better always.

        Raises:
            ConfigError: the evaluation has not given the metric.
        """
        if not self.decides:
            return None
        if self.metric not in evaluated:
            raise ConfigError(unknown_choice("trainer.monitor", self.metric, evaluated))
        if not self._scheme.reached():
            return None
        value = evaluated[self.metric]
        loss = self._sign * value
        if math.isfinite(value) and (progress.best is None or loss < self._sign * progress.best):
            progress.best, progress.stale_evaluations = value, 0
            if self._keep is not None:
                self._keep()
        else:
            progress.stale_evaluations += 1
            progress.stopped |= self._patience is not None and progress.stale_evaluations >= self._patience
        return loss

    def at_epoch_end(
        self, entry: Mapping[str, float], evaluated: Mapping[str, float] | None, progress: Progress
    ) -> None:
        """:meth:`look`, and tell the averaging optimizer and the stopping rule.

        Args:
            entry: the epoch's metrics.
            evaluated: those of its evaluation, if there was one; the weights that were evaluated stand in the model.
            progress: of the run, changed in place.

        Raises:
            ConfigError: a metric that decides is not there.
        """
        loss = None if evaluated is None else self.look(evaluated, progress)
        if self._averaging is not None and loss is not None:
            self._averaging.observe(loss)
        if self._stop is None:
            return
        name = self._stop.metric
        value = loss if name is None else entry.get(name)
        if value is None and name is not None and (loss is not None or name.startswith("train/")):
            raise ConfigError(unknown_choice("trainer.stop.metric", name, entry))
        if value is not None and self._scheme.reached():
            progress.history.append(value)
            progress.stopped |= self._stop.stops(progress.history)
