"""Softmax over the last dimension, without what torch loses on a CPU where rows are narrower than a vector.

With AVX-512, ``native/softmax.cpp`` computes the very bits of torch, in a tenth of the time or less. Everywhere else
this is torch's softmax.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sparse_bench.kernels.build import BuildError, load_library

#: Width of torch's vectors of floats, for which the compiled code is written.
_VECTOR = 16


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled code; None without a compiler, or where torch's vectors have another width."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    try:
        library = load_library()
    except BuildError:
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.narrow_softmax.argtypes = [size, number, pointer, pointer, number]
    library.narrow_softmax_gradient.argtypes = [size, number, pointer, pointer, pointer, number]
    library.narrow_softmax.restype = library.narrow_softmax_gradient.restype = number
    return library if library.vector_bytes() == 4 * _VECTOR else None


def softmax(x: Tensor) -> Tensor:
    """``x.softmax(-1)``."""
    if _is_narrow(x) and _library() is not None:
        y: Tensor = _NarrowSoftmax.apply(x)
        return y
    return x.softmax(-1)


def _is_narrow(x: Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and 0 < x.shape[-1] < _VECTOR


class _NarrowSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        library, x = _library(), x.contiguous()
        assert library is not None
        y, width = torch.empty_like(x), x.shape[-1]
        library.narrow_softmax(x.numel() // width, width, x.data_ptr(), y.data_ptr(), torch.get_num_threads())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,), grad = ctx.saved_tensors, gradients[0]
        if torch.is_grad_enabled():  # a gradient of the gradient needs torch's own functions
            return (grad - (grad * y).sum(-1, keepdim=True)) * y
        library, grad = _library(), grad.contiguous()
        assert library is not None
        found, width = torch.empty_like(y), y.shape[-1]
        library.narrow_softmax_gradient(
            y.numel() // width, width, grad.data_ptr(), y.data_ptr(), found.data_ptr(), torch.get_num_threads()
        )
        return found
