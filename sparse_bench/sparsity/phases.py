"""The schedule of alternating sparse and dense phases."""

from collections.abc import Callable
from dataclasses import dataclass

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Part, Share
from sparse_bench.sparsity.dynamics.schedule import Schedule
from sparse_bench.sparsity.scheme import Length


@dataclass(frozen=True)
class Phases(Schedule):
    """AC/DC: the density to reach, where a phase begins: ``density`` for a sparse phase, 1 for a dense one.

    Shares of training: dense until ``begin``; sparse and dense phases of ``phase`` in turn; dense from ``last_dense``;
    sparse from ``end``.
    """

    density: Share
    begin: Share = 0.1
    phase: Part = 0.05
    last_dense: Share = 0.75
    end: Share = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.begin < self.last_dense < self.end:
            raise ConfigError(
                "sparsity.begin, last_dense and end have to rise: they are "
                f"{self.begin}, {self.last_dense} and {self.end}."
            )

    def switches(self, steps: int) -> dict[int, float]:
        """Step after which a phase begins → its density, in a training of ``steps`` steps."""
        number = round((self.last_dense - self.begin) / self.phase)  # of phases that may begin before last_dense
        starts = [self.begin + index * self.phase for index in range(number + 1)]
        phases = [(start, index % 2) for index, start in enumerate(starts) if start < self.last_dense - 1e-9]
        phases += [(self.last_dense, 1), (self.end, 0)]
        return {max(1, round(start * steps)): 1.0 if dense else self.density for start, dense in phases}

    def after_step(self, step: int, length: Callable[[], Length]) -> float | None:
        return self.switches(length().steps).get(step)

    def warning(self, length: Length) -> str | None:
        if self.phase * length.steps >= 1:
            return None
        return f"skips phases: one takes less than a step in this run of {length.steps} steps (sparsity.phase)"
