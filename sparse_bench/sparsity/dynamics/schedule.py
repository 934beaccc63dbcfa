"""Schedules of topology changes: when, and by how much. Frozen dataclasses, functions of step and epoch alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Positive, Share, check_fields
from sparse_bench.sparsity.scheme import Length

#: Begin of the warnings that the topology never changes.
NEVER = "never rewires in this run, so its topology is fixed"


@dataclass(frozen=True)
class Schedule:
    """Amounts of change. The scheme decides what an amount means: a fraction to replace, or a density to reach."""

    def __post_init__(self) -> None:
        check_fields(self)

    def after_step(self, step: int, length: Callable[[], Length]) -> float | None:
        """The amount of change after optimizer step ``step`` (from 1); None: no change."""
        return None

    def after_epoch(self, epoch: int, length: Callable[[], Length]) -> float | None:
        """The amount of change after epoch ``epoch`` (from 0); None: no change."""
        return None

    def warning(self, length: Length) -> str | None:
        """A text "never …" if the schedule has no effect in a run of this length, for a warning; else None."""
        return None


@dataclass(frozen=True)
class EveryEpoch(Schedule):
    """SET: the fraction ``zeta`` after every epoch. If given, ``final_zeta`` is the last fraction, after a cosine."""

    zeta: Share = 0.3
    final_zeta: Share | None = None

    def after_epoch(self, epoch: int, length: Callable[[], Length]) -> float:
        if self.final_zeta is None:
            return self.zeta
        last = length().epochs - 1
        progress = epoch / last if last else 1.0  # a single epoch counts as the last one
        return self.final_zeta + (self.zeta - self.final_zeta) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def warning(self, length: Length) -> str | None:
        if length.epochs == 1:
            return f"{NEVER}: it rewires between epochs, and there is only one (trainer.epochs, trainer.steps)"
        return None if max(self.zeta, self.final_zeta or 0.0) > 0 else f"{NEVER}: sparsity.zeta is 0"


@dataclass(frozen=True)
class CosineSteps(Schedule):
    """RigL: the fraction f_t = α/2 · (1 + cos(π t / T_end)) every ``interval`` steps.

    α is ``fraction``, and T_end is the share ``stop`` of all steps, after which nothing changes. With ``final``, the
    fraction falls to that instead of zero.

    Source: Evci et al. 2020, "Rigging the lottery", section 3 (2).
    """

    interval: Count = 100
    fraction: Share = 0.3
    stop: Share = 0.75
    final: Share = 0.0

    def after_step(self, step: int, length: Callable[[], Length]) -> float | None:
        if step % self.interval:
            return None
        end = self.stop * length().steps
        if step >= end:
            return None
        return self.final + (self.fraction - self.final) / 2 * (1.0 + math.cos(math.pi * step / end))

    def warning(self, length: Length) -> str | None:
        end = self.stop * length.steps
        if self.interval >= end:
            return (
                f"{NEVER}: it rewires every sparsity.interval = {self.interval} steps before step {end:g} "
                f"(sparsity.stop = {self.stop:g} of {length.steps})"
            )
        return None if self.fraction > 0 else f"{NEVER}: sparsity.fraction is 0"


@dataclass(frozen=True)
class DensityCurve(Schedule, ABC):
    """Gradual pruning along a curve, every ``interval`` steps; the amounts are the densities to reach.

    The curve begins with the density ``initial`` at step t0, the share ``begin`` of training. The last change is at
    step T, the share ``end``, whatever the interval. It reaches ``density``.
    """

    density: Share
    interval: Count = 100
    begin: Share = 0.1
    end: Share = 0.8
    initial: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.begin >= self.end:
            raise ConfigError(f"sparsity.begin ({self.begin}) must be below sparsity.end ({self.end}).")
        if self.initial < self.density:
            raise ConfigError(
                f"sparsity.initial_density ({self.initial}) must be at least sparsity.density ({self.density})."
            )

    @abstractmethod
    def curve(self, progress: float) -> float:
        """Share of the way from the first density to the last, from 0 at ``progress`` 0 to 1 at 1."""

    def _steps(self, length: Length) -> tuple[int, int]:
        """The steps at which the curve begins and ends."""
        first = math.ceil(self.begin * length.steps)
        return first, max(1, first, math.floor(self.end * length.steps))

    def warning(self, length: Length) -> str | None:
        first, last = self._steps(length)
        if first + self.interval < last:
            return None
        return (
            f"never prunes gradually in this run, but all at once: the curve goes from step {first} to step {last}, "
            f"and sparsity.interval is {self.interval} steps"
        )

    def after_step(self, step: int, length: Callable[[], Length]) -> float | None:
        first, last = self._steps(length())
        if step == last:
            return self.density
        if not first < step < last or (step - first) % self.interval:
            return None
        return self.initial - (self.initial - self.density) * self.curve((step - first) / (last - first))


@dataclass(frozen=True)
class CubicDensity(DensityCurve):
    """The sparsity s_t = s_f + (s_i − s_f) (1 − (t − t0) / (T − t0))³ in gradual pruning.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """

    def curve(self, progress: float) -> float:
        return 1.0 - (1.0 - progress) ** 3


@dataclass(frozen=True)
class SigmoidDensity(DensityCurve):
    """CHTss: the density along a sigmoid of the ``steepness`` k, 1 / (1 + exp(−k (p − 1/2))) for progress p.

    The sigmoid alone would begin and end short of its limits. It is stretched to reach both densities exactly.

    Source: Zhang et al. 2025, "Brain network science modelling of sparse neural networks" (arXiv 2501.19107).
    """

    steepness: Positive = 6.0

    def curve(self, progress: float) -> float:
        def sigmoid(x: float) -> float:
            return 1.0 / (1.0 + math.exp(-self.steepness * x))

        return (sigmoid(progress - 0.5) - sigmoid(-0.5)) / (sigmoid(0.5) - sigmoid(-0.5))
