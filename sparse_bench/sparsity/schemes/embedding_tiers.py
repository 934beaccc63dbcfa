"""Predefined sparseness: embeddings with short vectors for some words (Demeester et al. 2018)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Few, one_of
from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.scheme import Layers
from sparse_bench.sparsity.structured import StructuredScheme, replace
from sparse_bench.sparsity.tiers import tiers
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

ORDERS = ("up", "down", "rand")


@dataclass
class EmbeddingTiers(StructuredScheme):
    """Every selected embedding keeps the share ``density`` of its weights; ``order`` decides whose vectors are short.

    Density 1 is a plain dense embedding. The model's ``word_frequencies`` [V] give the count of each word index. For a
    model without them, indices are assumed to run from the most frequent word to the rarest.

    Attributes:
        blocks: number of blocks of columns. The last words in the order have all blocks, the first ones only the first.
        order: ``up``: rare words first, so they have short vectors, as the paper proposes. ``down``: frequent words
            first. ``rand``: a random order. Equally frequent words are in the order of their indices.
    """

    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    replaces: ClassVar[str] = "embeddings"

    layers: Layers = ("embedding",)
    blocks: Few = 20
    order: Annotated[str, one_of(*ORDERS)] = "up"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 / self.blocks <= self.density <= 1:
            raise ConfigError(
                f"sparsity.density={self.density} does not fit sparsity.blocks={self.blocks}: the density must lie "
                "between 1/blocks and 1."
            )

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        weights: dict[str, SparseWeight] = {}
        if self.density == 1.0:
            return weights
        for path, names in self.owners(model, (nn.Embedding,)).items():
            embedding = model.get_submodule(path)
            assert isinstance(embedding, nn.Embedding)
            geometry = tiers(embedding.num_embeddings, embedding.embedding_dim, self.density, self.blocks)
            place = self._places(model, embedding, streams.torch("topology", names[0]))
            weights |= replace(model, path, names, TieredEmbedding(embedding, geometry, place))
        return weights

    def _places(self, model: nn.Module, embedding: nn.Embedding, generator: torch.Generator) -> Tensor:
        """Place of every word in the order [V], int64, on the CPU."""
        vocabulary = embedding.num_embeddings
        if self.order == "rand":
            return torch.randperm(vocabulary, generator=generator)
        counts = getattr(model, "word_frequencies", None)
        counts = torch.arange(vocabulary, 0, -1) if counts is None else torch.as_tensor(counts, device="cpu")
        if counts.shape != (vocabulary,):
            raise ConfigError(
                f"The model has frequencies of {counts.numel()} words and an embedding of {vocabulary} words; "
                "use sparsity.order=rand, or select another layer."
            )
        in_order = counts.argsort(descending=self.order == "down", stable=True)
        return torch.empty_like(in_order).index_copy_(0, in_order, torch.arange(vocabulary))
