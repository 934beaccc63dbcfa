"""Decisions from evaluations during training: which weights are best, when to stop, when averaging begins."""

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
    """Decides after every evaluation. Its state is in the run's :class:`Progress` and in the averaging optimizer.

    Evaluations do not count before the scheme has reached its nominal sparsity.

    Args:
        settings: which weights to select, by which metric, and the patience.
        task: gives the metric if the settings do not.
        scheme: the scheme that has to reach its sparsity.
        optimizer: if it averages, it receives every evaluation at the end of an epoch.
        stop: rule that ends training; None: only ``settings.early_stopping`` ends it.
        keep: called with ``select=best`` when the model holds the best weights so far.
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
        #: Name of the monitored metric.
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

        Args:
            evaluated: metrics of the evaluation.
            progress: progress of the run, changed in place.

        Returns:
            The metric, negated if higher is better, so that lower is always better; None if it does not count.

        Raises:
            ConfigError: the evaluation does not give the metric.
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
        """Call :meth:`look`, and pass the result to the averaging optimizer and the stopping rule.

        Args:
            entry: all metrics of the epoch.
            evaluated: metrics of its evaluation, if there was one; the model holds the evaluated weights.
            progress: progress of the run, changed in place.

        Raises:
            ConfigError: the monitored metric or that of the stopping rule is missing.
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
