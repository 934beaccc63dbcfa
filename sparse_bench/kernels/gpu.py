"""The project's kernel for GPUs, with the CPU kernel's design, in Triton. Import it only where Triton is installed.

Both passes work on feature-major copies [features, tokens], so that each stored entry acts on adjacent numbers. In the
forward pass, one program computes an output row for a block of tokens. In the backward pass, one program computes an
input column for a block of tokens: each load of the output's gradient serves both the input's gradient and the value's.
There are no atomic additions, so equal calls give equal bits. On an H100 it is faster than a dense float32 layer at
2,048 features, 4,096 tokens and a density of 0.1 or less. It is slower at all smaller sizes that were timed
(results/performance/sparse_linear_gpu.md).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels.checks import check_product
from sparse_bench.kernels.structure import SparseStructure

#: Most tokens per program; Triton needs a power of two.
_MOST_TOKENS = 1024
#: The result of :meth:`SparseStructure.by_column`.
Columns = tuple[Tensor, Tensor, Tensor]


# Triton interprets annotations of arguments in its own way, so there are none here.
@triton.jit
def _rows(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x,
    start,
    column,
    value,
    bias,
    y,
    tokens,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y[row, tokens] = bias + sum over the row's entries of value * x[column, tokens]."""
    row = tl.program_id(0)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < tokens
    total = tl.zeros([BLOCK], dtype=y.dtype.element_ty)
    if HAS_BIAS:
        total += tl.load(bias + row)
    for k in range(tl.load(start + row), tl.load(start + row + 1)):
        place = tl.load(column + k).to(tl.int64) * tokens + token
        total += tl.load(value + k) * tl.load(x + place, mask=inside, other=0.0)
    tl.store(y + row.to(tl.int64) * tokens + token, total, mask=inside)


@triton.jit
def _columns(  # type: ignore[no-untyped-def]  # noqa: ANN202
    gy,
    x,
    start,
    row,
    value,
    gx,
    gv,
    entries,
    tokens,
    INPUT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """gx[column, tokens] = sum of value * gy[row, tokens]; gv[block, k] = dot(gy[row, tokens], x[column, tokens])."""
    column = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    token = part * BLOCK + tl.arange(0, BLOCK)
    inside = token < tokens
    own = tl.load(x + column * tokens + token, mask=inside, other=0.0)
    total = tl.zeros([BLOCK], dtype=x.dtype.element_ty)
    for k in range(tl.load(start + column), tl.load(start + column + 1)):
        grad = tl.load(gy + tl.load(row + k).to(tl.int64) * tokens + token, mask=inside, other=0.0)
        if INPUT:
            total += tl.load(value + k) * grad
        tl.store(gv + part.to(tl.int64) * entries + k, tl.sum(grad * own, axis=0))
    if INPUT:
        tl.store(gx + column * tokens + token, total, mask=inside)


def gpu_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in] in float32 or float64 on a GPU; returns [..., out], contiguous.

    Differentiable once, for ``x``, ``values`` [entries] and ``bias`` [out].

    Raises:
        ValueError: sizes, dtypes or devices do not match.
    """
    check_product(x, structure, values, bias)
    tokens = x.reshape(x.shape[:-1].numel(), structure.in_features)
    y: Tensor = _GpuLinear.apply(tokens, values, bias, structure)
    return y.view(*x.shape[:-1], structure.out_features)


def _blocks(tokens: int) -> tuple[int, int]:
    """Tokens per block, and number of blocks."""
    block = min(_MOST_TOKENS, triton.next_power_of_2(tokens))
    return block, triton.cdiv(tokens, block)


def product(x: Tensor, start: Tensor, index: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b [out, tokens] for W in CSR form. Given the CSC form of W, the product with Wᵀ.

    Args:
        x: the input [in, tokens], contiguous, one feature per row.
        start: index of the first entry of each row of W, int32 [out + 1].
        index: column of each entry, int32 [entries].
        values: value of each entry [entries], in the dtype of ``x``.
        bias: [out] or None.
    """
    tokens = x.shape[1]
    y = x.new_empty(start.numel() - 1, tokens)
    if y.numel():
        block, blocks = _blocks(tokens)
        offset = values if bias is None else bias
        with torch.cuda.device_of(x):  # Triton launches on the current GPU, which may be another one
            _rows[(y.shape[0], blocks)](
                x, start, index, values, offset, y, tokens, HAS_BIAS=bias is not None, BLOCK=block
            )
    return y


def gradients(grad: Tensor, x: Tensor, by_column: Columns, values: Tensor, need_input: bool) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and of ``values`` for the product W x.

    Args:
        grad: gradient of W x [out, tokens], contiguous, in the dtype of ``x``.
        x: the input [in, tokens], contiguous.
        by_column: W's :meth:`SparseStructure.by_column`.
        values: values of W [entries], in CSR order.
        need_input: whether to compute the gradient of ``x``; otherwise it is returned as zeros.

    Returns:
        The gradients of ``x`` [in, tokens] and of ``values`` [entries].
    """
    column_start, row, origin = by_column
    (columns, tokens), entries = x.shape, values.numel()
    grad_x, grad_values = torch.zeros_like(x), torch.zeros_like(values)
    if x.numel() and entries:
        block, blocks = _blocks(tokens)
        parts = values.new_empty(blocks, entries)
        arrays = grad, x, column_start, row, values[origin], grad_x, parts
        with torch.cuda.device_of(x):
            _columns[(columns, blocks)](*arrays, entries, tokens, INPUT=need_input, BLOCK=block)
        grad_values.index_copy_(0, origin, parts.sum(0))
    return grad_x, grad_values


class _GpuLinear(torch.autograd.Function):
    """The product for a batch [tokens, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, structure: SparseStructure) -> Tensor:
        by_feature, values = x.t().contiguous(), values.contiguous()
        ctx.save_for_backward(by_feature, values)
        ctx.by_column = structure.by_column()
        indices = structure.row_start.contiguous(), structure.column.contiguous()
        return product(by_feature, *indices, values, None if bias is None else bias.contiguous()).t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_feature, values = ctx.saved_tensors
        need_input, need_values, need_bias = ctx.needs_input_grad[:3]
        grad_input = grad_values = None
        if need_input or need_values:
            grad_input, grad_values = gradients(grad.t().contiguous(), by_feature, ctx.by_column, values, need_input)
        return (
            grad_input.t().contiguous() if grad_input is not None and need_input else None,
            grad_values if need_values else None,
            grad.sum(0) if need_bias else None,
            None,
        )
