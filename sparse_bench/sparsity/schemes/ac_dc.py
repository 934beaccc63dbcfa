"""AC/DC: sparse and dense phases of training in turn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparse_bench.kernels import places_of
from sparse_bench.limits import Part, Share
from sparse_bench.sparsity.dynamics.drop import magnitude
from sparse_bench.sparsity.dynamics.schedule import Schedule
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.phases import Phases
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams


@dataclass
class ACDC(MaskScheme, Dynamic):
    """A sparse phase keeps the weights of largest magnitude over all layers; a dense one trains all of them.

    Weights come back at zero. The defaults are the paper's for 100 epochs: dense for 10 epochs, then sparse and dense
    for 5 each; the last dense phase begins after 75 epochs, and the last sparse one after 85.

    Source: Peste et al. 2021, "AC/DC: alternating compressed/decompressed training of deep neural networks",
    algorithm 1 and section 4.1.

    Attributes:
        density: share of the weights that exist in the sparse phases, and in the end.
        begin: share of training after which the first sparse phase begins.
        phase: share of training that a phase takes.
        last_dense: share of training after which the last dense phase begins.
        end: share of training after which the last sparse phase begins.
        reset_moments: whether the optimizer forgets everything where a phase begins.
    """

    changes: ClassVar[str] = "where a phase ends"
    resizes: ClassVar[bool] = True

    begin: Share = 0.1
    phase: Part = 0.05
    last_dense: Share = 0.75
    end: Share = 0.85
    reset_moments: bool = False

    def compose(self) -> Dynamics:
        phases = Phases(self.density, self.begin, self.phase, self.last_dense, self.end)
        return Dynamics(magnitude, None, Schedule(), pruning=phases)

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}

    def missing_in_the_end(self) -> int:
        return self.size - round(self.density * self.size)

    @torch.no_grad()
    def rewire(
        self,
        amount: float,
        optimizer: Optimizer | None,
        streams: Streams,
        grows: bool = True,
        density: float | None = None,
    ) -> None:
        if density != 1:
            super().rewire(amount, optimizer, streams, grows=False, density=density)
        else:
            missing_before = self.missing()
            for name, weight in self.weights.items():
                missing = places_of(~weight.mask)
                self._evolution.record(name, weight.active, weight.mask.flatten(), missing[:0], missing)
                weight.rewire(missing[:0], missing, weight.dense().new_zeros(missing.numel()), optimizer)
            self._changes += missing_before > 0
            self._evolution.count_rewiring()
        if self.reset_moments and optimizer is not None:
            optimizer.state.clear()
