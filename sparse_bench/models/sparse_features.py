"""Projection of the rows of a sparse feature matrix to dense vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import SparseRows
from sparse_bench.models.dropout import check_rate, keep_mask
from sparse_bench.models.regularization import Penalty, add_penalty_


class _SparseTimesDense(torch.autograd.Function):
    """Y = X W for a sparse X [rows, features] and a dense W [features, size], and Σ W² if there is a penalty.

    The gradient Xᵀ dY is computed like the product itself. The stored values are sorted by feature, and rows of dY are
    summed for each feature. On a CPU this takes about half as long as the gradient of ``embedding_bag``, and on every
    device the order of its sums is fixed. The penalty's gradient is added in place, because a second tensor of W's size
    would be the largest cost when a batch uses few rows of W.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, indices: Tensor, offsets: Tensor, values: Tensor, penalty: Penalty | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight, indices, offsets, values)
        ctx.only_where_positive = penalty and penalty.only_where_positive
        flat = weight.reshape(-1)
        squares = weight.new_zeros(()) if penalty is None else torch.dot(flat, flat)
        return F.embedding_bag(indices, weight, offsets, mode="sum", per_sample_weights=values), squares

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, indices, offsets, values = ctx.saved_tensors
        stored = indices.shape[0]
        order = _stable_order(indices, weight.shape[0])
        counts = indices.new_zeros(weight.shape[0]).index_add_(0, indices, torch.ones_like(indices))
        lengths = torch.diff(offsets, append=offsets.new_full((1,), stored))
        rows = torch.repeat_interleave(lengths, output_size=stored)
        gradient = F.embedding_bag(
            rows.index_select(0, order),
            gradients[0].contiguous(),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=values.index_select(0, order),
        )
        if ctx.only_where_positive is not None:
            add_penalty_(gradient, weight, gradients[1], ctx.only_where_positive)
        return gradient, None, None, None, None


def _stable_order(numbers: Tensor, limit: int) -> Tensor:
    """``numbers.argsort(stable=True)`` for numbers from 0 to below ``limit``."""
    if numbers.is_cpu and limit <= 1 << 16:
        # Numpy sorts numbers of 16 bits digit by digit, which takes a tenth of the time of torch's sort.
        return torch.from_numpy(np.argsort(numbers.numpy().astype(np.uint16), kind="stable"))
    return torch.argsort(numbers, stable=True)


class SparseProjection(nn.Module):
    """A linear layer for sparse rows: sparse dropout, then the product with the weight, plus the bias.

    As in the released Rasa code, sparse dropout drops stored values and does not rescale the others.

    Args:
        features: width of the sparse rows.
        size: width of the output.
        dropout: share of stored values dropped in training.

    Attributes:
        weight: [features, size]. This is transposed with respect to :class:`torch.nn.Linear`, so that the weights of a
            feature are adjacent in memory.
        rows_are_inputs: True: marks the weight as transposed.
        bias: [size].

    Raises:
        ConfigError: the dropout rate is outside its range.
    """

    rows_are_inputs: ClassVar[bool] = True

    def __init__(self, features: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = check_rate(dropout, "sparse_dropout")
        self.weight = nn.Parameter(torch.empty(features, size))
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, rows: SparseRows, penalty: Penalty | None = None) -> Tensor:
        """Dense vectors [rows, size]. Σ W² is added to ``penalty`` if there is one."""
        values = rows.values.to(self.weight.dtype)
        if self.training and self.dropout > 0:
            values = values * keep_mask(values.shape, self.dropout, values.device)
        product, squares = _SparseTimesDense.apply(self.weight, rows.indices, rows.offsets, values, penalty)
        if penalty is not None:
            penalty.add(squares)
        dense: Tensor = product + self.bias
        return dense

    def extra_repr(self) -> str:
        """Sizes and dropout."""
        features, size = self.weight.shape
        return f"features={features}, size={size}, dropout={self.dropout}"
