"""The baseline of every comparison: a narrower dense model with the same number of weights."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sparse_bench.sparsity.scheme import ModelFactory, Scheme, total_size

#: Relative deviation from the target number of weights above which the result carries a warning.
FAR = 0.2


@dataclass
class SmallDense(Scheme):
    """A narrower dense model, whose selected layers hold ``density`` times the weights of the full model's layers.

    It takes the width whose number of weights is nearest to this target; of two equally near, the narrower one. The
    result records the number of weights reached.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        #: Number of weights of the selected layers at the chosen width.
        self._taken = 0

    def build(self, factory: ModelFactory) -> Any:
        widths = factory.widths()
        self.full_size = selected_size(self, factory, widths[-1])
        target = self.density * self.full_size
        # The number of weights grows with the width, so the nearest width is found without building them all.
        size = partial(selected_size, self, factory)
        above = min(bisect_left(widths, target, key=size), len(widths) - 1)
        nearest = min(widths[max(above - 1, 0) : above + 1], key=lambda width: abs(size(width) - target))
        self._taken = selected_size(self, factory, nearest)
        self.widened = widening(widths[-1], nearest)
        return factory(**nearest)

    def missing(self) -> int:
        return (self.full_size or 0) - self._taken

    def warnings(self) -> list[str]:
        target = self.density * (self.full_size or 0)
        warning = (
            f"small_dense: density {self.density:g} means {target:,.0f} weights in the selected layers, and the "
            f"nearest width has {self._taken:,}."
        )
        return [warning] if abs(self._taken - target) > FAR * target else []


def widening(own: dict[str, Any], chosen: dict[str, Any]) -> float:
    """The width of the variant ``chosen`` over that of the configured variant ``own``."""
    name, width = next(iter(own.items()))
    return float(chosen[name] / width)


def selected_size(scheme: Scheme, factory: ModelFactory, width: dict[str, Any]) -> int:
    """Entries of the layers that ``scheme`` selects in the variant ``width``; it is not given any numbers."""
    with torch.device("meta"):
        model = factory(**width)
    return total_size({name: tuple(model.get_parameter(name).shape) for name in scheme.matrices(model)})
