"""Rules that end a run early: frozen dataclasses, functions of what a metric has been so far.

Beside ``trainer.early_stopping``, which counts evaluations without improvement.
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
    """Whether the last value is above the least of those before it but the last ``window``.

    Args:
        history: values so far, the newest last; less is better, and one that is not finite is above all that are.
        window: earlier values that are left out, the newest ones (``nonmono`` in AWD-LSTM's code).
        least: there must be more earlier values than this; by default more than ``window``.
    """
    *earlier, newest = _finite_or_worst(history)
    needed = window if least is None else max(window, least)
    return len(earlier) > needed and newest > min(earlier[:-window])


def _finite_or_worst(losses: Sequence[float]) -> list[float]:
    """A least value is not to be looked for among those that compare with nothing."""
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


@dataclass(frozen=True)
class StoppingRule(ABC):
    """When to stop.

    Attributes:
        metric: the metric that it looks at, as ``valid/perplexity`` or ``train/accuracy``; None: the watched one, with
            its sign changed where more is better, so that less is better always.
    """

    metric: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def stops(self, history: Sequence[float]) -> bool:
        """Whether training ends after the epoch whose value stands last in ``history``."""


@dataclass(frozen=True)
class _Worsening(StoppingRule):
    """A rule about values that get worse.

    Attributes:
        mode: ``min`` or ``max``, which values of ``metric`` are better. For a metric that is named, and for none else.
    """

    mode: Annotated[str, one_of("min", "max")] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.metric is None) != (self.mode is None):
            raise ConfigError(
                "trainer.stop.metric and trainer.stop.mode (min or max) go together; give both or neither."
            )

    def losses(self, history: Sequence[float]) -> list[float]:
        """The values, less being better."""
        return _finite_or_worst([-value if self.mode == "max" else value for value in history])


@dataclass(frozen=True)
class ConsecutiveRises(_Worsening):
    """Stop after ``window`` evaluations in a row that are each worse than the one before."""

    window: Count = 20

    def stops(self, history: Sequence[float]) -> bool:
        recent = self.losses(history)[-self.window - 1 :]
        return len(recent) > self.window and all(after > before for before, after in pairwise(recent))


@dataclass(frozen=True)
class NonMonotone(_Worsening):
    """Stop when a value is worse than the best of all earlier ones but the last ``window``; see
    :func:`no_longer_falling`.

    Attributes:
        least: earlier values that there must be more than.
    """

    window: Count = 5
    least: Count = 5

    def stops(self, history: Sequence[float]) -> bool:
        return no_longer_falling(self.losses(history), self.window, self.least)


@dataclass(frozen=True)
class Reached(StoppingRule):
    """Stop when the metric is nearer to ``target`` than ``within``, or beyond it: ``target`` − value < ``within``."""

    target: Finite = 1.0
    within: Positive = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric is None:
            raise ConfigError("trainer.stop waits for a target, and needs the metric that it is for.")

    def stops(self, history: Sequence[float]) -> bool:
        return math.isfinite(history[-1]) and self.target - history[-1] < self.within
