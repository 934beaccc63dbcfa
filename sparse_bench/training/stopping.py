"""Rules that end training early: frozen dataclasses, functions of a metric's values so far.

They are independent of ``trainer.early_stopping``, which counts evaluations without improvement.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Finite, Positive, check_fields, one_of


def no_longer_falling(history: Sequence[float], window: int, least: int | None = None) -> bool:
    """Whether the newest value is above the minimum of the earlier ones without the last ``window``.

    Args:
        history: values so far, the newest last; lower is better, and values that are not finite are worst.
        window: number of latest earlier values to ignore (``nonmono`` in AWD-LSTM's code).
        least: the answer is False unless there are more earlier values than this; by default, than ``window``.
    """
    *earlier, newest = _finite_or_worst(history)
    needed = window if least is None else max(window, least)
    return len(earlier) > needed and newest > min(earlier[:-window])


def _finite_or_worst(losses: Sequence[float]) -> list[float]:
    """The losses with infinity in place of values that are not finite, as NaN cannot be compared."""
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


@dataclass(frozen=True)
class StoppingRule(ABC):
    """Decides when to stop.

    Attributes:
        metric: the metric that the rule uses, such as ``valid/perplexity`` or ``train/accuracy``. None: the monitored
            metric, negated if higher is better, so that lower is always better.
    """

    metric: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def stops(self, history: Sequence[float]) -> bool:
        """Whether training ends after the latest epoch, whose value is the last one in ``history``."""


@dataclass(frozen=True)
class _Worsening(StoppingRule):
    """A rule about values that get worse.

    Attributes:
        mode: ``min`` or ``max``, whether lower or higher values of ``metric`` are better; None if ``metric`` is None.
    """

    mode: Annotated[str, one_of("min", "max")] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.metric is None) != (self.mode is None):
            raise ConfigError(
                "trainer.stop.metric and trainer.stop.mode (min or max) go together; give both or neither."
            )

    def losses(self, history: Sequence[float]) -> list[float]:
        """The values with the sign that makes lower ones better."""
        return _finite_or_worst([-value if self.mode == "max" else value for value in history])


@dataclass(frozen=True)
class ConsecutiveRises(_Worsening):
    """Stops after ``window`` consecutive evaluations that are each worse than the one before."""

    window: Count = 20

    def stops(self, history: Sequence[float]) -> bool:
        recent = self.losses(history)[-self.window - 1 :]
        return len(recent) > self.window and all(after > before for before, after in pairwise(recent))


@dataclass(frozen=True)
class NonMonotone(_Worsening):
    """Stops when the metric is no longer improving, see :func:`no_longer_falling`.

    Attributes:
        window: number of latest earlier values to ignore.
        least: the rule applies once there are more earlier values than this.
    """

    window: Count = 5
    least: Count = 5

    def stops(self, history: Sequence[float]) -> bool:
        return no_longer_falling(self.losses(history), self.window, self.least)


@dataclass(frozen=True)
class Reached(StoppingRule):
    """Stops when the metric is less than ``within`` below ``target``, or above it: ``target`` − value < ``within``."""

    target: Finite = 1.0
    within: Positive = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric is None:
            raise ConfigError("trainer.stop waits for a target and needs a metric: set trainer.stop.metric.")

    def stops(self, history: Sequence[float]) -> bool:
        return math.isfinite(history[-1]) and self.target - history[-1] < self.within
