"""The Triton recurrence, on a GPU or in Triton's interpreter, against torch's LSTM with full matrices."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_bench.kernels import SparseStructure, lstm
from tests.kernels.on_triton import DEVICE, skip_without_triton
from tests.kernels.problems import (
    Recurrence,
    assert_close,
    assert_digits,
    assert_same_lstm,
    lstm_problem,
    recurrence_problem,
    recurrent_structure,
)

skip_without_triton()
gpu = pytest.importorskip("sparse_bench.kernels.gpu")
gpu_lstm = pytest.importorskip("sparse_bench.kernels.gpu_lstm")


def recurrence(
    gates: Tensor, hidden: Tensor, cell: Tensor, values: Tensor, structure: SparseStructure
) -> tuple[Tensor, Tensor]:
    """The kernel's outputs on its device; gradients reach the given tensors where they are."""
    numbers = (number.to(DEVICE) for number in (gates, hidden, cell, values))
    y, last = gpu_lstm.gpu_recurrence(*numbers, copy.deepcopy(structure).to(DEVICE))
    return y, last


def results(case: Recurrence) -> list[Tensor]:
    """Outputs and all gradients."""
    outputs = recurrence(*case.leaves, case.structure)
    return [*outputs, *torch.autograd.grad(outputs, case.leaves, [grad.to(DEVICE) for grad in case.grads])]


@settings(max_examples=4, deadline=None)
@given(
    steps=st.integers(1, 3),
    batch=st.integers(1, 40),
    size=st.integers(1, 6),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_dense(steps: int, batch: int, size: int, density: float, seed: int) -> None:
    structure = recurrent_structure(size, density, seed)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-11)):
        case = recurrence_problem(steps, batch, structure, seed, dtype)
        assert_close(results(case), case.expected(), tolerance)


def test_several_blocks_of_the_batch_and_of_entries_and_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lstm, "_MOST_SEQUENCES", 4)
    monkeypatch.setattr(gpu_lstm, "_ENTRIES", 2)
    monkeypatch.setattr(gpu, "_MOST_TOKENS", 8)
    mask = torch.zeros(24, 6, dtype=torch.bool)
    mask[2, 1:] = mask[13, :5] = mask[4:11, 3] = True  # rows and columns without an entry around them
    whole = recurrence_problem(3, 11, SparseStructure(mask))
    gates, hidden, cell, values = (leaf.detach() for leaf in whole.leaves)
    strided = [gates.permute(2, 0, 1).contiguous().permute(1, 2, 0), hidden.t().contiguous().t(), cell, values]
    grads = [whole.grads[0][:1].expand(3, -1, -1), whole.grads[1].t().contiguous().t()]
    case = Recurrence([leaf.requires_grad_() for leaf in strided], whole.structure, grads)
    assert_close(results(case), case.expected())


def test_gradients_only_where_wanted() -> None:
    case = recurrence_problem(3, 5, recurrent_structure(4, 0.5))
    wanted = case.expected()[2:]
    for chosen, leaf in enumerate(case.leaves):
        inputs = [other if other is leaf else other.detach() for other in case.leaves]
        outputs = recurrence(*inputs, case.structure)
        grads = [grad.to(DEVICE) for grad in case.grads]
        assert_close(list(torch.autograd.grad(outputs, [leaf], grads)), [wanted[chosen]])


@pytest.mark.parametrize("chosen", [0, 1])
def test_gradients_of_one_output_alone(chosen: int) -> None:
    case = recurrence_problem(3, 5, recurrent_structure(4, 0.5))
    alone = [grad if place == chosen else torch.zeros_like(grad) for place, grad in enumerate(case.grads)]
    output = recurrence(*case.leaves, case.structure)[chosen]
    actual = torch.autograd.grad(output, case.leaves, case.grads[chosen].to(DEVICE))
    assert_close(list(actual), case._replace(grads=alone).expected()[2:])


def test_equal_calls_give_equal_bits_and_leave_what_they_were_given() -> None:
    # Of one sequence a feature-major copy would be no copy.
    case = recurrence_problem(2, 1, recurrent_structure(7, 0.5))
    given = [tensor.detach().clone() for tensor in (*case.leaves, *case.grads)]
    first, second = results(case), results(case)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(given, (*case.leaves, *case.grads), strict=True))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_small_states_keep_their_digits_and_saturated_gates_stay_finite(scale: float) -> None:
    case = recurrence_problem(3, 4, recurrent_structure(5, 0.5), scale=scale)
    actual = results(case)
    assert_digits(actual[:2], case.expected()[:2], tolerance=1e-5)
    assert all(tensor.isfinite().all() for tensor in actual)


def test_kernel_on_cuda_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    case = recurrence_problem(2, 3, recurrent_structure(4, 0.5))
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
    # In single precision torch's own LSTM on a GPU may keep three digits only.
    dense, sparse, numbers = lstm_problem(steps=3, batch=5, inputs=4, hidden=6, density=0.4, dtype=torch.float64)
    moved = dense.to(DEVICE), sparse.to(DEVICE), [number.to(DEVICE) for number in numbers]
    assert_same_lstm(moved, "kernel", tolerance=1e-11)
    assert len(calls) == 1


def test_kernels_are_launched_on_the_gpu_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the process's present device, which need not be theirs."""
    inside, outside = [], []
    present: list[torch.Tensor] = []

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        present.append(tensor)
        yield
        present.pop()

    def recorded(kernel: Any) -> Any:
        class Recorded:
            def __getitem__(self, grid: Any) -> Any:
                def launch(*arguments: Any, **settings: Any) -> None:
                    (inside if present else outside).append(kernel)
                    kernel[grid](*arguments, **settings)

                return launch

        return Recorded()

    monkeypatch.setattr("torch.cuda.device_of", device_of)
    for module, names in ((gpu, ("_rows", "_columns")), (gpu_lstm, ("_forward", "_backward"))):
        for name in names:
            monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    structure = recurrent_structure(4, 0.5, 0)
    results(recurrence_problem(2, 3, structure, 0, torch.float32))
    x = torch.randn(3, 4, device=DEVICE)
    there = copy.deepcopy(structure).to(DEVICE)
    gpu.gpu_linear(x, there, torch.ones(structure.entries, device=DEVICE), None)
    assert not outside
    assert len(set(map(id, inside))) == 4
