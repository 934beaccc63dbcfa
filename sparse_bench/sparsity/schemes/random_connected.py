"""Rasa's RandomlyConnectedDense (Rasa 2.6): a fixed random mask that leaves no input or output unconnected."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.topology import Shape, random_connected
from sparse_bench.streams import Streams


@dataclass
class RandomConnected(MaskScheme):
    """The union of a Bernoulli(density) mask and a tiled identity, drawn once; density 1 is a plain dense layer.

    The initial weights are those of the full layer, not rescaled by the density. For an 8×8 layer of density 0.25, the
    blog post gives 16 weights. The released code, which this scheme follows, gives 22 in expectation.
    """

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        if self.density == 1.0:
            return {}
        return {
            name: random_connected(shape, self.density, streams.torch("topology", name))
            for name, shape in shapes.items()
        }
