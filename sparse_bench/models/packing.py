"""Moving rows between packed and padded layouts, with gradients that are moves as well.

Autograd's own gradient of ``index_select`` adds row by row. Here no row receives more than one gradient, so it can be
a copy, which is several times as fast on a CPU and deterministic on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Spread(torch.autograd.Function):
    """Rows copied to a larger table; of each row's copies only one is ever used."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(target)
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (target,) = ctx.saved_tensors
        return gradients[0].index_select(0, target), None, None


class _Take(torch.autograd.Function):
    """Some rows of a table, each at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.rows = x.shape[0]
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.rows, *gradients[0].shape[1:]).index_copy_(0, rows, gradients[0]), None


def spread(x: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Lay packed rows out on a padded grid.

    Args:
        x: packed rows [M, ...].
        source: row of ``x`` for each grid cell [cells]; padding cells may name any row.
        target: the one grid cell of each packed row that counts [M]; the gradient of all others is ignored.

    Returns:
        [cells, ...].
    """
    spread_rows: Tensor = _Spread.apply(x, source, target)
    return spread_rows


def take(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` for rows that are all different [len(rows), ...]."""
    taken: Tensor = _Take.apply(x, rows)
    return taken
