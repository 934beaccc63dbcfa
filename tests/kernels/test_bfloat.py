"""The kernel on bfloat16 activations: the float32 kernel's numbers on the same inputs and weights, rounded once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.kernels import SparseStructure, sparse_linear
from sparse_bench.kernels.cpu import kernel_linear
from sparse_bench.kernels.lstm import _at_once, _compiled_recurrence, _step_by_step
from tests.kernels.problems import (
    assert_bfloat_lstm,
    assert_same_numbers,
    bfloat_lstm_case,
    bfloat_lstm_results,
    problem,
    results,
    rounded,
)


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 70),
    inner=st.integers(1, 70),
    tokens=st.integers(0, 140),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_single_precision(out: int, inner: int, tokens: int, density: float, seed: int) -> None:
    assert_same_numbers(problem(out, inner, tokens, density, seed))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("out", "inner", "density"), [(512, 640, 0.2), (96, 1500, 0.02), (1030, 40, 0.5)])
def test_agrees_at_size_and_gives_the_same_bits_twice(out: int, inner: int, density: float, threads: int) -> None:
    torch.set_num_threads(threads)
    case = problem(out, inner, 333, density)
    assert_same_numbers(case)
    half, _ = rounded(case)
    first, second = results(*half, "kernel"), results(*half, "kernel")
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("tokens", [100, 515])
def test_rows_are_within_a_hundredth_of_their_norm(density: float, tokens: int) -> None:
    """Against the float32 kernel, which does not round weights, on the same inputs."""
    half, (structure, x, _, bias, grad) = rounded(problem(512, 640, tokens, density))
    wanted = results(structure, x, half[2], bias, grad, "kernel")
    actual = results(*half, "kernel")
    for tensors in (actual, wanted):
        tensors[2] = structure.scatter(tensors[2])
    for one, other in zip(actual[:3], wanted[:3], strict=True):
        assert ((one.float() - other).norm(dim=1) <= 1e-2 * other.norm(dim=1)).all()


def test_empty_rows_and_columns() -> None:
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[3, 5:45:7] = mask[31, 20] = True
    structure = SparseStructure(mask)
    x, bias = torch.randn(37, 50).bfloat16().requires_grad_(), torch.randn(40)
    y = sparse_linear(x, structure, torch.randn(structure.entries), bias, "kernel")
    empty = ~mask.any(1)
    assert torch.equal(y[:, empty], bias[empty].bfloat16().expand(37, -1))
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert not grad[:, ~mask.any(0)].any()
    assert grad[:, mask.any(0)].any()


def test_rounds_to_even_and_keeps_infinities_and_what_is_no_number() -> None:
    # Halfway between two bfloat16 numbers, 1 + 2^-8 goes down to 1, and 1 + 3 · 2^-8 goes up to 1 + 2^-6.
    odd = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), float("inf"), float("-inf"), float("nan"), 3.4e38])
    structure = SparseStructure(torch.ones(7, 1, dtype=torch.bool))
    for tokens in (1, 40):
        y = kernel_linear(torch.ones(tokens, 1).bfloat16(), structure, odd, None)
        wanted = odd.bfloat16().expand(tokens, -1)
        assert torch.equal(y.nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))
        assert y[:, 5].isnan().all()


def test_autocast_makes_no_copy_in_single_precision() -> None:
    """Under autocast the layer takes and gives bfloat16; the saved activation is the bfloat16 one."""
    structure, x, values, bias, grad = problem(24, 20, 50, 0.4)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = sparse_linear(x, structure, values, bias, "kernel")
    assert y.dtype == torch.bfloat16
    assert torch.bfloat16 in {tensor.dtype for tensor in saved if tensor.shape == x.shape}
    assert torch.float32 not in {tensor.dtype for tensor in saved if tensor.shape == x.shape}
    x_grad, values_grad = torch.autograd.grad(y, [x, values], grad.bfloat16())
    assert (x_grad.dtype, values_grad.dtype) == (torch.float32, torch.float32)


def test_values_have_to_be_in_single_precision() -> None:
    structure, x, values, _, _ = problem(4, 3, 2, 0.9)
    with pytest.raises(ValueError, match="bfloat16 with the others in float32"):
        kernel_linear(x.bfloat16(), structure, values.bfloat16(), None)


@pytest.mark.parametrize(("steps", "batch", "size"), [(3, 4, 7), (5, 33, 40), (4, 70, 50), (2, 1, 64)])
@pytest.mark.parametrize("density", [0.1, 0.5])
def test_lstm_agrees_with_single_precision(steps: int, batch: int, size: int, density: float) -> None:
    assert_bfloat_lstm(steps, batch, size, density)


@pytest.mark.parametrize(("size", "density"), [(300, 0.2), (300, 0.05), (650, 0.02)])
def test_rows_of_an_lstm_are_within_a_hundredth_of_their_norm(size: int, density: float) -> None:
    """Against the float32 kernel on the same inputs, with its own weights and with rounded ones.

    A few rows of the weights' gradients are further away. Their terms cancel, and what is left of them is small: for
    such a row, the rounding of the gates or of the weights alone is enough.
    """
    case, structures = bfloat_lstm_case(12, 20, size, density)
    with torch.autocast("cpu", torch.bfloat16):
        actual = bfloat_lstm_results(case, structures)
    halves = {name: case[name].bfloat16().float() for name in ("inputs", "recurrent")}
    for weights, most_beyond in (({}, 0.015), (halves, 0.004)):
        for place, (one, other) in enumerate(zip(actual, bfloat_lstm_results(case | weights, structures), strict=True)):
            if place in (5, 6):  # gradients of the weights on inputs and hidden states
                one, other = (structures[place - 5].scatter(values) for values in (one, other))
            beyond = (one.float() - other).norm(dim=-1) > 1e-2 * other.norm(dim=-1)
            assert beyond.float().mean() <= (most_beyond if place in (5, 6) else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_gates_than_16_bits_can_count(dtype: torch.dtype) -> None:
    """Row numbers of the recurrent weight take 32 bits then; a torch loop over the time steps must agree."""
    size, steps, batch = 2**14 + 3, 3, 2
    rows = torch.tensor([5, size, 3 * size + 1, 4 * size - 2, 4 * size - 1])
    columns = torch.tensor([size - 1, 0, 7, size - 1, size - 2])
    row_start = torch.searchsorted(rows, torch.arange(4 * size + 1)).int()  # entries in the rows before each
    structure = SparseStructure.from_csr(row_start, columns.int(), size)
    draw = torch.Generator().manual_seed(0)
    gates, hidden, cell = (
        torch.randn(shape, generator=draw).bfloat16().float()
        for shape in ((steps, batch, 4 * size), (batch, size), (batch, size))
    )
    values = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.5])

    def compute(taken: torch.dtype, execution: str) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (gates, hidden, cell, values)]
        given = leaves[0].to(taken), (leaves[1], leaves[2])
        if execution == "kernel":
            y, (_, last) = _at_once(_compiled_recurrence, *given, structure, leaves[3])
        else:
            y, (_, last) = _step_by_step(*given, structure, leaves[3], execution)
        return [y, last, *torch.autograd.grad(y.float().square().sum() + last.float().sum(), leaves)]

    for one, other in zip(compute(dtype, "kernel"), compute(torch.float32, "csr"), strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        assert (one.float() - other).norm() <= tolerance * other.norm()
