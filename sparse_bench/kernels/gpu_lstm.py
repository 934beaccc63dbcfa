"""The recurrence of a sparse LSTM on GPUs, in Triton. Import it only where Triton is installed.

Each time step is one launch, in the forward and in the backward pass. One program handles a hidden unit and a block of
the batch: it computes the unit's four gates and its new states. As in ``gpu.py``, each stored entry acts on adjacent
numbers, here the sequences of a batch. So states and gates are feature-major, [features, T + 1, B]. Block t of the
hidden and cell states is the state before time step t. The gradient of the values is one product over all time steps.
There are no atomic additions, so equal calls give equal bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels import gpu
from sparse_bench.kernels.structure import SparseStructure

#: Most sequences per program; Triton needs a power of two.
_MOST_SEQUENCES = 32
#: Entries that are loaded together, to hide the latency of memory; a power of two.
_ENTRIES = 16


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """tanh: Lambert's continued fraction near zero, where the formula with exponentials loses digits."""
    s = x * x
    near = x / (1 + s / (3 + s / (5 + s / (7 + s / (9 + s / (11 + s / 13))))))
    return tl.where(s < 0.25, near, 2 * tl.sigmoid(2 * x) - 1)


@triton.jit
def _dot(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x,
    tokens,
    token,
    inside,
    start,
    index,
    value,
    row,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Sum over the entries of a row of value * x[index, token]; in CSC form, over those of a column."""
    total = tl.zeros([ENTRIES, BLOCK], dtype=x.dtype.element_ty)
    end = tl.load(start + row + 1)
    for first in range(tl.load(start + row), end, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        stored = entry < end
        weight = tl.load(value + entry, mask=stored, other=0.0)
        place = tl.load(index + entry, mask=stored, other=0).to(tl.int64) * tokens
        wanted = stored[:, None] & inside[None, :]
        total += weight[:, None] * tl.load(x + place[:, None] + token[None, :], mask=wanted, other=0.0)
    return tl.sum(total, axis=0)


# The time step changes at each launch, so the kernel must not be compiled again for each value.
@triton.jit(do_not_specialize=["step"])
def _forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    gates,
    hidden,
    cell,
    saved,
    start,
    column,
    value,
    step,
    batch,
    tokens,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """One time step: write block step + 1 of the states, and block step of the activated gates.

    Reads gates [T, B, 4H] without the hidden state's contribution.
    """
    unit = tl.program_id(0)
    size = tl.num_programs(0)
    sequence = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = sequence < batch
    token = step * batch + sequence
    given = gates + token.to(tl.int64) * (4 * size) + unit
    i = tl.load(given, mask=inside, other=0.0)
    f = tl.load(given + size, mask=inside, other=0.0)
    g = tl.load(given + 2 * size, mask=inside, other=0.0)
    o = tl.load(given + 3 * size, mask=inside, other=0.0)
    i = tl.sigmoid(i + _dot(hidden, tokens, token, inside, start, column, value, unit, BLOCK, ENTRIES))
    f = tl.sigmoid(f + _dot(hidden, tokens, token, inside, start, column, value, unit + size, BLOCK, ENTRIES))
    g = _tanh(g + _dot(hidden, tokens, token, inside, start, column, value, unit + 2 * size, BLOCK, ENTRIES))
    o = tl.sigmoid(o + _dot(hidden, tokens, token, inside, start, column, value, unit + 3 * size, BLOCK, ENTRIES))
    place = unit.to(tl.int64) * tokens + token
    c = f * tl.load(cell + place, mask=inside, other=0.0) + i * g
    tl.store(cell + place + batch, c, mask=inside)
    tl.store(hidden + place + batch, o * _tanh(c), mask=inside)
    gate = size.to(tl.int64) * tokens
    tl.store(saved + place, i, mask=inside)
    tl.store(saved + place + gate, f, mask=inside)
    tl.store(saved + place + 2 * gate, g, mask=inside)
    tl.store(saved + place + 3 * gate, o, mask=inside)


@triton.jit(do_not_specialize=["step"])
def _backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad_y,
    grad_gates,
    grad_cell,
    saved,
    cell,
    start,
    row,
    value,
    step,
    batch,
    tokens,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """One time step backward: write block step of the gradients of gates and cell states.

    Reads blocks step + 1 of both, and grad_y [T, B, H].
    """
    unit = tl.program_id(0)
    size = tl.num_programs(0)
    sequence = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = sequence < batch
    token = step * batch + sequence
    dh = tl.load(grad_y + token.to(tl.int64) * size + unit, mask=inside, other=0.0)
    dh += _dot(grad_gates, tokens, token + batch, inside, start, row, value, unit, BLOCK, ENTRIES)
    place = unit.to(tl.int64) * tokens + token
    gate = size.to(tl.int64) * tokens
    i = tl.load(saved + place, mask=inside, other=0.0)
    f = tl.load(saved + place + gate, mask=inside, other=0.0)
    g = tl.load(saved + place + 2 * gate, mask=inside, other=0.0)
    o = tl.load(saved + place + 3 * gate, mask=inside, other=0.0)
    before = tl.load(cell + place, mask=inside, other=0.0)
    after = _tanh(tl.load(cell + place + batch, mask=inside, other=0.0))
    dc = tl.load(grad_cell + place + batch, mask=inside, other=0.0) + dh * o * (1 - after * after)
    tl.store(grad_cell + place, dc * f, mask=inside)
    tl.store(grad_gates + place, dc * g * i * (1 - i), mask=inside)
    tl.store(grad_gates + place + gate, dc * before * f * (1 - f), mask=inside)
    tl.store(grad_gates + place + 2 * gate, dc * i * (1 - g * g), mask=inside)
    tl.store(grad_gates + place + 3 * gate, dh * after * o * (1 - o), mask=inside)


def gpu_recurrence(
    gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
) -> tuple[Tensor, Tensor]:
    """The hidden states [T, B, H] of an LSTM and its last cell state [B, H]. Differentiable once.

    The caller has to check sizes, dtypes and devices, as ``sparse_lstm`` does. T, B and H are at least 1. All tensors
    are on one GPU, and all in float32 or all in float64.

    Args:
        gates: contribution of the inputs and biases to the gates [T, B, 4H], in torch's order (i, f, g, o).
        hidden: h before the first step [B, H].
        cell: c before the first step [B, H].
        values: values of the recurrent weight [entries].
        structure: structure of the recurrent weight [4H, H].
    """
    y, last = _GpuRecurrence.apply(gates, hidden, cell, values, structure)
    return y, last


def _blocks(batch: int) -> tuple[int, int]:
    """Sequences per block, and number of blocks."""
    block = min(_MOST_SEQUENCES, triton.next_power_of_2(batch))
    return block, triton.cdiv(batch, block)


class _GpuRecurrence(torch.autograd.Function):
    """All time steps of the recurrence."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
    ) -> tuple[Tensor, Tensor]:
        gates, values = gates.contiguous(), values.contiguous()
        indices = structure.row_start.contiguous(), structure.column.contiguous()
        (steps, batch, width), size = gates.shape, structure.in_features
        hiddens, cells = (gates.new_empty(size, steps + 1, batch) for _ in range(2))
        saved = gates.new_empty(width, steps + 1, batch)  # the last block is unused; it keeps the strides equal
        hiddens[:, 0], cells[:, 0] = hidden.t(), cell.t()
        block, blocks = _blocks(batch)
        launch, tokens = _forward[(size, blocks)], (steps + 1) * batch
        arrays = gates, hiddens, cells, saved, *indices, values
        with torch.cuda.device_of(gates):  # Triton launches on the current GPU, which may be another one
            for step in range(steps):
                launch(*arrays, step, batch, tokens, BLOCK=block, ENTRIES=_ENTRIES, num_warps=1)
        ctx.save_for_backward(hiddens, cells, saved, values)
        ctx.by_column = structure.by_column()
        return hiddens[:, 1:].permute(1, 2, 0).contiguous(), cells[:, -1].t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        hiddens, cells, saved, values = ctx.saved_tensors
        need_gates, need_hidden, need_cell, need_values = ctx.needs_input_grad[:4]
        column_start, row, origin = ctx.by_column
        size, blocks_of_time, batch = hiddens.shape
        grad, by_column, tokens = grad.contiguous(), values[origin], blocks_of_time * batch
        grad_gates, grad_cells = torch.zeros_like(saved), torch.empty_like(cells)  # zero after the last step
        grad_cells[:, -1] = grad_last.t()
        block, blocks = _blocks(batch)
        launch = _backward[(size, blocks)]
        arrays = grad, grad_gates, grad_cells, saved, cells, column_start, row, by_column
        with torch.cuda.device_of(grad):
            for step in reversed(range(blocks_of_time - 1)):
                launch(*arrays, step, batch, tokens, BLOCK=block, ENTRIES=_ENTRIES, num_warps=1)
        grad_hidden = grad_values = None
        if need_hidden:
            grad_hidden = gpu.product(grad_gates[:, 0].contiguous(), column_start, row, by_column).t().contiguous()
        if need_values:
            flat = grad_gates.view(-1, tokens), hiddens.view(-1, tokens)
            grad_values = gpu.gradients(*flat, ctx.by_column, values, need_input=False)[1]
        return (
            grad_gates[:, :-1].permute(1, 2, 0).contiguous() if need_gates else None,
            grad_hidden,
            grad_cells[:, 0].t().contiguous() if need_cell else None,
            grad_values,
            None,
        )
