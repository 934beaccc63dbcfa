"""Square tiles: sums, masks and places on a matrix of 4 × 6, by hand."""

import pytest
import torch

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.dynamics.tiles import as_mask, as_places, grids, in_tiles, tiles_of


def test_a_matrix_of_two_by_three_tiles() -> None:
    values = torch.arange(24.0).view(4, 6)
    assert in_tiles(values, 2).tolist() == [[14, 22, 30], [62, 70, 78]]  # 0 + 1 + 6 + 7 = 14
    tiles = torch.tensor([[True, False, False], [False, False, True]])
    mask = as_mask(tiles, 2)
    assert torch.equal(tiles_of(mask, 2), tiles)
    assert torch.where(mask.flatten())[0].tolist() == [0, 1, 6, 7, 16, 17, 22, 23]
    assert as_places(torch.tensor([5, 0]), (4, 6), 2).tolist() == [16, 17, 22, 23, 0, 1, 6, 7]
    assert as_places(torch.tensor([5, 0]), (4, 6), 1).tolist() == [5, 0]


def test_a_side_that_does_not_divide_is_refused() -> None:
    assert grids({"a": (4, 6)}, 2) == {"a": (2, 3)}
    with pytest.raises(ConfigError, match=r"block = 4 does not divide 'a', which is 4 × 6\. Use a divisor of 2"):
        grids({"a": (4, 6)}, 4)
