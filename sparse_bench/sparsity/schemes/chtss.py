"""CHTss: CHTs whose density falls during training (Zhang et al. 2025, arXiv 2501.19107)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from sparse_bench.limits import Fraction, Positive, Share
from sparse_bench.sparsity.dynamics.bipartite import relative_importance
from sparse_bench.sparsity.dynamics.drop import lowest, on_host
from sparse_bench.sparsity.dynamics.schedule import SigmoidDensity
from sparse_bench.sparsity.dynamics.scheme import Dynamics, where
from sparse_bench.sparsity.schemes.chts import CHTs
from sparse_bench.sparsity.topology import Shape, apportion
from sparse_bench.streams import Streams


@dataclass
class CHTss(CHTs):
    """CHTs from ``initial_density`` to ``density`` along a sigmoid; a weight counts relative to those of its units.

    The importance of a weight is |w| / Σ |w| over its row + |w| / Σ |w| over its column, within its head. In each head
    the least important weights are pruned. Then CHTs drops and grows, with this importance instead of |w|.

    Attributes:
        density: share of the selected layers' weights that exist in the end.
        initial_density: share that exists at first.
        end: share of training at which ``density`` is reached.
        steepness: k of the sigmoid.
    """

    resizes: ClassVar[bool] = True

    initial_density: Share = 0.5
    end: Fraction = 0.8
    steepness: Positive = 6.0

    def compose(self) -> Dynamics:
        curve = SigmoidDensity(self.density, self.interval, 0.0, self.end, self.initial_density, self.steepness)
        return replace(super().compose(), pruning=curve)

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return self.draw(shapes, self.initial_density, streams)

    def missing_in_the_end(self) -> int:
        size = sum(weight.size for weight in self.weights.values())
        return size - round(self.density * size)

    def importance(self, layer: str) -> Tensor:
        return torch.stack([relative_importance(head) for head in super().importance(layer)])

    def pruned(self, density: float, generators: dict[str, Generator]) -> dict[str, Tensor]:
        shapes = {name: weight.shape for name, weight in self.weights.items()}
        wanted = [count for counts in self.counts_by_head(shapes, density).values() for count in counts]
        there = [
            int(mine.sum()) for name, weight in self.weights.items() for mine in self.by_head(name, weight.entries()[0])
        ]
        # Rounding may give a head more than it has now, which the others then keep.
        counts, pruned = iter(apportion(wanted, min(sum(wanted), sum(there)), there)), {}
        for name, weight in self.weights.items():
            places, _ = weight.entries()
            scores = on_host(self.importance(name).flatten().index_select(0, places))
            gone = np.zeros(scores.size, dtype=bool)
            for mine in self.by_head(name, places):
                own = np.flatnonzero(mine.cpu().numpy())
                gone[own[lowest(scores[own], own.size - next(counts))]] = True
            pruned[name] = where(places, gone)
        return pruned
