"""An embedding in which some words have shorter vectors than others."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.errors import ConfigError
from sparse_bench.row_sparse import RowSparseLayer, TouchedRows, readable_without_wait
from sparse_bench.row_sparse.layers import gradient_of_words
from sparse_bench.sparsity.layers.structured_module import StructuredModule
from sparse_bench.sparsity.tiers import Tiers


class TieredEmbedding(RowSparseLayer, StructuredModule):
    """Replaces an :class:`torch.nn.Embedding`: gives vectors of full length, whose missing columns are zero.

    All weights are in one vector. A row-sparse gradient holds the weights of the touched words: each of its "rows" is a
    single weight. On the CPU these are in ascending order.

    Args:
        embedding: the layer to replace; weights that exist keep their values.
        tiers: the blocks of columns.
        place: place of every word in the order that ``tiers`` uses [V], int64.

    Attributes:
        weight: all weights that exist [entries], block after block; frozen if those of ``embedding`` were.
        place: see above; a buffer.

    Raises:
        ConfigError: ``embedding`` has max_norm, scale_grad_by_freq or sparse gradients.
    """

    place: Tensor
    start: Tensor
    stride: Tensor
    offset: Tensor

    def __init__(self, embedding: nn.Embedding, tiers: Tiers, place: Tensor) -> None:
        super().__init__()
        if embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse:
            raise ConfigError(
                f"{embedding} cannot be tiered. Valid choices: an embedding without max_norm, scale_grad_by_freq and "
                "sparse gradients."
            )
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        self.tiers = tiers
        device = embedding.weight.device
        self.register_buffer("place", place.to(device))
        # The word at place p has column d if p ≥ start[d]; its value is weight[p · stride[d] + offset[d]].
        widths = torch.tensor(tiers.widths)
        start, stride = tiers.first_places(), widths.repeat_interleave(widths)
        first = torch.tensor([0, *tiers.sizes[:-1]]).cumsum(0).repeat_interleave(widths)
        within = torch.cat([torch.arange(width) for width in tiers.widths])
        for name, value in (("start", start), ("stride", stride), ("offset", first + within - start * stride)):
            self.register_buffer(name, value.to(device), persistent=False)
        in_order = torch.empty_like(embedding.weight).index_copy_(0, self.place, embedding.weight.detach())
        columns = in_order.split(tiers.widths, dim=1)
        blocks = [block[start:].flatten() for block, start in zip(columns, tiers.starts, strict=True)]
        self.weight = nn.Parameter(torch.cat(blocks), embedding.weight.requires_grad)

    def forward(self, words: Tensor) -> Tensor:
        """Vectors [..., D] of ``words``, indices of any shape [...]."""
        if self.exact is None:
            return self._vectors(words)

        def gradient(touched: TouchedRows, grad: Tensor) -> tuple[Tensor, Tensor]:
            sums = gradient_of_words(words, self.padding_idx, touched, grad)
            stored, values = [], []
            for first, columns, exists, places in self._pieces(touched.rows):
                piece = sums[first:, columns]
                stored.append(places.flatten())
                values.append((piece if exists is None else piece * exists).flatten())
            return torch.cat(stored), torch.cat(values)

        return self.read(self.place[words.reshape(-1)], partial(self._vectors, words), gradient)

    def stored(self, rows: Tensor) -> Tensor:
        return torch.cat([places.flatten() for *_, places in self._pieces(rows)])

    def _vectors(self, words: Tensor) -> Tensor:
        place = self.place[words].unsqueeze(-1)
        exists = place >= self.start
        # Gather single weights. With narrow blocks this is as fast as a dense look-up; a look-up per block is slower.
        index = torch.where(exists, place * self.stride + self.offset, 0)
        vectors = self.weight.gather(0, index.flatten()).view(index.shape) * exists
        if self.padding_idx is None:
            return vectors
        return torch.where((words == self.padding_idx).unsqueeze(-1), vectors.detach(), vectors)

    def _pieces(self, rows: Tensor) -> Iterator[tuple[int, slice, Tensor | None, Tensor]]:
        """For each block of columns, the places in :attr:`weight` of the words at places ``rows`` [U].

        On the CPU, rows without a block are left out. On other devices they remain and have to be multiplied by zero.
        They then get places of the same row in a block that all rows have, so that no other row counts as touched.

        Yields:
            Index of the first row that remains; the block's columns; which of the U' remaining rows have the block
            [U', 1], None for all; and places in :attr:`weight` [U', columns].
        """
        sorted_rows = readable_without_wait(rows)
        column = begin = 0
        own: Tensor | None = None  # each row's places in a block that all rows have [U, columns]
        for start, width, size in zip(self.tiers.starts, self.tiers.widths, self.tiers.sizes, strict=True):
            if size:
                first = int(torch.searchsorted(rows, start)) if sorted_rows else 0
                row = rows[first:, None] - start
                exists = None if sorted_rows or start == 0 else row >= 0
                places = row.clamp_min(0) * width + torch.arange(begin, begin + width, device=rows.device)
                if exists is None:
                    own = places
                elif own is not None:
                    repeated = torch.arange(width, device=rows.device) % own.shape[1]
                    places = torch.where(exists, places, own[:, repeated])
                yield first, slice(column, column + width), exists, places
            column, begin = column + width, begin + size

    def blocks(self) -> list[Tensor]:
        """Views of :attr:`weight`, one for each block of columns [rows, width]."""
        # The gradient of one split is one concatenation. The gradient of each slice would be as large as the weight.
        flat = self.weight.split(self.tiers.sizes)
        return [block.view(-1, width) for block, width in zip(flat, self.tiers.widths, strict=True)]

    def dense_weight(self) -> Tensor:
        """The full matrix [V, D] for a tied decoder, zero where no weight exists; differentiable."""
        columns = [
            F.pad(block, (0, 0, start, 0)) for block, start in zip(self.blocks(), self.tiers.starts, strict=True)
        ]
        return torch.cat(columns, dim=1).index_select(0, self.place)

    def parts(self, attribute: str) -> list[Tensor]:
        return [getattr(self, attribute)]

    def full(self, attribute: str) -> Tensor:
        return self.dense_weight()

    def topology(self, attribute: str) -> Tensor:
        return self.tiers.topology(self.place)

    def extra_repr(self) -> str:
        """Sizes."""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, blocks={len(self.tiers.widths)}, weights={len(self.weight)}"
        )
