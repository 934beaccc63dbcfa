"""The baseline that every figure needs: a narrower dense model with the same number of weights."""

import logging
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_bench.sparsity.scheme import ModelFactory, Scheme, layer_groups, total_size
from sparse_bench.sparsity.selection import select
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams

logger = logging.getLogger(__name__)
#: A number of weights that is further from the wanted one than this share of it is told.
_FAR = 0.2


@dataclass
class SmallDense(Scheme):
    """A dense model whose selected layers hold as many weights as ``density`` times the full model's.

    The width nearest to that number is taken (the narrower one of two equally near), so the count is as close as the
    model's steps of width allow; the result records the count that was reached.
    """

    def build(self, factory: ModelFactory) -> Any:
        widths = factory.widths()
        target = self.density * self._size(factory, widths[-1])
        # The number of weights grows with the width, so the nearest width is found without building them all.
        above = min(bisect_left(widths, target, key=lambda width: self._size(factory, width)), len(widths) - 1)
        nearest = min(widths[max(above - 1, 0) : above + 1], key=lambda w: abs(self._size(factory, w) - target))
        reached = self._size(factory, nearest)
        if abs(reached - target) > _FAR * target:
            logger.warning(
                "small_dense: density %s asks for %s weights in the selected layers, and the nearest width has %s",
                self.density,
                f"{target:,.0f}",
                f"{reached:,}",
            )
        return factory(**nearest)

    def _size(self, factory: ModelFactory, width: dict[str, Any]) -> int:
        with torch.device("meta"):
            model = factory(**width)
        names = select(model, layer_groups(model), self.layers)
        return total_size({name: tuple(model.get_parameter(name).shape) for name in names})

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {}
