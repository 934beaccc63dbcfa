"""Static random sparsity with an exact number of weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from sparse_bench.limits import one_of
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.scores import DISTRIBUTIONS_BY_SCORE
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, exact
from sparse_bench.streams import Streams


@dataclass
class Random(MaskScheme):
    """Each layer keeps a uniformly random subset of its weights, of exact size, during the whole training.

    Attributes:
        distribution: how the weights are distributed over layers. ``uniform``: the same density in every layer.
            ``erdos_renyi``: density proportional to (n_in + n_out) / (n_in · n_out). ``snip`` and ``lamp``: as many as
            are among the highest scores of the dense model's weights over all layers.
    """

    distribution: Annotated[str, one_of(*DISTRIBUTIONS, *DISTRIBUTIONS_BY_SCORE)] = "uniform"

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        counts = self.counts(shapes, self.distribution)
        return {name: exact(shape, counts[name], streams.torch("topology", name)) for name, shape in shapes.items()}
