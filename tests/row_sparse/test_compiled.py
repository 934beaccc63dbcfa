"""Compiled code for rows of tables, against its formulas."""

import warnings

import pytest
import torch
from torch import Tensor

from sparse_bench.kernels.build import BuildError
from sparse_bench.kernels.cpu import kernel_available
from sparse_bench.row_sparse import compiled
from sparse_bench.row_sparse.compiled import MOST_TERMS, adam_rows, add_rows, put_rows, take_rows

pytestmark = pytest.mark.skipif(not kernel_available(), reason=kernel_available().reason)


def problem(dtype: torch.dtype, terms: int, count: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(terms)
    weight, first = (torch.randn(9, width, dtype=dtype, generator=draw) for _ in range(2))
    second = torch.rand(9, width, dtype=dtype, generator=draw) ** 8  # over many orders of magnitude
    return weight, first, second, torch.rand(count, 4 + terms, dtype=dtype, generator=draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("terms", [1, 2, 7, MOST_TERMS])
@pytest.mark.parametrize("width", [1, 5, 33])
@pytest.mark.parametrize("rows", [None, [7, 0, 3]])
@pytest.mark.parametrize("copied", [True, False])
def test_adam_by_its_formula(copied: bool, rows: list[int] | None, width: int, terms: int, dtype: torch.dtype) -> None:
    weight, first, second, numbers = problem(dtype, terms, 9 if rows is None else len(rows), width)
    before = [tensor.clone() for tensor in (weight, first, second)]
    index = None if rows is None else torch.tensor(rows)
    chosen = list(range(9)) if rows is None else rows
    if copied:
        copies = torch.empty(3, len(chosen), width, dtype=dtype)
        assert adam_rows(weight, first, second, index, numbers, 1e-3, copies)
        assert torch.equal(copies[0], weight[chosen])
        assert torch.equal(first, before[1])
        assert torch.equal(second, before[2])
        first[chosen], second[chosen] = copies[1], copies[2]
    else:
        assert adam_rows(weight, first, second, index, numbers, 1e-3)
    w, m, v = (tensor[chosen] for tensor in before)
    bar, shrink, first_decay, second_decay = (numbers[:, number : number + 1] for number in range(4))
    inverse = 1 / (v.sqrt() * bar + 1e-3)
    powers = torch.stack([(1 - 1e-3 * inverse) ** power for power in range(terms)], dim=-1)
    total = (powers * numbers[:, None, 4:]).sum(-1)
    torch.testing.assert_close(weight[chosen], w * shrink - m * inverse * total)
    torch.testing.assert_close(first[chosen], m * first_decay)
    torch.testing.assert_close(second[chosen], v * second_decay)
    others = [number for number in range(9) if number not in chosen]
    for tensor, old in zip((weight, first, second), before, strict=True):
        assert torch.equal(tensor[others], old[others])


def test_what_it_leaves_to_others() -> None:
    weight, first, second, numbers = problem(torch.float32, 3, 9, 4)
    before = weight.clone()
    assert not adam_rows(weight.half(), first.half(), second.half(), None, numbers.half(), 1e-8)
    assert not adam_rows(weight, first.double(), second, None, numbers, 1e-8)
    assert not adam_rows(weight.t(), first.t(), second.t(), None, numbers[:4].contiguous(), 1e-8)
    assert not adam_rows(weight, first, second, None, torch.zeros(9, 5 + MOST_TERMS), 1e-8)
    meta = [tensor.to("meta") for tensor in (weight, first, second)]
    assert not adam_rows(*meta, None, numbers.to("meta"), 1e-8)
    assert torch.equal(weight, before)
    with pytest.raises(ValueError, match="9 rows"):
        adam_rows(weight, first, second, None, numbers[:3], 1e-8)
    with pytest.raises(ValueError, match="9 rows"):
        adam_rows(weight, first, second, None, numbers, 1e-8, torch.empty(3, 9, 3))


def test_many_rows_on_several_threads() -> None:
    weight, first, second = (torch.rand(4000, 40) for _ in range(3))
    numbers = torch.rand(4000, 8)
    copies = [tensor.clone() for tensor in (weight, first, second)]
    assert adam_rows(weight, first, second, None, numbers, 1e-8)
    torch.set_num_threads(2)
    assert adam_rows(*copies, None, numbers, 1e-8)
    assert torch.equal(copies[0], weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("width", [(), (1,), (7,), (3, 5)])
def test_putting_rows(width: tuple[int, ...], dtype: torch.dtype) -> None:
    table = torch.arange(20 * torch.Size(width).numel()).view(20, *width).to(dtype)
    rows = torch.tensor([19, 0, 4, 7, 11, 2])
    values = -torch.arange(1, 6 * torch.Size(width).numel() + 1).view(6, *width).to(dtype)
    expected = table.clone().index_copy_(0, rows, values)
    put_rows(table, rows, values)
    assert torch.equal(table, expected)
    assert torch.equal(take_rows(table, rows), values)
    assert torch.equal(take_rows(table, torch.tensor([3, 3, 5])), table[[3, 3, 5]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [(), (1,), (7,), (3, 5)])
def test_adding_to_rows(width: tuple[int, ...], dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    table, values = (torch.randn(count, *width, generator=draw).to(dtype) for count in (20, 6))
    rows = torch.tensor([19, 0, 4, 7, 4, 2])  # one of them twice
    expected = table.clone().index_add_(0, rows, values, alpha=-0.3)
    before = table.clone()
    add_rows(table, rows, values, -0.3)
    torch.testing.assert_close(table, expected)
    others = [number for number in range(20) if number not in rows]
    assert torch.equal(table[others], before[others])


def test_rows_of_tables_that_the_compiled_code_cannot_read() -> None:
    table = torch.arange(12.0).view(3, 4).t()
    rows = torch.tensor([3, 1])
    assert torch.equal(take_rows(table, rows), table[[3, 1]])
    put_rows(table, rows, torch.zeros(2, 3))
    assert table.tolist() == [[0, 4, 8], [0, 0, 0], [2, 6, 10], [0, 0, 0]]
    add_rows(table, rows, torch.ones(2, 3), 2.0)
    assert table.tolist() == [[0, 4, 8], [2, 2, 2], [2, 6, 10], [2, 2, 2]]
    assert take_rows(table.to("meta"), rows.to("meta")).shape == (2, 3)
    with pytest.raises(IndexError):
        put_rows(table.contiguous(), rows, torch.zeros(3, 3))


def test_without_a_compiler_it_says_once_that_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise BuildError("no compiler")

    monkeypatch.setattr(compiled, "load_library", fails)
    compiled._library.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="without compiled code, which is slower: no compiler"):
            assert compiled._library() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert compiled._library() is None
    finally:
        compiled._library.cache_clear()
