"""Gradual magnitude pruning (Zhu & Gupta 2017): from dense to sparse during training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from sparse_bench.limits import Count, Share, one_of
from sparse_bench.sparsity.dynamics.drop import magnitude
from sparse_bench.sparsity.dynamics.schedule import CubicDensity, Schedule
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.ranking import lamp
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams


@dataclass
class GMP(MaskScheme, Dynamic):
    """Removes the weights of smallest magnitude, over all layers together, until ``density`` is reached.

    The window from ``begin`` to ``end`` is the usual one. From 0.25 to 0.75 of training was found nearly optimal (Jin
    et al. 2025, arXiv 2501.12486).

    Attributes:
        density: share of the selected layers' weights that exist in the end; all exist at first.
        interval: steps between removals.
        begin: share of training after which pruning begins.
        end: share of training at which ``density`` is reached.
        score: what is smallest. ``magnitude``, or ``lamp``: its square over the sum of the squares of all weights of
            the layer that are not smaller (Lee et al. 2021), which keeps layers from losing all weights.
    """

    resizes: ClassVar[bool] = True

    interval: Count = 100
    begin: Share = 0.1
    end: Share = 0.8
    score: Annotated[str, one_of("magnitude", "lamp")] = "magnitude"

    def compose(self) -> Dynamics:
        pruning = CubicDensity(self.density, self.interval, self.begin, self.end)
        return Dynamics(magnitude, None, Schedule(), pruning=pruning)

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}

    def missing_in_the_end(self) -> int:
        size = sum(weight.size for weight in self.weights.values())
        return size - round(self.density * size)

    def ranked(self, layer: str, generator: Generator) -> tuple[Tensor, Tensor]:
        places, values = super().ranked(layer, generator)
        return places, values if self.score == "magnitude" else lamp(values)
