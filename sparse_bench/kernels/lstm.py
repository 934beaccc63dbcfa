"""An LSTM layer over sequences, whose weights on the inputs and on the hidden states are sparse.

With ``kernel``, the recurrence is one call of compiled code on the CPU (``native/sparse_lstm.cpp``), and one launch per
time step on CUDA (``gpu_lstm.py``). The contribution of the inputs to the gates, and the gradients of all values, are
computed for all time steps at once, as in a sparse linear layer. With ``masked``, torch's own LSTM computes with full
matrices. All other ways loop over the time steps and compute a sparse product in each.
"""

import ctypes
import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels import auto
from sparse_bench.kernels.build import load_library
from sparse_bench.kernels.cpu import kernel_values_gradient
from sparse_bench.kernels.linear import candidates, kernel_or_csr, sparse_linear
from sparse_bench.kernels.structure import SparseStructure

#: Type of the gates → suffix of the functions for it.
_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
State = tuple[Tensor, Tensor]
#: (gates [T, B, 4H] without the hidden state's contribution, first h and c [B, H] each, values and structure of the
#: recurrent weight) → (hidden states [T, B, H], last c [B, H]); all in float32 or all in float64. On the CPU, gates and
#: hidden states may be in bfloat16, with the others in float32.
_Recurrence = Callable[[Tensor, Tensor, Tensor, Tensor, SparseStructure], tuple[Tensor, Tensor]]


def sparse_lstm(
    x: Tensor,
    state: State,
    inputs: tuple[SparseStructure, Tensor],
    recurrent: tuple[SparseStructure, Tensor],
    bias: Tensor | None,
    execution: str,
) -> tuple[Tensor, State]:
    """Compute an LSTM layer with sparse weights; gates are in torch's order (i, f, g, o).

    Args:
        x: the inputs [T, B, in].
        state: h and c before the first step [B, H] each.
        inputs: structure [4H, in] and values [entries] of the weight on the inputs.
        recurrent: structure [4H, H] and values [entries] of the weight on the hidden state.
        bias: [4H], the sum of both biases, or None.
        execution: see :func:`sparse_bench.kernels.linear.sparse_linear`. ``auto`` times whole layers.

    Returns:
        Hidden states [T, B, H], and the last h and c [B, H] each.

    Raises:
        ConfigError: as :func:`sparse_bench.kernels.linear.sparse_linear`.
        ValueError: sizes, dtypes or devices do not match.
    """
    if execution == "auto" and not x.is_meta:
        execution = _fastest(x, inputs, recurrent, bias)
    if execution == "masked":
        return full_lstm(x, state, inputs[0].scatter(inputs[1]), recurrent[0].scatter(recurrent[1]), bias)
    device = x.device.type
    if execution == "kernel" and device in _RECURRENCES:
        execution = kernel_or_csr(device)
    gates = sparse_linear(x, *inputs, bias, execution)
    if execution == "kernel" and device in _RECURRENCES:
        return _at_once(_RECURRENCES[device], gates, state, *recurrent)
    return _step_by_step(gates, state, *recurrent, execution)


def full_lstm(
    x: Tensor, state: State, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None
) -> tuple[Tensor, State]:
    """The same layer with full matrices [4H, in] and [4H, H], computed by torch."""
    weights = (weight_ih.to(x.dtype), weight_hh.to(x.dtype))
    biases = () if bias is None else (bias.to(x.dtype), torch.zeros_like(bias, dtype=x.dtype))
    first = (state[0].unsqueeze(0).to(x.dtype), state[1].unsqueeze(0).to(x.dtype))
    training = torch.is_grad_enabled()  # cuDNN keeps what the backward pass needs only in training mode
    y, hidden, cell = torch._VF.lstm(x, first, (*weights, *biases), bias is not None, 1, 0.0, training, False, False)
    return y, (hidden.squeeze(0), cell.squeeze(0))


def _at_once(
    recurrence: _Recurrence, gates: Tensor, state: State, structure: SparseStructure, values: Tensor
) -> tuple[Tensor, State]:
    """The recurrence as one function call, in float32 at least, but for bfloat16 gates on the CPU."""
    compute = torch.promote_types(gates.dtype, torch.float32)
    taken = gates.dtype if gates.is_cpu and gates.dtype == torch.bfloat16 else compute
    with torch.autocast(gates.device.type, enabled=False):
        numbers = gates.to(taken), state[0].to(compute), state[1].to(compute), values.to(compute)
        _check(*numbers, structure)
        y, last = recurrence(*numbers, structure)
    return y.to(gates.dtype), (y[-1].to(gates.dtype), last.to(gates.dtype))


def _step_by_step(
    gates: Tensor, state: State, structure: SparseStructure, values: Tensor, execution: str
) -> tuple[Tensor, State]:
    """The recurrence as a loop over sparse products."""
    hidden, cell = state
    steps = []
    for gate in gates:
        in_gate, forget, candidate, out_gate = (gate + sparse_linear(hidden, structure, values, None, execution)).chunk(
            4, dim=1
        )
        cell = forget.sigmoid() * cell + in_gate.sigmoid() * candidate.tanh()
        hidden = out_gate.sigmoid() * cell.tanh()
        steps.append(hidden)
    return torch.stack(steps), (hidden, cell)


def _fastest(
    x: Tensor, inputs: tuple[SparseStructure, Tensor], recurrent: tuple[SparseStructure, Tensor], bias: Tensor | None
) -> str:
    """The execution that ``auto`` chooses for the whole layer, timed with zero states."""
    steps, batch, width = x.shape
    setting = auto.Setting.of(x)
    structure = recurrent[0]

    def prepare() -> Callable[[str], object]:
        values = (inputs[1], recurrent[1])
        made = x.new_full((steps, batch, width), 0.5)
        leaves = [t.detach().clone().requires_grad_() for t in (made, *values, bias) if t is not None]
        zeros = x.new_zeros(batch, structure.in_features)

        def trial(execution: str) -> object:
            pairs = (inputs[0], leaves[1]), (structure, leaves[2])
            y, _ = sparse_lstm(leaves[0], (zeros, zeros), *pairs, leaves[3] if bias is not None else None, execution)
            return torch.autograd.grad(y, leaves, torch.ones_like(y))

        return trial

    def subject() -> str:
        shapes = (f"{part.in_features} density {auto.rounded_density(part)}" for part in (inputs[0], structure))
        return f"lstm {' and '.join(shapes)} batch {batch} {setting}"

    ways = partial(candidates, x, inputs[0], structure)
    return auto.choose(structure, (setting, batch), subject, ways, prepare)


@cache
def _library() -> ctypes.CDLL:
    library = load_library()
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.recurrence_new.argtypes = [size, size, pointer, pointer]
    library.recurrence_new.restype = pointer
    library.recurrence_free.argtypes = [pointer]
    library.recurrence_free.restype = None
    for suffix in _SUFFIX.values():
        saved = getattr(library, f"lstm_saved_{suffix}")
        saved.argtypes, saved.restype = [size, size, size], size
        # recurrence, steps, batch, then arrays, then threads: see native/sparse_lstm.cpp
        for name, arrays in (("forward", 7), ("backward", 8)):
            function = getattr(library, f"lstm_{name}_{suffix}")
            function.argtypes, function.restype = [pointer, size, size, *[pointer] * arrays, number], number
    return library


class _Plan:
    """The compiled code's form of a recurrent structure on the CPU; its memory is freed with this object.

    Raises:
        MemoryError: there is too little memory for it.
    """

    def __init__(self, structure: SparseStructure) -> None:
        library = _library()
        row_start, column = structure.row_start.contiguous(), structure.column.contiguous()
        self.handle = library.recurrence_new(
            structure.in_features, structure.entries, row_start.data_ptr(), column.data_ptr()
        )
        if not self.handle:
            raise MemoryError(f"not enough memory for the sparse LSTM's plan of {structure}")
        weakref.finalize(self, library.recurrence_free, self.handle)


def _check(gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure) -> None:
    """Check everything that the kernels read, because they check nothing themselves.

    Raises:
        ValueError: sizes, dtypes or devices do not match.
    """
    steps, batch, width = gates.shape
    size = structure.in_features
    if steps < 1 or batch < 1 or width != 4 * size or structure.out_features != 4 * size:
        raise ValueError(f"gates {list(gates.shape)} do not fit a recurrent weight [{structure.out_features}, {size}]")
    if hidden.shape != (batch, size) or cell.shape != (batch, size):
        raise ValueError(f"the state must be two of [{batch}, {size}], not {list(hidden.shape)}, {list(cell.shape)}")
    if values.shape != (structure.entries,):
        raise ValueError(f"the values must be [{structure.entries}], not {list(values.shape)}")
    if gates.dtype not in _SUFFIX:
        raise ValueError(f"the kernel computes in float32, float64 or bfloat16, not {gates.dtype}")
    for tensor in (hidden, cell, values, structure.column):
        if tensor.device != gates.device:
            raise ValueError(
                f"all tensors must be on one device, not gates on {gates.device} and one on {tensor.device}"
            )


class _KernelRecurrence(torch.autograd.Function):
    """All time steps of the recurrence, in compiled code."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
    ) -> tuple[Tensor, Tensor]:
        gates, hidden, cell, values = (tensor.contiguous() for tensor in (gates, hidden, cell, values))
        steps, batch, _ = gates.shape
        size, suffix, library = structure.in_features, _SUFFIX[gates.dtype], _library()
        recurrence = structure.derived("recurrence", lambda: _Plan(structure))
        saved = values.new_empty(getattr(library, f"lstm_saved_{suffix}")(size, steps, batch))
        y, last = gates.new_empty(steps, batch, size), torch.empty_like(cell)
        arrays = (values, gates, hidden, cell, y, last, saved)
        done = getattr(library, f"lstm_forward_{suffix}")(
            recurrence.handle, steps, batch, *(array.data_ptr() for array in arrays), torch.get_num_threads()
        )
        if not done:
            raise MemoryError(f"not enough memory for a sparse LSTM of {size} units and {batch} sequences")
        ctx.save_for_backward(values, hidden, cell, y, saved)
        ctx.recurrence, ctx.structure = recurrence, structure
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        values, hidden, cell, y, saved = ctx.saved_tensors
        steps, batch, size = y.shape
        library, suffix = _library(), _SUFFIX[y.dtype]
        grad, grad_last = grad.contiguous(), grad_last.contiguous()  # of the dtypes of y and of the last cell state
        grad_gates = y.new_empty(steps, batch, 4 * size)
        grad_hidden, grad_cell = torch.empty_like(hidden), torch.empty_like(cell)
        arrays = (values, saved, cell, grad, grad_last, grad_gates, grad_hidden, grad_cell)
        done = getattr(library, f"lstm_backward_{suffix}")(
            ctx.recurrence.handle, steps, batch, *(array.data_ptr() for array in arrays), torch.get_num_threads()
        )
        if not done:
            raise MemoryError(f"not enough memory for the gradients of a sparse LSTM of {size} units")
        grad_values = None
        if ctx.needs_input_grad[3]:
            before = torch.cat([hidden[None].to(y.dtype), y[:-1]]).view(-1, size)
            grad_values = kernel_values_gradient(grad_gates.view(-1, 4 * size), before, ctx.structure, values)
        return grad_gates, grad_hidden, grad_cell, grad_values, None


def _compiled_recurrence(
    gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
) -> tuple[Tensor, Tensor]:
    y, last = _KernelRecurrence.apply(gates, hidden, cell, values, structure)
    return y, last


def _triton_recurrence(
    gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
) -> tuple[Tensor, Tensor]:
    from sparse_bench.kernels.gpu_lstm import gpu_recurrence  # imports triton, which is optional

    return gpu_recurrence(gates, hidden, cell, values, structure)


#: The project's own recurrences, by type of device.
_RECURRENCES: dict[str, _Recurrence] = {"cpu": _compiled_recurrence, "cuda": _triton_recurrence}
