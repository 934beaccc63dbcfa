"""Sparse evolutionary training (Mocanu et al. 2018)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from sparse_bench.limits import Share, one_of
from sparse_bench.sparsity.dynamics.drop import DROPS
from sparse_bench.sparsity.dynamics.grow import random_free
from sparse_bench.sparsity.dynamics.schedule import EveryEpoch
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.schemes.static_er import StaticER
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

NEW_WEIGHTS = ("zero", "initial")


@dataclass
class SET(StaticER, Dynamic):
    """Starts from an Erdős–Rényi topology; after every epoch, replaces the weights nearest zero by random connections.

    After the last epoch weights are only removed, as in the paper. So the trained model is sparser than ``density``, by
    the fraction ``zeta``. With ``drop=magnitude`` and an annealed ``zeta``, this is the rewiring of Selfish-RNN (Liu et
    al. 2021).

    Attributes:
        zeta: fraction of each layer's weights that is replaced after an epoch; ζ in the paper.
        final_zeta: if given, the fraction falls along half a cosine, from ``zeta`` after the first epoch to this value
            after the last one.
        drop: ``signed_magnitude``: remove the fraction among the positive weights, and among the negative ones.
            ``magnitude``: remove the fraction among all weights.
        new_weights: value of a new connection. ``zero``, or ``initial``: a random one of the first weights of the
            layer's full matrix, so that new weights follow the layer's own initialiser.
        last_removal: whether weights are removed after the last epoch; if not, the density stays the same.
    """

    zeta: Share = 0.3
    final_zeta: Share | None = None
    drop: Annotated[str, one_of(*DROPS)] = "signed_magnitude"
    new_weights: Annotated[str, one_of(*NEW_WEIGHTS)] = "zero"
    last_removal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._initial: dict[str, Tensor] = {}

    def compose(self) -> Dynamics:
        schedule = EveryEpoch(self.zeta, self.final_zeta)
        return Dynamics(DROPS[self.drop], random_free, schedule, last_removal=self.last_removal)

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        if self.new_weights == "initial":
            self._initial = {name: model.get_parameter(name).detach().flatten().clone() for name in self.selected}
        return super().install(model, streams)

    def attach(self, model: nn.Module, streams: Streams) -> None:
        super().attach(model, streams)
        if self._initial and self.sigma is not None:  # first weights have been drawn again
            self._initial = {name: weight.entries()[1].clone() for name, weight in self.weights.items()}

    def new_values(self, layer: str, count: int, generator: Generator) -> Tensor:
        if self.new_weights == "zero":
            return super().new_values(layer, count, generator)
        pool = self._initial[layer]
        return pool[torch.randint(pool.numel(), (count,), generator=generator)]
