"""The project's own kernel for CPUs: forward and backward pass of a sparse linear layer in compiled code.

``native/sparse_linear.cpp`` explains how it works. It computes in float32 or float64, on ``torch.get_num_threads()``
threads. Activations may be bfloat16: a copy of the weights is rounded to it, as in torch's dense layers, and sums are
float32. The same inputs give the same bits for any number of threads.
"""

import ctypes
import weakref
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels.build import BuildError, load_library
from sparse_bench.kernels.checks import Weight, check_product
from sparse_bench.kernels.structure import SparseStructure


class Availability(NamedTuple):
    """Whether the kernel can be used here; ``reason`` says how it computes, or why it cannot."""

    available: bool
    reason: str

    def __bool__(self) -> bool:
        return self.available


@cache
def kernel_available() -> Availability:
    """Whether the kernel can be compiled and loaded. The first call on a machine compiles it, in a few seconds."""
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
        forward.restype = backward.restype = number
    return library


#: Type of the activations → suffix of the functions for it.
_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


class _Plan:
    """The compiled code's form of a structure on the CPU; its memory is freed with this object.

    Raises:
        MemoryError: there is too little memory for it.
    """

    def __init__(self, structure: SparseStructure) -> None:
        library = _library()
        row_start, column = structure.row_start.contiguous(), structure.column.contiguous()
        self.device = column.device
        self.out_features, self.in_features, self.entries = (
            structure.out_features,
            structure.in_features,
            structure.entries,
        )
        self.handle = library.plan_new(
            self.out_features, self.in_features, self.entries, row_start.data_ptr(), column.data_ptr()
        )
        if not self.handle:
            raise MemoryError(f"not enough memory for the sparse kernel's plan of {self}")
        weakref.finalize(self, library.plan_free, self.handle)
        self.functions = {
            dtype: (getattr(library, f"forward_{suffix}"), getattr(library, f"backward_{suffix}"))
            for dtype, suffix in _SUFFIX.items()
        }

    def __str__(self) -> str:
        return f"a weight [{self.out_features}, {self.in_features}] with {self.entries} entries"


def kernel_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in] of float32, float64 or bfloat16 on the CPU; returns [..., out], contiguous.

    Differentiable once, for ``x``, ``values`` [entries] and ``bias`` [out]. These two have the dtype of ``x``, or
    float32 where that is bfloat16.

    Raises:
        BuildError: the kernel is not available.
        MemoryError: there is too little memory for the kernel's temporary arrays.
        ValueError: sizes, dtypes or devices do not match, or ``x`` is not on the CPU.
    """
    plan = _plan(x, structure, values, bias)
    if x.dim() == 2:
        return _KernelLinear.apply(x, values, bias, plan)
    y: Tensor = _KernelLinear.apply(x.reshape(x.shape[:-1].numel(), plan.in_features), values, bias, plan)
    return y.view(*x.shape[:-1], plan.out_features)


def kernel_values_gradient(grad: Tensor, x: Tensor, structure: SparseStructure, values: Tensor) -> Tensor:
    """Gradient of the values [entries] of y = x Wᵀ.

    For products whose other gradients are computed elsewhere.

    Args:
        grad: gradient of y [tokens, out].
        x: the input [tokens, in].
        structure: which entries of W exist.
        values: their values [entries]; they do not change the result. All tensors have the same dtype.

    Raises:
        BuildError, MemoryError, ValueError: as :func:`kernel_linear`.
    """
    plan = _plan(x, structure, values, None)
    if x.dim() != 2 or grad.shape != (x.shape[0], structure.out_features):
        wanted = f"[tokens, {structure.in_features}] and [tokens, {structure.out_features}]"
        raise ValueError(f"input and gradient must be {wanted}, not {list(x.shape)} and {list(grad.shape)}")
    if grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(f"the input is {x.dtype} on {x.device}, the gradient {grad.dtype} on {grad.device}")
    return _gradients(plan, grad, x, values, None)[0]


def _plan(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> _Plan:
    """The structure's plan, after a check of the arguments; checked with the plan, which gives sizes faster."""

    def make() -> _Plan:
        _check(x, structure, values, bias)
        return _Plan(structure)

    plan: _Plan = structure.derived("kernel", make)
    _check(x, plan, values, bias)
    return plan


def _check(x: Tensor, weight: Weight, values: Tensor, bias: Tensor | None) -> None:
    check_product(x, weight, values, bias, torch.float32 if x.dtype == torch.bfloat16 else x.dtype)
    if not x.is_cpu:
        raise ValueError(f"the kernel computes on the CPU, not on {x.device}; choose execution 'csr' or 'masked' there")


def _unit_stride(matrix: Tensor) -> Tensor:
    """The matrix itself if the elements of each row are adjacent in memory, else a contiguous copy."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()


class _KernelLinear(torch.autograd.Function):
    """The compiled product for a batch [tokens, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
        x, values = _unit_stride(x), values.contiguous()
        ctx.save_for_backward(x, values)
        ctx.plan = plan
        y = x.new_empty((x.shape[0], plan.out_features))
        if bias is not None:
            bias = bias.contiguous()
        done = plan.functions[x.dtype][0](
            plan.handle,
            x.shape[0],
            values.data_ptr(),
            None if bias is None else bias.data_ptr(),
            x.data_ptr(),
            x.stride(0),
            y.data_ptr(),
            torch.get_num_threads(),
        )
        if not done:
            raise MemoryError(f"not enough memory for {x.shape[0]} tokens times {plan}")
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
    """Gradients of values and bias. The gradient of the input is written into ``grad_input`` unless that is None."""
    grad, x = _unit_stride(grad), _unit_stride(x)
    grad_values, grad_bias = values.new_empty(values.shape), values.new_empty(plan.out_features)
    done = plan.functions[x.dtype][1](
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
    if not done:
        raise MemoryError(f"not enough memory for the gradients of {x.shape[0]} tokens times {plan}")
    return grad_values, grad_bias
