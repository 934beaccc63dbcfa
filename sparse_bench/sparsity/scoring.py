"""The base of schemes that score the weights of the dense model before training, and keep the highest."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.scores import Losses, kept, scored
from sparse_bench.sparsity.weights import SparseWeight, sparsify
from sparse_bench.streams import Streams


@dataclass
class Scored(Scheme, ABC):
    """Keeps the weights of highest score over all selected layers; the topology is fixed from then on.

    The scores come from the first training batches, in evaluation mode. Their random numbers have a stream of their
    own, so training sees the same batches and the same noise as without them. Ranks of a data-parallel training add
    their scores.
    """

    changes: ClassVar[str] = "never; chosen before training"

    @abstractmethod
    def masks(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        """Selected layer → mask [out, in]; ``twin`` is a copy of the dense model that may be changed."""

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        if any(model.get_parameter(name).is_meta for name in self.selected):
            # There are no numbers to score, so all are equal.
            equal = {name: torch.zeros(model.get_parameter(name).shape) for name in self.selected}
            return sparsify(model, kept(equal, self.density), self.execution)
        if self.losses is None:
            raise ConfigError(
                f"{type(self).__name__} scores the weights with training batches, and there are none. Give them to "
                "sparsify(..., losses=...)."
            )
        seed = streams.derive("scores")
        with scored(model, seed) as twin:
            found = self.masks(twin, self.losses, seed)
        return sparsify(model, found, self.execution)

    def warnings(self) -> list[str]:
        empty = [name for name, weight in self.weights.items() if not weight.active]
        return [f"{type(self).__name__} leaves no weight in {', '.join(empty)}."] if empty else []


@dataclass
class ScoredOnce(Scored, ABC):
    """All weights are scored once.

    Attributes:
        batches: number of training batches whose mean loss gives the scores.
    """

    batches: Count = 8

    @abstractmethod
    def scores(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        """Selected layer → score of each weight [out, in]."""

    def masks(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        return kept(summed_over_ranks(self.scores(twin, losses, seed)), self.density)


def summed_over_ranks(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores, added over the processes of a data-parallel training; so all of them choose the same weights."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for score in scores.values():
            torch.distributed.all_reduce(score)
    return scores
