"""The structure of a sparse weight matrix: indices, rewiring, saving, copying."""

import copy

import pytest
import torch

from sparse_bench.errors import CheckpointError
from sparse_bench.kernels import SparseStructure, places_of
from tests.kernels.problems import problem, results

MASK = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)


def test_places_are_numbered_along_the_rows() -> None:
    mask = torch.tensor([[False, True, True], [False, False, True]])
    found = places_of(mask)
    assert found.tolist() == [1, 2, 5]
    assert found.dtype == torch.int64
    assert places_of(mask.T).tolist() == [2, 4, 5]  # a view that is not contiguous
    assert places_of(torch.zeros(3, dtype=torch.bool)).tolist() == []


def test_structure_by_hand() -> None:
    structure = SparseStructure(MASK)
    assert structure.row_start.tolist() == [0, 2, 2, 4]
    assert structure.column.tolist() == [1, 3, 0, 1]
    assert structure.row_start.dtype == structure.column.dtype == torch.int32
    assert structure.entries == 4
    assert structure.density == pytest.approx(4 / 12)
    assert structure.rows().tolist() == [0, 0, 2, 2]
    assert structure.positions().tolist() == [1, 3, 8, 9]
    column_start, row, origin = structure.by_column()
    assert column_start.tolist() == [0, 1, 3, 3, 4]
    assert row.tolist() == [2, 0, 2, 0]
    assert origin.tolist() == [2, 0, 3, 1]
    matrix = structure.scatter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert matrix.tolist() == [[0, 1, 0, 2], [0, 0, 0, 0], [3, 4, 0, 0]]
    assert structure.gather(matrix).tolist() == [1, 2, 3, 4]
    assert torch.equal(structure.mask(), MASK)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (3, 4)])
def test_structure_without_entries(shape: tuple[int, int]) -> None:
    structure = SparseStructure(torch.zeros(shape, dtype=torch.bool))
    assert structure.entries == 0
    assert structure.row_start.tolist() == [0] * (shape[0] + 1)
    assert structure.by_column()[0].tolist() == [0] * (shape[1] + 1)
    assert structure.mask().shape == shape


def test_structure_is_rewired_in_place() -> None:
    structure = SparseStructure(MASK)
    structure.by_column()
    structure.rewire(~MASK)
    assert torch.equal(structure.mask(), ~MASK)
    assert structure.entries == 8
    assert structure.by_column()[0].tolist() == [0, 2, 3, 6, 8]
    with pytest.raises(ValueError, match="3 × 4"):
        structure.rewire(MASK[:2])
    with pytest.raises(ValueError, match="boolean"):
        structure.rewire(MASK.float())


def test_structure_from_csr() -> None:
    source = SparseStructure(MASK)
    assert torch.equal(SparseStructure.from_csr(source.row_start.long(), source.column.long(), 4).mask(), MASK)


@pytest.mark.parametrize(
    ("row_start", "column", "message"),
    [
        ([0, 2, 1], [0, 1], "rise"),
        ([0, 1, 3], [0, 1], "rise"),
        ([1, 1, 2], [0, 1], "rise"),
        ([0, 1, 2], [0, 4], r"lie in \[0, 4\)"),
        ([0, 1, 2], [-1, 0], r"lie in \[0, 4\)"),
        ([0, 2, 2], [1, 1], "ascend"),
        ([0, 2, 2], [3, 1], "ascend"),
        ([], [], "two vectors"),
    ],
)
def test_structure_rejects_what_is_no_csr(row_start: list[int], column: list[int], message: str) -> None:
    indices = torch.tensor(row_start, dtype=torch.int32), torch.tensor(column, dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        SparseStructure.from_csr(*indices, 4)


def test_structure_is_saved_and_loaded_with_another_number_of_entries() -> None:
    source, target = SparseStructure(MASK), SparseStructure(~MASK)
    target.by_column()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.mask(), MASK)
    assert target.by_column()[0].tolist() == [0, 1, 3, 3, 4]
    damaged = {**source.state_dict(), "column": torch.tensor([1, 3, 0, 9], dtype=torch.int32)}
    with pytest.raises(CheckpointError, match="lie in"):
        target.load_state_dict(damaged)


def test_structure_is_copied_without_what_one_process_derived() -> None:
    structure, x, values, bias, grad = problem(6, 5, 4, 0.5)
    before = results(structure, x, values, bias, grad, "kernel")
    clone = copy.deepcopy(structure)
    assert not clone._derived
    for a, b in zip(before, results(clone, x, values, bias, grad, "kernel"), strict=True):
        assert torch.equal(a, b)


def test_structure_keeps_integer_indices_when_a_model_changes_dtype() -> None:
    assert SparseStructure(MASK).double().column.dtype == torch.int32
