"""A classifier of short texts that sums or averages the embeddings of the tokens, and so ignores their order.

This is the model of "Efficient Embedding Models With PyTorch", without the knowledge base that the post plans.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.text import TextBatch, TextSizes
from sparse_bench.limits import Width, checked, one_of
from sparse_bench.models.base import Model

POOLINGS = ("masked_sum", "sum", "mean")
_DEFAULT_DIM = 300


class BagOfEmbeddings(Model):
    """Embeddings → one vector per text → linear layer. A softmax turns its scores into probabilities.

    Args:
        sizes: sizes of the vocabulary and of the set of types.
        embedding_dim: D, width of the embedding.
        pooling: ``masked_sum`` (the post's), ``sum`` or ``mean`` of the embeddings E(w_t). ``masked_sum`` is
            Σ_t E(w_t) ⊙ M(w_t). The second table M weights each dimension of each word's embedding, and starts at 1.

    Raises:
        ConfigError: a setting outside its range.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text_typing",)
    groups: ClassVar[tuple[str, ...]] = ("default", "embedding", "classifier")

    @checked
    def __init__(
        self,
        sizes: TextSizes,
        *,
        embedding_dim: Width = _DEFAULT_DIM,
        pooling: Annotated[str, one_of(*POOLINGS)] = "masked_sum",
    ) -> None:
        super().__init__()
        #: Occurrences of every word in the training data.
        self.word_frequencies = sizes.frequencies
        self.embedding: nn.Embedding | nn.EmbeddingBag
        self.mask: nn.Embedding | None = None
        if pooling == "masked_sum":
            self.embedding = nn.Embedding(sizes.vocabulary, embedding_dim)
            self.mask = nn.Embedding(sizes.vocabulary, embedding_dim)
            nn.init.ones_(self.mask.weight)
        else:
            self.embedding = nn.EmbeddingBag(sizes.vocabulary, embedding_dim, mode=pooling)
        self.classifier = nn.Linear(embedding_dim, sizes.types)

    def encode(self, batch: TextBatch) -> Tensor:
        """Vectors of the texts [B, D]."""
        if self.mask is None:
            encoded: Tensor = self.embedding(batch.words, batch.offsets)
            return encoded
        weighted = self.embedding(batch.words) * self.mask(batch.words)
        tokens = torch.arange(batch.words.shape[0], device=weighted.device)
        return F.embedding_bag(tokens, weighted, batch.offsets, mode="sum")

    def forward(self, batch: TextBatch) -> Tensor:
        """Scores of the types [B, types]."""
        scores: Tensor = self.classifier(self.encode(batch))
        return scores

    def layer_groups(self) -> dict[str, list[str]]:
        tables = ["embedding.weight"] + (["mask.weight"] if self.mask is not None else [])
        return {"default": tables, "embedding": tables, "classifier": ["classifier.weight"]}

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"embedding_dim": width} for width in range(1, settings.get("embedding_dim", _DEFAULT_DIM) + 1)]
