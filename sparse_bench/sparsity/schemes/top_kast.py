"""Top-KAST: forward and backward passes on the largest weights, of which the backward pass takes more."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, NotNegative, Share, one_of
from sparse_bench.sparsity.held import Held, HeldWeight
from sparse_bench.sparsity.ranking import highest
from sparse_bench.sparsity.topology import DISTRIBUTIONS


@dataclass
class TopKAST(Held):
    """The model uses the set A of the largest weights, and steps change the larger set B of them.

    The loss has the additional term λ (‖θ_A‖² + ‖θ_B∖A‖² / D) with D = ``density``. The other weights keep their
    values, until those in B fall below them. All weights are held while training. The term acts on the gradient after
    any clipping.

    Source: Jayakumar et al. 2020, "Top-KAST: Top-K Always Sparse Training" (arXiv 2106.03517), sections 2.1 to 2.3.

    Attributes:
        density: share of the weights in A, which exist in the end.
        backward_density: share of the weights in B, at least ``density``.
        regularization: λ.
        distribution: how both are distributed over layers.
        interval: steps between choices of A and B.
    """

    backward_density: Share = 1.0
    regularization: NotNegative = 1e-4
    distribution: Annotated[str, one_of(*DISTRIBUTIONS)] = "uniform"
    interval: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward_density < self.density:
            raise ConfigError(
                f"sparsity.backward_density ({self.backward_density}) has to be at least sparsity.density "
                f"({self.density})."
            )

    def choose(self) -> None:
        shapes = {name: weight.shape for name, weight in self.held.items()}
        forward, backward = (
            DISTRIBUTIONS[self.distribution](shapes, share) for share in (self.density, self.backward_density)
        )
        for name, weight in self.held.items():
            magnitudes, most = weight.full.abs(), max(forward[name], backward[name])
            weight.show(highest(magnitudes, forward[name]), forward[name], highest(magnitudes, most), most)

    def penalty(self, weight: HeldWeight) -> Tensor | None:
        if not self.regularization:
            return None
        factor = 2 * self.regularization
        outside = factor / self.density if self.density else 0.0  # without a weight in A, there is nothing to explore
        # Outside B, the step's gradient is masked.
        return (factor * weight.parameter.detach()).add_(outside * weight.hidden())

    def due(self, step: int) -> bool:
        return step % self.interval == 0
