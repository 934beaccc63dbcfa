"""SNIP: keep the weights to which the loss is most sensitive before training."""

from dataclasses import dataclass

from torch import Tensor, nn

from sparse_bench.sparsity.scores import Losses, snip
from sparse_bench.sparsity.scoring import ScoredOnce


@dataclass
class SNIP(ScoredOnce):
    """Keeps the highest |g · w| over all layers, with g the gradient of the loss before training.

    Source: Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity", algorithm 1.

    Attributes:
        batches: number of training batches whose mean loss gives the gradient.
    """

    def scores(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        return snip(twin, self.selected, losses, self.batches, seed)
