"""Row gradients of tiered embeddings, whose words have vectors of unlike length."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.sparsity.layers.tiered_embedding import TieredEmbedding
from sparse_bench.sparsity.row_gradients.layers import RowGradientLayer
from sparse_bench.sparsity.row_gradients.rows import TouchedRows, host_sees, sparse_in_rows


class _TieredLookUp(torch.autograd.Function):
    """Vectors of ``words`` as the layer computes them; the gradient is sparse in the weights of the touched words."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, words: Tensor, layer: "RowGradientTieredEmbedding", touched: TouchedRows
    ) -> Tensor:
        ctx.save_for_backward(words)
        ctx.shape, ctx.layer, ctx.touched = weight.shape, layer, touched
        return TieredEmbedding.forward(layer, words)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (words,) = ctx.saved_tensors
        padding = ctx.layer.padding_idx
        scale = None if padding is None else (words != padding).to(grad.dtype)
        sums = ctx.touched.sums(grad, scale=scale)
        entries, values = [], []
        for first, columns, exists, places in ctx.layer.pieces(ctx.touched.rows):
            piece = sums[first:, columns]
            entries.append(places.flatten())
            values.append((piece if exists is None else piece * exists).flatten())
        return sparse_in_rows(torch.cat(entries), torch.cat(values), ctx.shape), None, None, None


class RowGradientTieredEmbedding(RowGradientLayer, TieredEmbedding):
    """A :class:`TieredEmbedding` whose gradient holds the weights of the words that a batch touched.

    All its weights stand in one vector, so its "rows" are single weights, in ascending order where rows are sorted.
    """

    def forward(self, words: Tensor) -> Tensor:
        """Vectors of ``words`` (numbers, any shape [...]): [..., D]."""
        flat = words.reshape(-1)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if not learns and self.before_read is None:
            return TieredEmbedding.forward(self, words)
        touched = TouchedRows.of(self.place[flat])
        if self.before_read is not None:
            self.before_read(torch.cat([places.flatten() for *_, places in self.pieces(touched.rows)]))
        if not learns:
            return TieredEmbedding.forward(self, words)
        vectors: Tensor = _TieredLookUp.apply(self.weight, flat, self, touched)
        return vectors.view(*words.shape, self.embedding_dim)

    def pieces(self, rows: Tensor) -> Iterator[tuple[int, slice, Tensor | None, Tensor]]:
        """Where the weights of the words at places ``rows`` [U] stand, block of columns by block.

        Gives (first of the rows that has the block, the block's columns, which of those rows have it [U', 1] or None
        for all, places in :attr:`weight` [U', columns]). Rows that lack a block are cut off where the host sees the
        numbers; elsewhere they are there, at places of the row's own that all rows have, to be multiplied by zero:
        another row's must not pass for touched.
        """
        sorted_rows = host_sees(rows)
        column = begin = 0
        own: Tensor | None = None  # places of each row in a block that all rows have [U, columns]
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
