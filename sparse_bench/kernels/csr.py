"""Torch's own sparse products: CSR times dense, and a sampled dense product for the gradient of the values.

The fallback on any device where the project's kernels are not available, and their baseline in benchmarks.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels.structure import SparseStructure


def csr_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in] in float32 or float64; returns [..., out], contiguous. Differentiable once."""
    _take_beta_warning()
    tokens = x.reshape(x.shape[:-1].numel(), structure.in_features)
    y: Tensor = _CsrLinear.apply(tokens, values, bias, structure)
    return y.view(*x.shape[:-1], structure.out_features)


class _CsrLinear(torch.autograd.Function):
    """The product for a batch [tokens, in]; torch itself has no gradient with respect to the stored values alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, structure: SparseStructure) -> Tensor:
        ctx.save_for_backward(x, values)
        # Keep the current indices, because the structure may be rewired before the backward pass.
        ctx.indices = structure.row_start, structure.column
        ctx.by_column = structure.by_column() if ctx.needs_input_grad[0] else None
        shape = (structure.out_features, structure.in_features)
        y = (_csr(structure.row_start, structure.column, values, shape) @ x.t()).t()
        return (y if bias is None else y + bias).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        need_input, need_values, need_bias = ctx.needs_input_grad[:3]
        columns, rows = x.shape[1], grad.shape[1]
        grad_input = grad_values = None
        if need_input:
            column_start, row, origin = ctx.by_column
            transposed = _csr(column_start, row, values[origin], (columns, rows))
            grad_input = (transposed @ grad.t()).t().contiguous()
        if need_values:
            row_start, column = ctx.indices
            pattern = _csr(row_start, column, torch.zeros_like(values), (rows, columns))
            grad_values = torch.sparse.sampled_addmm(pattern, grad.t(), x, beta=0.0).values()
        return grad_input, grad_values, grad.sum(0) if need_bias else None, None


def _csr(row_start: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(row_start, column, values, shape, check_invariants=False)


@cache
def _take_beta_warning() -> None:
    """Suppress torch's warning that CSR tensors are in beta, which the first CSR tensor of a process causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = torch.zeros(1, dtype=torch.int32)
        _csr(index, index[:0], torch.zeros(0), (0, 0))
