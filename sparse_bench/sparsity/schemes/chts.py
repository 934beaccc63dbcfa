"""CHTs: Cannistraci-Hebb training with soft removal and growth (Zhang et al. 2025, arXiv 2501.19107)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from sparse_bench.limits import Count, Fraction, NotNegative, Share, one_of
from sparse_bench.sparsity.dynamics.bipartite import GROWTHS, receptive_fields
from sparse_bench.sparsity.dynamics.chance import noisy
from sparse_bench.sparsity.dynamics.drop import of_scores, on_host
from sparse_bench.sparsity.dynamics.heads import HeadWise
from sparse_bench.sparsity.dynamics.schedule import CosineSteps
from sparse_bench.sparsity.dynamics.scheme import Dynamics
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape
from sparse_bench.streams import Streams


@dataclass
class CHTs(HeadWise):
    """Small weights are likely to be dropped, and connections with many paths of length three are likely to grow.

    Survivors are drawn with probabilities ∝ |w|^τ. New places are drawn in proportion to their CH2-L3n scores. Units
    connect to near ones at first (BRF). Queries, keys and values are rewired head by head, where the model has heads.

    Attributes:
        distribution: how ``density`` is distributed over layers.
        fraction: ζ; share of the weights that the first change replaces. It falls to zero along half a cosine.
        softness: the exponent τ at the share ``stop`` of training, to which it goes from 1 in a straight line.
        growth: ``sampled``: new places are drawn. ``top``: those of highest score, as in a later version of the code.
        randomness: r of the first topology; with 1 every connection is equally likely.
        interval: steps between changes; ΔT.
        stop: share of training after which the topology is fixed.
    """

    distribution: Annotated[str, one_of(*DISTRIBUTIONS)] = "uniform"
    fraction: Share = 0.1
    softness: NotNegative = 9.0
    growth: Annotated[str, one_of(*GROWTHS)] = "sampled"
    randomness: Fraction = 0.3
    interval: Count = 100
    stop: Fraction = 0.75

    def compose(self) -> Dynamics:
        return Dynamics(of_scores, GROWTHS[self.growth], CosineSteps(self.interval, self.fraction, self.stop))

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return self.draw(shapes, self.density, streams)

    def draw(self, shapes: Mapping[str, Shape], density: float, streams: Streams) -> dict[str, Tensor]:
        """Draw masks of a ``density`` by :func:`sparse_bench.sparsity.dynamics.bipartite.receptive_fields`."""
        masks = {}
        for name, counts in self.counts_by_head(shapes, density).items():
            head, generator = (shapes[name][0] // len(counts), shapes[name][1]), streams.torch("topology", name)
            masks[name] = torch.cat([receptive_fields(head, count, self.randomness, generator) for count in counts])
        return masks

    def importance(self, layer: str) -> Tensor:
        """What makes weights survive, for all places of a layer [heads, out / heads, in]; 0 where no weight is."""
        return self.weights[layer].dense().abs().unflatten(0, (self.heads(layer), -1))

    def ranked(self, layer: str, generator: Generator) -> tuple[Tensor, Tensor]:
        places, _ = super().ranked(layer, generator)
        power = 1.0 + (self.softness - 1.0) * min(1.0, self.progress() / self.stop)
        keys = noisy(on_host(self.importance(layer).flatten().index_select(0, places)), generator, power)
        return places, torch.from_numpy(keys).to(places.device)
