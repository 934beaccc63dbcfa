"""Compiled code that finds too little memory says so, and is right again when there is enough."""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_bench.kernels import SparseStructure, cpu, lstm, sparse_linear
from tests.kernels.problems import assert_digits, problem, results

MANY, TOKENS = 2**20, 32


def test_a_plan_larger_than_any_memory_is_refused() -> None:
    features = 10**15
    structure = SparseStructure.from_csr(torch.tensor([0, 1]), torch.tensor([7]), features)
    with pytest.raises(MemoryError, match=rf"\[1, {features}\] with 1 entries"):
        sparse_linear(torch.ones(1).expand(2, features), structure, torch.ones(1), None, "kernel")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to a limit of its memory")
def test_what_does_not_fit_is_refused_and_is_right_once_it_fits() -> None:
    """In a process of its own, whose memory is limited: this file as a script."""
    assert cpu.kernel_available()  # compiled
    # What is freed goes back to the system: what the process kept would be free in spite of the limit.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command, root = [sys.executable, "-m", __name__], Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(CASES)
    assert all(line.startswith("not enough memory for ") for line in said)


def refused(call: Callable[[], object], room: int) -> str:
    """What is said where the process can get no more than ``room`` bytes."""
    gc.collect()  # what is freed later would be room besides
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, limits[1]))
    try:
        call()
    except MemoryError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    raise AssertionError(f"{room} bytes were enough")


def small_ones_are_right() -> None:
    """On two threads, in memory that such calls have used before."""
    case = problem(80, 80, TOKENS, 0.9)
    assert_digits(results(*case, "kernel"), results(*case, "csr"), tolerance=1e-5)


def corners(out: int, inner: int) -> tuple[SparseStructure, Tensor, Tensor]:
    """A structure of four entries, an input whose tokens are all alike, and values."""
    start = torch.full((out + 1,), 2, dtype=torch.int32)
    start[0], start[-1] = 0, 4
    structure = SparseStructure.from_csr(start, torch.tensor([0, inner - 1] * 2), inner)
    return structure, torch.linspace(1, 2, inner).expand(TOKENS, inner), torch.tensor([1.0, 2.0, 3.0, 4.0])


def forward() -> str:
    structure, x, values = corners(2, MANY)
    cpu._plan(x, structure, values, None)  # fits
    said = refused(lambda: sparse_linear(x, structure, values, None, "kernel"), room=12 << 20)
    small_ones_are_right()
    y = sparse_linear(x, structure, values, None, "kernel")
    assert torch.equal(y, torch.tensor([5.0, 11.0]).expand(TOKENS, 2))
    return said


def backward() -> str:
    structure, *numbers = corners(MANY, 2)
    x, values = (number.clone().requires_grad_() for number in numbers)
    y, grad = sparse_linear(x, structure, values, None, "kernel"), torch.ones(MANY).expand(TOKENS, MANY)
    said = refused(lambda: torch.autograd.grad(y, [x, values], grad, retain_graph=True), room=12 << 20)
    small_ones_are_right()
    grad_x, grad_values = torch.autograd.grad(y, [x, values], grad)
    assert torch.equal(grad_x, torch.tensor([4.0, 6.0]).expand(TOKENS, 2))
    assert torch.equal(grad_values, TOKENS * torch.tensor([1.0, 2.0, 1.0, 2.0]))
    return said


def plan_of_an_lstm() -> str:
    structure = corners(2 * MANY, MANY // 2)[0]
    said = refused(lambda: lstm._Plan(structure), room=4 << 20)
    lstm._Plan(structure)
    return said


def backward_of_an_lstm() -> str:
    structure, _, values = corners(2 * MANY, MANY // 2)
    gates, state = torch.zeros(1, 1, 2 * MANY, requires_grad=True), torch.zeros(1, MANY // 2)
    y, _ = lstm._compiled_recurrence(gates, state, state, values, structure)
    said = refused(lambda: torch.autograd.grad(y.sum(), gates, retain_graph=True), room=24 << 20)
    (grad,) = torch.autograd.grad(y.sum(), gates)
    assert torch.equal(grad.view(4, -1), torch.tensor([0, 0, 0.25, 0])[:, None].expand(4, MANY // 2))
    return said


CASES = (forward, backward, plan_of_an_lstm, backward_of_an_lstm)

if __name__ == "__main__":
    torch.set_num_threads(2)
    small_ones_are_right()
    for case in CASES:
        print(case())
