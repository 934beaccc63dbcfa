"""Straight-through magnitude pruning: dense weights are trained, and the largest of them are used (STE, SR-STE)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.limits import NotNegative, Pair, Share, one_of
from sparse_bench.sparsity.dynamics.schedule import CubicDensity
from sparse_bench.sparsity.held import Held, HeldWeight
from sparse_bench.sparsity.ranking import highest, highest_in_groups
from sparse_bench.sparsity.topology import DISTRIBUTIONS


@dataclass
class STE(Held):
    """Before each step the weights of largest magnitude are chosen again; their gradient trains all weights.

    They are chosen in each layer, or with ``pattern`` among consecutive inputs of a unit. Among equal ones the first
    exist. All weights are held while training. SR-STE's term is added to the gradient after any clipping.

    Source: Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural networks from scratch", equations 4
    and 9; without N:M as ``ste`` in JaxPruner (Lee et al. 2023).

    Attributes:
        density: share of the weights that exist in the end; with ``pattern``, that is N / M.
        pattern: (N, M): of every M consecutive inputs of a unit N have a weight, from the first step on.
        decay: λ of SR-STE: the gradient of a hidden weight w has the additional term λ w. 0 is STE.
        distribution: how ``density`` is distributed over layers.
        begin: share of training after which the density falls from 1, along GMP's cubic curve.
        end: share of training at which ``density`` is reached. 0: from the first step on.
    """

    changes: ClassVar[str] = "each step"

    pattern: Pair | None = None
    decay: NotNegative = 2e-4
    distribution: Annotated[str, one_of(*DISTRIBUTIONS)] = "uniform"
    begin: Share = 0.1
    end: Share = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern is not None and self.density != self.pattern[0] / self.pattern[1]:
            n, m, d = *self.pattern, self.density
            raise ConfigError(f"sparsity.pattern {n}:{m} has density {n / m:g}, and sparsity.density is {d}.")
        at_once = self.pattern is not None or self.end == 0
        self._schedule = None if at_once else CubicDensity(self.density, 1, self.begin, self.end)
        self._now = self.density if at_once else 1.0

    def choose(self) -> None:
        shapes = {name: weight.shape for name, weight in self.held.items()}
        counts = DISTRIBUTIONS[self.distribution](shapes, self._now)
        for name, weight in self.held.items():
            if self.pattern is None:
                weight.show(highest(weight.full.abs(), counts[name]), counts[name])
            else:
                n, m = self.pattern
                chosen = highest_in_groups(weight.by_input(weight.full.abs()), n, m)
                weight.show(weight.by_input(chosen), weight.size * n // m)

    def penalty(self, weight: HeldWeight) -> Tensor | None:
        return self.decay * weight.hidden() if self.decay else None

    def missing_in_the_end(self) -> int:
        return self.size - round(self.density * self.size)

    def due(self, step: int) -> bool:
        density = None if self._schedule is None else self._schedule.after_step(step, self.length)
        if density is not None:
            self._now = min(self._now, density)  # a second stage of training stays as sparse as the first
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"density": self._now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._now = state["density"]
