"""SynFlow: prune before training, without data, by how much each weight passes on."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Positive
from sparse_bench.sparsity.scores import Losses, kept, linear, synflow
from sparse_bench.sparsity.scoring import Scored, summed_over_ranks

#: How many powers of ten the input is divided by at most, and one.
_POWERS = 9


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
        input: value of all inputs; 1 in the paper. Scores of networks with ReLU do not depend on it. Where it saturates
            the gates of an LSTM, so that all scores are zero, powers of ten divide it; a warning names the value.
    """

    rounds: Count = 100
    input: Positive = 1.0

    @torch.no_grad()
    def masks(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        twin = self._prepared(twin, losses, seed)
        found: dict[str, Tensor] = {}
        for number in range(1, self.rounds + 1):
            scores = self._scores(twin, losses, self._value, seed)
            share = self.density ** (number / self.rounds) if self.density else 0.0
            found = kept(scores, share)
            if self.density and all(not bool(score.any()) for score in scores.values()):
                raise ConfigError("SynFlow's scores are all zero. Use other layers.")
            for name, mask in found.items():
                twin.get_parameter(name).mul_(mask)
        return found

    def _prepared(self, model: nn.Module, losses: Losses, seed: int) -> nn.Module:
        """A copy of ``model`` for the largest input at which enough weights have a score; sets that input."""
        needed = self.density * sum(model.get_parameter(name).numel() for name in self.selected)
        self._value = self.input
        for power in range(_POWERS):
            value = self.input / 10**power
            for precision in (None, torch.double):
                twin = linear(copy.deepcopy(model).to(precision), self.selected, value)
                scores = self._scores(twin, losses, value, seed).values()
                if all(bool(score.isfinite().all()) for score in scores):
                    break  # otherwise products of absolute weights overflow, as in deep transformers
            positive = sum(int((score > 0).sum()) for score in scores)
            if positive >= needed or (power == 0 and positive):  # some layers never have scores
                self._value = value
                return twin
        return linear(model, self.selected, self.input)

    @torch.enable_grad()
    def _scores(self, twin: nn.Module, losses: Losses, value: float, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return summed_over_ranks(synflow(twin, self.selected, losses, value))

    def warnings(self) -> list[str]:
        used = getattr(self, "_value", self.input)
        saturated = f"SynFlow uses sparsity.input = {used:g}, as all scores are zero at {self.input:g}."
        return super().warnings() + ([saturated] if used != self.input else [])
