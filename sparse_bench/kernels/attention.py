"""Attention of short sequences in compiled code for CPUs, in bfloat16.

Torch's batched products of a few rows cost more in copies and calls than in arithmetic. ``native/attention.cpp`` does
all that one head of one sentence needs at once. It reads and writes bfloat16, and adds up in float32.
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_bench.kernels.build import BuildError, load_library

#: Longest sequence; torch's products of more rows are efficient.
LONGEST = 64


class Rows(NamedTuple):
    """Which rows of a table belong to which sentence: b's are [start, start + length).

    Attributes:
        longest: most rows of a sentence; without ``start`` and ``length`` every sentence has so many.
        start: first row of each sentence [B], int64, contiguous.
        length: number of rows of each sentence [B], int64, contiguous.
    """

    longest: int
    start: Tensor | None = None
    length: Tensor | None = None


class _Rows(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_void_p), ("longest", ctypes.c_int64))

    @classmethod
    def of(cls, rows: Rows) -> "_Rows":
        start, length = (None if part is None else part.data_ptr() for part in (rows.start, rows.length))
        return cls(start, length, rows.longest)


class _Problem(ctypes.Structure):
    _fields_ = (
        ("sentences", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("depth", ctypes.c_int64),
        ("queries", _Rows),
        ("keys", _Rows),
        ("bias", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("keep", ctypes.c_void_p),
        ("factor", ctypes.c_float),
    )


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = load_library()
    except BuildError:
        return None
    pointer = ctypes.c_void_p
    library.attention_forward.argtypes = [*[pointer] * 6, ctypes.c_int]
    library.attention_backward.argtypes = [*[pointer] * 9, ctypes.c_int]
    library.attention_forward.restype = library.attention_backward.restype = ctypes.c_int
    return library


def attends(x: Tensor, depth: int, longest: int) -> bool:
    """Whether :func:`short_attention` works for heads of this depth and sequences of this length.

    ``x`` has the queries' type and device.
    """
    if not x.is_cpu or x.dtype != torch.bfloat16 or longest > LONGEST:
        return False
    library = _library()
    return library is not None and depth * 4 % library.vector_bytes() == 0


def short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sentences: int,
    queries: Rows,
    keys: Rows,
    *,
    scale: float,
    bias: Tensor | None = None,
    keep: Tensor | None = None,
    factor: float = 1.0,
) -> Tensor:
    """Softmax(scale · QKᵀ + bias) V of each sentence and head, [query rows, H, depth]; differentiable once.

    Args:
        query: [query rows, H, depth] in bfloat16; see :func:`attends`.
        key: [key rows, H, depth], likewise.
        value: [key rows, H, depth], likewise.
        sentences: B.
        queries: the sentences' rows of ``query``; together they are all rows.
        keys: the sentences' rows of ``key`` and ``value``; together they are all rows.
        scale: factor on the logits.
        bias: added to the logits, float32, without gradient; broadcasts to [B, H, longest query, longest key].
        keep: uint8 [B · H, longest query, longest key]: weights to multiply by ``factor``; the others become 0.
        factor: of the weights that are kept.

    Raises:
        MemoryError: there is too little memory.
    """
    attended: Tensor = _ShortAttention.apply(query, key, value, sentences, queries, keys, scale, bias, keep, factor)
    return attended


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sentences: int,
        queries: Rows,
        keys: Rows,
        scale: float,
        bias: Tensor | None,
        keep: Tensor | None,
        factor: float,
    ) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        heads, depth = query.shape[1:]
        sizes = (sentences, heads, queries.longest, keys.longest)
        strides = None
        if bias is not None:
            bias = bias.float().expand(sizes)
            strides = (ctypes.c_int64 * 4)(*bias.stride())
        problem = _Problem(
            sentences,
            heads,
            depth,
            _Rows.of(queries),
            _Rows.of(keys),
            None if bias is None else bias.data_ptr(),
            ctypes.cast(strides, ctypes.c_void_p) if strides else None,
            scale,
            None if keep is None else keep.data_ptr(),
            factor,
        )
        weights, attended = query.new_empty(sizes), torch.empty_like(query)
        _call("forward", problem, query, key, value, weights, attended)
        ctx.save_for_backward(query, key, value, weights, keep)
        ctx.problem, ctx.held = problem, (queries, keys)  # the problem has addresses alone
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, _ = ctx.saved_tensors
        found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        _call("backward", ctx.problem, query, key, value, weights, grad.contiguous(), *found)
        return (*found, *[None] * 7)


def _call(name: str, problem: _Problem, *tensors: Tensor) -> None:
    function = getattr(_library(), f"attention_{name}")
    pointers = [tensor.data_ptr() for tensor in tensors]
    if not function(ctypes.byref(problem), *pointers, torch.get_num_threads()):
        raise MemoryError("not enough memory for attention")
