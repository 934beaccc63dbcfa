"""Dropout in compiled code for CPUs, with the very random numbers of torch's default generator.

``native/dropout.cpp`` draws many numbers at a time. Values, masks and the generator's state afterwards are those of
torch's own functions, bit by bit, for any number of threads.
"""

import ctypes
from functools import cache

import torch
from torch import Tensor

from sparse_bench.kernels.build import BuildError, load_library

#: Size of the state of torch's generator that ``native/dropout.cpp`` reads and writes.
_STATE_BYTES = 5056
#: Type of the elements → suffix of the functions for it.
_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled code; None without a compiler, or where torch's generator has another layout.

    Torch then computes the same bits, more slowly.
    """
    if torch.default_generator.get_state().numel() != _STATE_BYTES:
        return None
    try:
        library = load_library()
    except BuildError:
        return None
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
    # state, count, threshold, keep, threads
    library.draw_keep.argtypes = [pointer, size, number, pointer, number]
    library.draw_keep.restype = None
    for suffix in _SUFFIX.values():
        drop, rescale = getattr(library, f"drop_{suffix}"), getattr(library, f"rescale_{suffix}")
        # state, count, threshold, factor, x, keep, y, threads
        drop.argtypes = [pointer, size, number, real, pointer, pointer, pointer, number]
        # count, factor, x, keep, y, threads
        rescale.argtypes = [size, real, pointer, pointer, pointer, number]
        drop.restype = rescale.restype = None
    return library


def draws(device: torch.device) -> bool:
    """Whether :func:`draw_keep` works on this device."""
    return device.type == "cpu" and _library() is not None


def drops(x: Tensor) -> bool:
    """Whether :func:`drop` and :func:`rescale` work for ``x``."""
    return draws(x.device) and x.dtype in _SUFFIX and x.is_contiguous()


def draw_keep(shape: torch.Size, threshold: int) -> Tensor:
    """Uint8 [shape]: 1 where a 16-bit number, from -32768 to 32767, is at least ``threshold``."""
    library, state = _library(), torch.default_generator.get_state()
    assert library is not None
    keep = torch.empty(shape, dtype=torch.uint8)
    library.draw_keep(state.data_ptr(), keep.numel(), threshold, keep.data_ptr(), torch.get_num_threads())
    torch.default_generator.set_state(state)
    return keep


def drop(x: Tensor, threshold: int, factor: float) -> tuple[Tensor, Tensor]:
    """x · keep · factor in the type of ``x``, and keep, which is drawn as by :func:`draw_keep`."""
    library, state = _library(), torch.default_generator.get_state()
    assert library is not None
    keep, y = torch.empty(x.shape, dtype=torch.uint8), torch.empty_like(x)
    getattr(library, f"drop_{_SUFFIX[x.dtype]}")(
        state.data_ptr(),
        x.numel(),
        threshold,
        factor,
        x.data_ptr(),
        keep.data_ptr(),
        y.data_ptr(),
        torch.get_num_threads(),
    )
    torch.default_generator.set_state(state)
    return y, keep


def rescale(x: Tensor, keep: Tensor, factor: float) -> Tensor:
    """x · keep · factor in the type of ``x``; ``keep`` as :func:`drop` returns it."""
    library, y = _library(), torch.empty_like(x)
    assert library is not None
    function = getattr(library, f"rescale_{_SUFFIX[x.dtype]}")
    function(x.numel(), factor, x.data_ptr(), keep.data_ptr(), y.data_ptr(), torch.get_num_threads())
    return y
