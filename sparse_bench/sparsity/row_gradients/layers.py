"""Embedding layers whose gradient holds the rows that a batch touched."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.row_gradients.rows import TouchedRows, sparse_in_rows


class _LookUp(torch.autograd.Function):
    """Rows ``indices`` [N] of the table, [N, D]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding_idx: int | None, touched: TouchedRows) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.shape, ctx.padding_idx, ctx.touched = weight.shape, padding_idx, touched
        return weight.index_select(0, indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        # The padding row has no gradient. Multiplied, not taken out: the shape must not depend on the numbers.
        scale = None if ctx.padding_idx is None else (indices != ctx.padding_idx).to(grad.dtype)
        gradient = sparse_in_rows(ctx.touched.rows, ctx.touched.sums(grad, scale=scale), ctx.shape)
        return gradient, None, None, None


class _SummedLookUp(torch.autograd.Function):
    """Sums or means of bags of rows [B, D], as :func:`torch.nn.functional.embedding_bag` computes them."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        indices: Tensor,
        offsets: Tensor,
        factors: Tensor | None,
        mode: str,
        touched: TouchedRows,
    ) -> Tensor:
        ctx.save_for_backward(offsets, factors)
        ctx.shape, ctx.tokens, ctx.mode, ctx.touched = weight.shape, indices.shape[0], mode, touched
        return F.embedding_bag(indices, weight, offsets, mode=mode, per_sample_weights=factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        offsets, factors = ctx.saved_tensors
        if ctx.mode == "mean":  # bags are fewer than tokens, so it is their gradients that are divided
            lengths = torch.diff(offsets, append=offsets.new_full((1,), ctx.tokens))
            grad = grad / lengths[:, None]
        sums = ctx.touched.sums_of_bags(grad, offsets, factors)
        gradient = sparse_in_rows(ctx.touched.rows, sums, ctx.shape)
        return gradient, None, None, None, None, None


class RowGradientLayer(nn.Module):
    """What layers whose gradients are sparse in rows share: those below, and the tiered one.

    Attributes:
        weight: the table [V, D].
        exact: whether its update has to follow the trajectory of the dense optimizer; else rows that a batch does not
            touch stay as they are.
        before_read: called with the rows [U] that are about to be read, in every forward pass; whoever puts off
            updates of rows brings them up to date here.
        distinct_rows: the rows of the latest look-up that learns, where they are known to be distinct and sorted.
    """

    weight: Any  # an nn.Parameter; the layers that are mixed with declare it in different ways
    exact: bool = True
    before_read: Callable[[Tensor], None] | None = None
    distinct_rows: Tensor | None = None

    def _touch(self, indices: Tensor) -> TouchedRows | None:
        """The rows that are read, brought up to date; None if nobody needs them."""
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if not learns and self.before_read is None:
            return None
        touched = TouchedRows.of(indices)
        if self.before_read is not None:
            self.before_read(touched.rows)
        if not learns:
            return None
        self.distinct_rows = None if touched.order is None else touched.rows
        return touched


class RowGradientEmbedding(RowGradientLayer, nn.Embedding):
    """An :class:`torch.nn.Embedding` whose gradient is sparse in rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Indices of any shape [...] → [..., D]."""
        touched = self._touch(input.reshape(-1))
        if touched is None:
            return super().forward(input)
        rows: Tensor = _LookUp.apply(self.weight, input.reshape(-1), self.padding_idx, touched)
        return rows.view(*input.shape, self.embedding_dim)


class RowGradientEmbeddingBag(RowGradientLayer, nn.EmbeddingBag):
    """An :class:`torch.nn.EmbeddingBag` (sum or mean) whose gradient is sparse in rows."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Indices [N] with ``offsets`` [B], or indices [B, L] → [B, D]. ``per_sample_weights`` are data."""
        if per_sample_weights is not None and per_sample_weights.requires_grad:
            raise ConfigError("With a gradient that is sparse in rows, the weights of a bag's samples cannot learn.")
        touched = self._touch(input.reshape(-1))
        if touched is None:
            return super().forward(input, offsets, per_sample_weights)
        if input.dim() == 2:
            offsets = torch.arange(0, input.numel(), input.shape[1], device=input.device)
        factors = None if per_sample_weights is None else per_sample_weights.reshape(-1)
        summed: Tensor = _SummedLookUp.apply(self.weight, input.reshape(-1), offsets, factors, self.mode, touched)
        return summed
