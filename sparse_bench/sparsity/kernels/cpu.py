"""The project's own kernel for CPUs: both passes of a sparse linear layer in compiled code.

See ``native/sparse_linear.cpp`` for how it works. It computes in float32 or float64, runs on as many threads as torch
(``torch.get_num_threads()``), and gives the same bits for the same inputs and number of threads.
"""

import ctypes
import weakref
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.sparsity.kernels.build import BuildError, load_library
from sparse_bench.sparsity.kernels.structure import SparseStructure


class Availability(NamedTuple):
    """Whether the kernel can be used here, and why (not)."""

    available: bool
    reason: str

    def __bool__(self) -> bool:
        return self.available


@cache
def kernel_available() -> Availability:
    """Whether the kernel can be compiled and loaded; compiles it on the first call (some seconds, once a machine)."""
    try:
        library = _library()
    except BuildError as error:
        return Availability(False, str(error))
    threads = "OpenMP threads" if library.has_threads() else "one thread (the compiler has no OpenMP)"
    return Availability(True, f"{library.vector_bytes() * 8}-bit vectors, {threads}")


@cache
def _library() -> ctypes.CDLL:
    library = load_library()
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.plan_new.argtypes = [size, size, size, pointer, pointer]
    library.plan_new.restype = pointer
    library.plan_free.argtypes = [pointer]
    library.plan_free.restype = None
    for suffix in _SUFFIX.values():
        forward, backward = getattr(library, f"forward_{suffix}"), getattr(library, f"backward_{suffix}")
        # plan, tokens, values, bias, x, stride of x, y, threads
        forward.argtypes = [pointer, size, pointer, pointer, pointer, size, pointer, number]
        # plan, tokens, values, gy, stride of gy, x, stride of x, gx, gv, gb, threads
        backward.argtypes = [pointer, size, pointer, pointer, size, pointer, size, pointer, pointer, pointer, number]
        forward.restype = backward.restype = None
    return library


_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class _Plan:
    """The compiled code's own form of a structure; freed with the last reference to it."""

    def __init__(self, structure: SparseStructure) -> None:
        library = _library()
        row_start, column = structure.row_start.contiguous(), structure.column.contiguous()
        self.out_features, self.in_features, self.entries = (
            structure.out_features,
            structure.in_features,
            structure.entries,
        )
        self.handle = library.plan_new(
            self.out_features, self.in_features, self.entries, row_start.data_ptr(), column.data_ptr()
        )
        weakref.finalize(self, library.plan_free, self.handle)
        self.functions = {
            dtype: (getattr(library, f"forward_{suffix}"), getattr(library, f"backward_{suffix}"))
            for dtype, suffix in _SUFFIX.items()
        }


def kernel_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in] of float32 or float64 on the CPU; returns [..., out], contiguous.

    Differentiable once, for ``x``, ``values`` [entries] and ``bias`` [out].

    Raises:
        BuildError: The kernel is not available.
        ValueError: Sizes, dtypes or devices do not fit together.
    """
    plan: _Plan = structure.derived("kernel", lambda: _Plan(structure))
    _check(x, plan, values, bias)
    if x.dim() == 2:
        return _KernelLinear.apply(x, values, bias, plan)
    y: Tensor = _KernelLinear.apply(x.reshape(x.shape[:-1].numel(), plan.in_features), values, bias, plan)
    return y.view(*x.shape[:-1], plan.out_features)


def kernel_values_gradient(grad: Tensor, x: Tensor, structure: SparseStructure, values: Tensor) -> Tensor:
    """Gradient [entries] of the values of y = x Wᵀ, given that of y: ``grad`` [tokens, out], ``x`` [tokens, in].

    For products whose other gradients are computed elsewhere. All in the dtype of ``values``, which the kernel reads
    and does not use.
    """
    plan: _Plan = structure.derived("kernel", lambda: _Plan(structure))
    _check(x, plan, values, None)
    return _gradients(plan, grad, x, values, None)[0]


def _check(x: Tensor, plan: _Plan, values: Tensor, bias: Tensor | None) -> None:
    """The compiled code trusts its caller: everything that it reads is checked here."""
    if x.dtype not in _SUFFIX or values.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype):
        given = [x.dtype, values.dtype, *([] if bias is None else [bias.dtype])]
        raise ValueError(f"the kernel needs input, values and bias all in float32 or all in float64, not {given}")
    if not (x.is_cpu and values.is_cpu and (bias is None or bias.is_cpu)):
        raise ValueError("the kernel computes on the CPU; choose execution 'csr' or 'masked' for other devices")
    if x.dim() == 0 or x.shape[-1] != plan.in_features:
        raise ValueError(f"the input must be [..., {plan.in_features}], not {list(x.shape)}")
    if values.dim() != 1 or values.numel() != plan.entries:
        raise ValueError(f"the values must be [{plan.entries}], not {list(values.shape)}")
    if bias is not None and (bias.dim() != 1 or bias.numel() != plan.out_features):
        raise ValueError(f"the bias must be [{plan.out_features}], not {list(bias.shape)}")


def _unit_stride(matrix: Tensor) -> Tensor:
    """The matrix itself where the elements of its rows are adjacent, else a copy; the distance of rows is free."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()


class _KernelLinear(torch.autograd.Function):
    """The compiled product of a batch [tokens, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
        x, values = _unit_stride(x), values.contiguous()
        ctx.save_for_backward(x, values)
        ctx.plan = plan
        y = x.new_empty((x.shape[0], plan.out_features))
        if bias is not None:
            bias = bias.contiguous()
        plan.functions[x.dtype][0](
            plan.handle,
            x.shape[0],
            values.data_ptr(),
            None if bias is None else bias.data_ptr(),
            x.data_ptr(),
            x.stride(0),
            y.data_ptr(),
            torch.get_num_threads(),
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        x, values = ctx.saved_tensors
        need_input, need_values, need_bias = ctx.needs_input_grad[:3]
        grad_input = x.new_empty(x.shape) if need_input else None
        grad_values, grad_bias = _gradients(plan, grad, x, values, grad_input)
        return grad_input, grad_values if need_values else None, grad_bias if need_bias else None, None


def _gradients(
    plan: _Plan, grad: Tensor, x: Tensor, values: Tensor, grad_input: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of values and bias; that of the input is written into ``grad_input`` where it is wanted."""
    grad, x = _unit_stride(grad), _unit_stride(x)
    grad_values, grad_bias = values.new_empty(values.shape), values.new_empty(plan.out_features)
    plan.functions[x.dtype][1](
        plan.handle,
        x.shape[0],
        values.data_ptr(),
        grad.data_ptr(),
        grad.stride(0),
        x.data_ptr(),
        x.stride(0),
        None if grad_input is None else grad_input.data_ptr(),
        grad_values.data_ptr(),
        grad_bias.data_ptr(),
        torch.get_num_threads(),
    )
    return grad_values, grad_bias
