"""SynFlow: prune before training, without data, by how much each weight passes on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Positive
from sparse_bench.sparsity.scores import Losses, kept, linear, synflow
from sparse_bench.sparsity.scoring import Scored, summed_over_ranks


@dataclass
class SynFlow(Scored):
    """Keeps the highest |w · ∂R/∂w| over all layers, in rounds that prune to d^((k+1)/n) of all weights.

    R is the sum of the logits of a copy with absolute parameters. All its inputs are equal, also the output of every
    table of embeddings that is not selected. Normalisations only scale. Of the first training batch only sizes matter.
    Queries and keys of attention change little in R, so they lose most or all of their weights; a warning names layers
    without any.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    equation 2 and algorithm 1.

    Attributes:
        rounds: n.
        input: value of all inputs; 1 in the paper. Scores of networks with ReLU do not depend on it. A small one keeps
            the gates of an LSTM out of saturation.
    """

    rounds: Count = 100
    input: Positive = 1.0

    @torch.no_grad()
    def masks(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        linear(twin, self.selected, self.input)
        found: dict[str, Tensor] = {}
        for number in range(1, self.rounds + 1):
            torch.manual_seed(seed)
            with torch.enable_grad():
                scores = summed_over_ranks(synflow(twin, self.selected, losses, self.input))
            share = self.density ** (number / self.rounds) if self.density else 0.0
            found = kept(scores, share)
            if self.density and all(not bool(score.any()) for score in scores.values()):
                raise ConfigError("SynFlow's scores are all zero. Use a smaller sparsity.input, or other layers.")
            for name, mask in found.items():
                twin.get_parameter(name).mul_(mask)
        return found
