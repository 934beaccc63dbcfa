"""The Triton kernel, on a GPU or in Triton's interpreter, against products of full matrices."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.kernels import SparseStructure, linear
from tests.kernels.on_triton import DEVICE, skip_without_triton
from tests.kernels.problems import assert_close, expected, problem

skip_without_triton()
gpu = pytest.importorskip("sparse_bench.kernels.gpu")


def product(
    structure: SparseStructure, x: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The kernel's output on its device; gradients reach the given tensors where they are."""
    there = copy.deepcopy(structure).to(DEVICE)
    return gpu.gpu_linear(x.to(DEVICE), there, values.to(DEVICE), None if bias is None else bias.to(DEVICE))


def results(
    structure: SparseStructure, x: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, grad: torch.Tensor
) -> list[torch.Tensor]:
    y = product(structure, x, values, bias)
    leaves = [x, values] if bias is None else [x, values, bias]
    return [y, *torch.autograd.grad(y, leaves, grad.to(DEVICE))]


@settings(max_examples=15, deadline=None)
@given(
    out=st.integers(0, 9),
    inner=st.integers(0, 9),
    tokens=st.integers(0, 40),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_dense(out: int, inner: int, tokens: int, density: float, with_bias: bool, seed: int) -> None:
    structure, x, values, bias, grad = problem(out, inner, tokens, density, seed)
    chosen = bias if with_bias else None
    assert_close(results(structure, x, values, chosen, grad), expected(structure, x, values, chosen, grad))


def test_several_blocks_of_tokens_empty_rows_and_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_MOST_TOKENS", 8)
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[2, 1:4] = mask[1:4, 3] = True  # rows and columns without an entry around them
    structure = SparseStructure(mask)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 21, generator=generator).to(DEVICE).t()[:, 2:7].requires_grad_()
    values = torch.randn(structure.entries, generator=generator, requires_grad=True)
    grad = torch.randn(21, 6, generator=generator)
    assert_close(results(structure, x, values, None, grad), expected(structure, x.cpu(), values, None, grad))


def test_gradients_only_where_wanted() -> None:
    structure, x, values, bias, grad = problem(5, 4, 7, 0.5)
    wanted = expected(structure, x, values, bias, grad)
    y = product(structure, x.detach(), values, bias.detach())
    assert_close(list(torch.autograd.grad(y, [values], grad.to(DEVICE))), [wanted[2]])
    y = product(structure, x, values.detach(), None)
    assert_close(list(torch.autograd.grad(y, [x], grad.to(DEVICE))), [wanted[1]])


def test_what_the_kernel_would_read_wrongly_is_refused() -> None:
    structure, *numbers, _ = problem(5, 4, 7, 0.5)
    x, values, bias = (number.to(DEVICE) for number in numbers)
    there = structure.to(DEVICE)
    for wrong in [
        (x[:, :3], values, bias),
        (x, values[1:], bias),
        (x, values, bias[1:]),
        (x, values.double(), bias),
        (x, values.to("meta"), bias),
    ]:
        with pytest.raises(ValueError, match=r"must be|needs"):
            gpu.gpu_linear(wrong[0], there, wrong[1], wrong[2])
    with pytest.raises(ValueError, match="structure on meta"):
        gpu.gpu_linear(x, structure.to("meta"), values, bias)


def test_kernel_on_cuda_is_this_one() -> None:
    assert linear.triton_available()
    structure, *numbers, _ = problem(5, 4, 7, 0.5)
    x, values, bias = (number.to(DEVICE) for number in numbers)
    there = structure.to(DEVICE)
    assert torch.equal(linear._KERNELS["cuda"](x, there, values, bias), gpu.gpu_linear(x, there, values, bias))
