"""Tiles: how they are found, and their products."""

import pytest
import torch

from sparse_bench.kernels import SparseStructure, sparse_linear
from sparse_bench.kernels.block import tile_side
from tests.kernels.problems import assert_close, expected, results


def tiled(rows: int, columns: int, side: int, density: float) -> SparseStructure:
    generator = torch.Generator().manual_seed(rows + columns + side)
    tiles = torch.rand(rows, columns, generator=generator) < density
    tiles[0, 0], tiles[0, -1] = True, False  # so that no larger tiles can be seen in it
    return SparseStructure(tiles.repeat_interleave(side, 0).repeat_interleave(side, 1))


@pytest.mark.parametrize(
    ("rows", "columns", "side", "found"), [(6, 4, 8, 8), (3, 5, 16, 16), (4, 4, 1, 1), (3, 3, 6, 2), (5, 2, 4, 4)]
)
@pytest.mark.parametrize("density", [0.0, 0.3, 0.9])
def test_finds_the_tiles_and_agrees_with_dense(rows: int, columns: int, side: int, found: int, density: float) -> None:
    structure = tiled(rows, columns, side, density)
    if columns > 2 and rows > 2:
        assert tile_side(structure) == found
    x = torch.randn(9, columns * side, requires_grad=True)
    values = torch.randn(structure.entries, requires_grad=True)
    bias, grad = torch.randn(rows * side, requires_grad=True), torch.randn(9, rows * side)
    assert_close(results(structure, x, values, bias, grad, "block"), expected(structure, x, values, bias, grad))


def test_a_full_or_an_empty_matrix_is_made_of_the_largest_tiles() -> None:
    for mask in (torch.ones(64, 96, dtype=torch.bool), torch.zeros(64, 96, dtype=torch.bool)):
        assert tile_side(SparseStructure(mask)) == 32


def test_twice_differentiable() -> None:
    structure = tiled(3, 3, 2, 0.5)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    values = torch.randn(structure.entries, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a, v: sparse_linear(a, structure, v, None, "block"), (x, values))
