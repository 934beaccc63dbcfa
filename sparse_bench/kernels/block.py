"""Products with a weight matrix of square tiles: one batched dense product over the tiles that exist.

Written in torch's own operations, so it runs on any device and is differentiable.
"""

import math

import torch
from torch import Tensor

from sparse_bench.kernels.masked import masked_linear
from sparse_bench.kernels.structure import SparseStructure

#: Largest side of a tile that the search considers.
_LARGEST = 128


class _Tiles:
    """The tiles of a structure, one row of tiles after the other; short rows are padded with tiles of zeros.

    Attributes:
        side: side of a tile.
        columns: column of each tile, counted in tiles, int64 [rows of tiles · most tiles in a row].
        order: index of each number of each tile into the values with one zero appended, int64
            [rows of tiles, most tiles in a row · side, side]. Tiles are transposed: (input, output).
    """

    def __init__(self, structure: SparseStructure) -> None:
        self.side = tile_side(structure)
        mask, side = structure.mask(), self.side
        rows, columns = structure.out_features // side, structure.in_features // side
        exists = mask.view(rows, side, columns, side)[:, 0, :, 0]
        most = int(exists.sum(1).max())
        # Put the existing tiles of each row first, in their order; the rest of the row is padding.
        chosen = exists.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        real = exists.gather(1, chosen)
        place = torch.full((mask.numel(),), structure.entries, device=mask.device)
        place[structure.positions()] = torch.arange(structure.entries, device=mask.device)
        tiles = place.view(rows, side, columns, side).permute(0, 2, 3, 1)  # [rows, columns, input, output]
        picked = tiles.gather(1, chosen[:, :, None, None].expand(-1, -1, side, side))
        picked = picked.masked_fill(~real[:, :, None, None], structure.entries)
        self.columns = chosen.reshape(-1)
        self.order = picked.reshape(rows, most * side, side)


def tile_side(structure: SparseStructure) -> int:
    """Side of the largest square tiles that make up the structure, a power of two; 1 if there are none."""

    def find() -> int:
        mask = structure.mask()
        common = math.gcd(structure.out_features, structure.in_features)
        side = min(common & -common, _LARGEST) if common else 1
        while side > 1:
            tiles = mask.view(structure.out_features // side, side, structure.in_features // side, side)
            if bool((tiles.any(3).any(1) == tiles.all(3).all(1)).all()):
                return side
            side //= 2
        return 1

    side: int = structure.derived("tile_side", find)
    return side


def block_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in]; returns [..., out]. Correct for any structure, fast for large tiles."""
    if not structure.entries:
        return masked_linear(x, structure, values, bias)
    tiles: _Tiles = structure.derived("tiles", lambda: _Tiles(structure))
    side, (rows, inner, _) = tiles.side, tiles.order.shape
    tokens = x.shape[:-1].numel()
    weight = torch.cat([values, values.new_zeros(1)])[tiles.order]
    by_column = x.reshape(tokens, structure.in_features // side, side).transpose(0, 1)
    gathered = by_column.index_select(0, tiles.columns).view(rows, inner // side, tokens, side)
    product = torch.bmm(gathered.transpose(1, 2).reshape(rows, tokens, inner), weight)
    y = product.transpose(0, 1).reshape(*x.shape[:-1], structure.out_features)
    return (y if bias is None else y + bias).contiguous()
