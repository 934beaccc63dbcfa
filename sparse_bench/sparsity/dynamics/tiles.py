"""Square tiles of connections: a matrix [out, in] seen as one of its tiles [out / side, in / side].

A place is an index into the flattened matrix, and the number of a tile is one into the flattened matrix of tiles. With
a side of 1 both are the same.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_bench.errors import ConfigError


def grids(shapes: Mapping[str, tuple[int, ...]], side: int) -> dict[str, tuple[int, ...]]:
    """Layer → the shape of its matrix in tiles, for the ``shapes`` [out, in] of some layers.

    Raises:
        ConfigError: a matrix cannot be divided into tiles of this side.
    """
    for name, shape in shapes.items():
        if any(size % side for size in shape):
            raise ConfigError(
                f"sparsity.block = {side} does not divide '{name}', which is {' × '.join(map(str, shape))}. Use a "
                f"divisor of {math.gcd(*shape)}, or select other layers (sparsity.layers)."
            )
    return {name: tuple(size // side for size in shape) for name, shape in shapes.items()}


def tiles_of(mask: Tensor, side: int) -> Tensor:
    """Which tiles exist, boolean [out / side, in / side], for a ``mask`` [out, in] of whole tiles."""
    return mask[::side, ::side]


def in_tiles(values: Tensor, side: int) -> Tensor:
    """Sums of ``values`` [out, in] over each tile [out / side, in / side]."""
    rows, columns = values.shape
    return values.reshape(rows // side, side, columns // side, side).sum((1, 3))


def as_mask(tiles: Tensor, side: int) -> Tensor:
    """The mask [out, in] of existing ``tiles`` [out / side, in / side]."""
    return tiles if side == 1 else tiles.repeat_interleave(side, 0).repeat_interleave(side, 1)


def as_places(tiles: Tensor, shape: tuple[int, ...], side: int) -> Tensor:
    """The places [tiles · side²] of the tiles with these numbers, int64 [tiles], in a matrix of ``shape``."""
    if side == 1:
        return tiles
    columns = shape[1] // side
    inside = torch.arange(side, device=tiles.device)
    first = tiles // columns * (side * shape[1]) + tiles % columns * side
    return (first[:, None] + (inside[:, None] * shape[1] + inside).flatten()).flatten()
