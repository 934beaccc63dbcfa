"""Rewiring head by head: the rows of each attention head are a graph of their own, with its own number of weights."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from sparse_bench.sparsity.dynamics.drop import on_host
from sparse_bench.sparsity.dynamics.grow import Room
from sparse_bench.sparsity.dynamics.scheme import Dynamic, where
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.selection import heads
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, apportion
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class HeadWise(MaskScheme, Dynamic, ABC):
    """Drops and grows within each head of a matrix; a matrix without heads counts as one head."""

    distribution: str = "uniform"

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        self._heads = heads(model)
        return super().install(model, streams)

    def heads(self, layer: str) -> int:
        """Number of heads of a layer. Each is the same share of its rows, so of its places too."""
        return self._heads.get(layer, 1)

    def counts_by_head(self, shapes: Mapping[str, Shape], density: float) -> dict[str, list[int]]:
        """Layer → number of weights of each of its heads at a ``density`` of all layers; equal but for rounding."""
        whole, found = DISTRIBUTIONS[self.distribution](shapes, density), {}
        for name, (rows, columns) in shapes.items():
            parts = self.heads(name)
            found[name] = apportion([whole[name] / parts] * parts, whole[name], [rows // parts * columns] * parts)
        return found

    def by_head(self, layer: str, places: Tensor) -> list[Tensor]:
        """For each head, which of the ``places`` [n] belong to it, boolean [n]."""
        of = places // (self.weights[layer].size // self.heads(layer))
        return [of == head for head in range(self.heads(layer))]

    def removed(self, layer: str, fraction: float, generator: Generator, pruned: Tensor | None = None) -> Tensor:
        places, values = self.ranked(layer, generator)
        rest = torch.ones_like(places, dtype=torch.bool) if pruned is None else ~torch.isin(places, pruned)
        gone = []
        for mine in self.by_head(layer, places):
            own = (mine & rest).nonzero().squeeze(1)
            gone.append(where(places[own], self.dynamics.drop(on_host(values[own]), fraction)))
        #: Numbers of connections that the heads of the present layer have just lost, and grow.
        self._lost = [places.numel() for places in gone]
        return torch.cat(gone)

    def grown(self, layer: str, left: Tensor, count: int, generator: Generator) -> Tensor:
        assert self.dynamics.grow is not None
        parts = left.chunk(self.heads(layer))
        grown = [torch.empty(0, dtype=torch.int64, device=left.device)]
        for head, (part, lost) in enumerate(zip(parts, self._lost if count else [0] * len(parts), strict=True)):
            if lost:
                room = Room(part, part.numel() - int(part.count_nonzero()), None, generator)
                grown.append(self.dynamics.grow(room, lost) + head * part.numel())
        return torch.cat(grown)
