"""GraNet: gradual pruning with zero-cost neuroregeneration (Liu et al. 2021, arXiv 2106.10404)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from sparse_bench.limits import Count, Fraction, Share, one_of
from sparse_bench.sparsity.dynamics.drop import magnitude
from sparse_bench.sparsity.dynamics.grow import highest_score
from sparse_bench.sparsity.dynamics.schedule import CosineSteps, CubicDensity
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, exact
from sparse_bench.streams import Streams


@dataclass
class GraNet(MaskScheme, Dynamic):
    """Prunes over all layers together on a cubic curve; then replaces weights within each layer by their gradient.

    At each change, the weights of smallest magnitude in all layers are pruned to the density d_i − (d_i − d_f)
    (1 − (1 − p)³), for the progress p. Then each layer drops a fraction of its remaining smallest weights, and grows as
    many where the gradient is largest; a pruned weight may grow again. The last change only prunes, to ``density``.

    Attributes:
        density: share of the selected layers' weights that exist in the end; d_f in the paper.
        initial_density: share that exists at first; d_i. With 1, training begins dense.
        distribution: how the first density is distributed over layers.
        fraction: share of each layer's remaining weights that the first change replaces.
        final_fraction: share that the last change replaces; in between, half a cosine.
        interval: steps between changes; ΔT.
        stop: share of training at which ``density`` is reached, after which the topology is fixed.
    """

    resizes: ClassVar[bool] = True

    initial_density: Share = 0.5
    distribution: Annotated[str, one_of(*DISTRIBUTIONS)] = "erdos_renyi"
    fraction: Share = 0.5
    final_fraction: Share = 0.005
    interval: Count = 100
    stop: Fraction = 0.75

    def compose(self) -> Dynamics:
        return Dynamics(
            magnitude,
            highest_score,
            CosineSteps(self.interval, self.fraction, self.stop, self.final_fraction),
            by_gradient=True,
            pruning=CubicDensity(self.density, self.interval, 0.0, self.stop, self.initial_density),
        )

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        counts = DISTRIBUTIONS[self.distribution](shapes, self.initial_density)
        return {name: exact(shape, counts[name], streams.torch("topology", name)) for name, shape in shapes.items()}

    def missing_in_the_end(self) -> int:
        size = sum(weight.size for weight in self.weights.values())
        return size - round(self.density * size)
