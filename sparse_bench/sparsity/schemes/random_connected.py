"""Rasa's RandomlyConnectedDense (Rasa 2.6): a fixed random mask that leaves nothing unconnected."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.topology import Shape, random_connected
from sparse_bench.streams import Streams


@dataclass
class RandomConnected(MaskScheme):
    """Bernoulli(density) united with a tiled identity, drawn once; density 1 is a plain dense layer.

    The initial weights are those of the full layer, not rescaled by the density. The post's example (8×8, density
    0.25) speaks of 16 weights; the released code, which this follows, gives 22 in expectation.
    """

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        if self.density == 1.0:
            return {}
        return {
            name: random_connected(shape, self.density, streams.torch("topology", name))
            for name, shape in shapes.items()
        }
