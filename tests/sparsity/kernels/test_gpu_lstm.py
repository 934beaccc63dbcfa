"""The Triton recurrence, on a GPU or in Triton's interpreter, against torch's LSTM with full matrices."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.sparsity.kernels import SparseStructure, lstm
from tests.sparsity.kernels.on_triton import DEVICE, skip_without_triton
from tests.sparsity.kernels.problems import assert_close, assert_same_lstm, lstm_problem

skip_without_triton()
gpu = pytest.importorskip("sparse_bench.sparsity.kernels.gpu")
gpu_lstm = pytest.importorskip("sparse_bench.sparsity.kernels.gpu_lstm")


def recurrence(
    gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
) -> tuple[Tensor, Tensor]:
    """The kernel's outputs on its device; gradients reach the given tensors where they are."""
    numbers = (number.to(DEVICE) for number in (gates, hidden, cell, values))
    y, last = gpu_lstm.gpu_recurrence(*numbers, copy.deepcopy(structure).to(DEVICE))
    return y, last


class Recurrence(NamedTuple):
    """Gates, hidden and cell states and values; their structure; gradients of the outputs."""

    leaves: list[Tensor]
    structure: SparseStructure
    grads: list[Tensor]

    def on_gpu(self) -> list[Tensor]:
        """Outputs and all gradients."""
        outputs = recurrence(*self.leaves, self.structure)
        return [*outputs, *torch.autograd.grad(outputs, self.leaves, [grad.to(DEVICE) for grad in self.grads])]

    def expected(self) -> list[Tensor]:
        """The same from torch's LSTM in double precision, whose inputs are the gates themselves."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        gates, hidden, cell, values = leaves
        identity = torch.eye(gates.shape[-1], dtype=torch.float64)
        y, (_, last) = lstm.full_lstm(gates, (hidden, cell), identity, self.structure.scatter(values), None)
        return [y, last, *torch.autograd.grad((y, last), leaves, [grad.double() for grad in self.grads])]


def problem(
    steps: int, batch: int, structure: SparseStructure, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Recurrence:
    generator = torch.Generator().manual_seed(seed)
    size = structure.in_features
    shapes = [(steps, batch, 4 * size), (batch, size), (batch, size), (structure.entries,)]
    leaves = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    grads = [torch.randn(shape, generator=generator, dtype=dtype) for shape in [(steps, batch, size), (batch, size)]]
    return Recurrence(leaves, structure, grads)


def random_structure(size: int, density: float, seed: int = 0) -> SparseStructure:
    return SparseStructure(torch.rand(4 * size, size, generator=torch.Generator().manual_seed(seed)) < density)


@settings(max_examples=10, deadline=None)
@given(
    steps=st.integers(1, 3),
    batch=st.integers(1, 40),
    size=st.integers(1, 6),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_dense(steps: int, batch: int, size: int, density: float, seed: int) -> None:
    structure = random_structure(size, density, seed)
    single, double = (problem(steps, batch, structure, seed, dtype) for dtype in (torch.float32, torch.float64))
    assert_close(single.on_gpu(), single.expected())
    assert_close(double.on_gpu(), double.expected(), tolerance=1e-11)


def test_several_blocks_of_the_batch_and_of_entries_and_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lstm, "_MOST_SEQUENCES", 4)
    monkeypatch.setattr(gpu_lstm, "_ENTRIES", 2)
    monkeypatch.setattr(gpu, "_MOST_TOKENS", 8)
    mask = torch.zeros(24, 6, dtype=torch.bool)
    mask[2, 1:] = mask[13, :5] = mask[4:11, 3] = True  # rows and columns without an entry around them
    whole = problem(3, 11, SparseStructure(mask))
    gates, hidden, cell, values = (leaf.detach() for leaf in whole.leaves)
    strided = [gates.permute(2, 0, 1).contiguous().permute(1, 2, 0), hidden.t().contiguous().t(), cell, values]
    grads = [whole.grads[0][:1].expand(3, -1, -1), whole.grads[1].t().contiguous().t()]
    case = Recurrence([leaf.requires_grad_() for leaf in strided], whole.structure, grads)
    assert_close(case.on_gpu(), case.expected())


def test_gradients_only_where_wanted() -> None:
    case = problem(3, 5, random_structure(4, 0.5))
    wanted = case.expected()[2:]
    for chosen, leaf in enumerate(case.leaves):
        inputs = [other if other is leaf else other.detach() for other in case.leaves]
        outputs = recurrence(*inputs, case.structure)
        grads = [grad.to(DEVICE) for grad in case.grads]
        assert_close(list(torch.autograd.grad(outputs, [leaf], grads)), [wanted[chosen]])


@pytest.mark.parametrize("chosen", [0, 1])
def test_gradients_of_one_output_alone(chosen: int) -> None:
    case = problem(3, 5, random_structure(4, 0.5))
    alone = [grad if place == chosen else torch.zeros_like(grad) for place, grad in enumerate(case.grads)]
    output = recurrence(*case.leaves, case.structure)[chosen]
    actual = torch.autograd.grad(output, case.leaves, case.grads[chosen].to(DEVICE))
    assert_close(list(actual), case._replace(grads=alone).expected()[2:])


def test_equal_calls_give_equal_bits_and_leave_what_they_were_given() -> None:
    case = problem(2, 1, random_structure(7, 0.5))  # of one sequence a feature-major copy would be no copy
    given = [tensor.detach().clone() for tensor in (*case.leaves, *case.grads)]
    first, second = case.on_gpu(), case.on_gpu()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(given, (*case.leaves, *case.grads), strict=True))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_small_states_keep_their_digits_and_saturated_gates_stay_finite(scale: float) -> None:
    case = problem(3, 4, random_structure(5, 0.5))
    leaves = [(leaf.detach() * scale).requires_grad_() for leaf in case.leaves]
    case = case._replace(leaves=leaves)
    y, last = recurrence(*leaves, case.structure)
    for actual, wanted in zip((y, last), case.expected()[:2], strict=True):
        torch.testing.assert_close(actual.double().cpu(), wanted, rtol=1e-5, atol=1e-6 * wanted.abs().max().item())
    assert all(tensor.isfinite().all() for tensor in case.on_gpu())


def test_kernel_on_cuda_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    case = problem(2, 3, random_structure(4, 0.5))
    there = [leaf.detach().to(DEVICE) for leaf in case.leaves]
    structure = case.structure.to(DEVICE)
    wanted = gpu_lstm.gpu_recurrence(*there, structure)
    for actual, want in zip(lstm._RECURRENCES["cuda"](*there, structure), wanted, strict=True):
        assert torch.equal(actual, want)
    calls: list[Tensor] = []

    def counted(*given: Any) -> tuple[Tensor, Tensor]:
        y, last = gpu_lstm.gpu_recurrence(*given)
        calls.append(y)
        return y, last

    monkeypatch.setitem(lstm._RECURRENCES, DEVICE.type, counted)
    monkeypatch.setattr(lstm, "kernel_or_csr", lambda device: "kernel")
    dense, sparse, numbers = lstm_problem(steps=3, batch=5, inputs=4, hidden=6, density=0.4)
    assert_same_lstm((dense.to(DEVICE), sparse.to(DEVICE), [number.to(DEVICE) for number in numbers]), "kernel")
    assert len(calls) == 1
