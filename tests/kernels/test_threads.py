"""The kernels for CPUs give the same bits for any number of threads."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.kernels import SparseStructure, sparse_linear
from sparse_bench.kernels.lstm import sparse_lstm

THREADS = (1, 2, 3, 4)
TYPES = (torch.float32, torch.bfloat16, torch.float64)
#: Multiply-adds from which more than one thread computes; the products here have more.
WORTH_THREADS = 2**17


def assert_same_bits(compute: Callable[[], list[Tensor]]) -> None:
    found = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        found.append(compute())
    for threads, tensors in zip(THREADS[1:], found[1:], strict=True):
        for number, (alone, shared) in enumerate(zip(found[0], tensors, strict=True)):
            assert torch.equal(alone, shared), f"result {number} differs on {threads} threads"


def assert_linear(mask: Tensor, tokens: int, dtype: torch.dtype, seed: int, with_input: bool = True) -> None:
    """Output and all gradients of a layer with this mask [out, in]."""
    structure = SparseStructure(mask)
    out, inner = mask.shape
    assert tokens * (structure.entries + out + inner) >= WORTH_THREADS
    draw = torch.Generator().manual_seed(seed)
    kept = torch.float32 if dtype == torch.bfloat16 else dtype
    x, grad = (torch.randn(tokens, size, generator=draw).to(dtype) for size in (inner, out))
    values, bias = (torch.randn(size, generator=draw).to(kept) for size in (structure.entries, out))
    leaves = [x.requires_grad_(with_input), values.requires_grad_(), bias.requires_grad_()]

    def compute() -> list[Tensor]:
        y = sparse_linear(leaves[0], structure, leaves[1], leaves[2], "kernel")
        return [y, *torch.autograd.grad(y, leaves[not with_input :], grad)]

    assert_same_bits(compute)


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(20, 200),
    inner=st.integers(20, 200),
    tokens=st.integers(1, 400),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    empty=st.integers(0, 50),
    dtype=st.sampled_from(TYPES),
    with_input=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_linear_layers(
    out: int, inner: int, tokens: int, density: float, empty: int, dtype: torch.dtype, with_input: bool, seed: int
) -> None:
    """Random shapes, some with ranges of empty rows and columns."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(out, inner, generator=draw) < density
    mask[out // 3 : out // 3 + empty] = mask[:, inner // 4 : inner // 4 + empty] = False
    enough = -(-WORTH_THREADS // (int(mask.sum()) + out + inner))
    assert_linear(mask, tokens + enough, dtype, seed, with_input)


@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("tokens", [1, 17, 63, 128, 333, 1024, 2049, 4101])
@pytest.mark.parametrize(("out", "inner", "density"), [(512, 640, 0.3), (1030, 400, 0.05), (100, 1500, 0.02)])
def test_linear_layers_at_size(out: int, inner: int, density: float, tokens: int, dtype: torch.dtype) -> None:
    """One block and several, fewer and more pieces of tokens than threads."""
    mask = torch.rand(out, inner, generator=torch.Generator().manual_seed(tokens)) < density
    if tokens * (int(mask.sum()) + out + inner) < WORTH_THREADS:
        mask = torch.ones(out, inner, dtype=torch.bool)
    assert_linear(mask, tokens, dtype, seed=tokens)


@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("transposed", [False, True])
def test_all_entries_in_few_features(transposed: bool, dtype: torch.dtype) -> None:
    """Threads get very different numbers of features."""
    mask = torch.zeros(300, 310, dtype=torch.bool)
    mask[:3] = mask[290, 5:9] = True
    assert_linear(mask.t() if transposed else mask, 515, dtype, seed=0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("steps", "batch", "size", "density"), [(6, 20, 96, 0.3), (9, 33, 150, 0.1), (3, 130, 65, 1.0), (40, 1, 200, 0.5)]
)
def test_lstm_layers(steps: int, batch: int, size: int, density: float, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(size)
    kept = torch.float32 if dtype == torch.bfloat16 else dtype
    masks = [torch.rand(4 * size, width, generator=draw) < density for width in (size + 3, size)]
    masks[1][: size // 3] = masks[1][:, : size // 5] = False
    structures = [SparseStructure(mask) for mask in masks]
    shapes = (steps, batch, size + 3), (batch, size), (batch, size), (4 * size,)
    x, hidden, cell, bias = (torch.randn(shape, generator=draw).to(kept).requires_grad_() for shape in shapes)
    values = [torch.randn(part.entries, generator=draw).to(kept).requires_grad_() for part in structures]
    grads = [torch.randn(shape, generator=draw).to(dtype) for shape in ((steps, batch, size), (batch, size))]

    def compute() -> list[Tensor]:
        pairs = [(structure, numbers) for structure, numbers in zip(structures, values, strict=True)]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y, (_, last) = sparse_lstm(x, (hidden, cell), pairs[0], pairs[1], bias, "kernel")
        return [y, last, *torch.autograd.grad((y, last), [x, hidden, cell, *values, bias], grads)]

    assert_same_bits(compute)
