"""Learning-rate schedules: frozen dataclasses that compute a factor on the optimizer's own learning rate.

A schedule is a function of the step (from 1, over the whole run) and the epoch (from 0), so it has no state to save.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sparse_bench.limits import Count, Fraction, Positive, Share, check_fields


@dataclass(frozen=True)
class Schedule(ABC):
    """A factor on the learning rate."""

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def factor(self, step: int, epoch: int) -> float:
        """The factor for optimizer step ``step`` (from 1), in epoch ``epoch`` (from 0)."""


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant learning rate."""

    def factor(self, step: int, epoch: int) -> float:
        return 1.0


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """Rises linearly over the first ``steps`` steps, then stays constant."""

    steps: Count = 1000

    def factor(self, step: int, epoch: int) -> float:
        return min(1.0, step / self.steps)


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    """d^-0.5 · min(step^-0.5, step · warmup^-1.5) (Vaswani et al. 2017, equation 3); use it with a base rate of 1.

    Attributes:
        warmup: number of steps over which the rate rises.
        dimension: d, the width of the model.
        epoch_steps: if given, the rate changes only once per epoch, to that of step 1 + ``epoch_steps`` · (epoch + 1),
            as a callback would set it. The number of steps per epoch; need not be whole.
    """

    warmup: Count = 4000
    dimension: Count = 512
    epoch_steps: Positive | None = None

    def factor(self, step: float, epoch: int) -> float:
        if self.epoch_steps is not None:
            step = 1 + self.epoch_steps * (epoch + 1)
        return float(self.dimension**-0.5 * min(step**-0.5, step * self.warmup**-1.5))


@dataclass(frozen=True)
class ExponentialPerEpoch(Schedule):
    """Constant for the first ``constant_epochs`` epochs, then multiplied by ``gamma`` in every epoch."""

    gamma: Fraction = 0.5
    constant_epochs: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1

    def factor(self, step: int, epoch: int) -> float:
        return float(self.gamma ** max(0, epoch - self.constant_epochs + 1))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Falls from 1 to ``floor`` over ``steps`` steps, along half a cosine."""

    steps: Count = 10000
    floor: Share = 0.0

    def factor(self, step: int, epoch: int) -> float:
        progress = min(1.0, (step - 1) / self.steps)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
