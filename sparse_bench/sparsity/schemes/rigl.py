"""RigL: the rigged lottery (Evci et al. 2020)."""

from dataclasses import dataclass
from typing import Annotated

from sparse_bench.limits import Count, Share, one_of
from sparse_bench.sparsity.dynamics.drop import magnitude
from sparse_bench.sparsity.dynamics.grow import highest_score
from sparse_bench.sparsity.dynamics.schedule import CosineSteps
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.schemes.static_er import SAMPLINGS, StaticER


@dataclass
class RigL(StaticER, Dynamic):
    """Every ``interval`` steps, replaces the weights of smallest magnitude by those of largest gradient magnitude.

    The dense gradient is computed only for these steps. The optimizer makes its step as usual, and the topology changes
    after it. In the authors' code, the change replaces the step.

    Attributes:
        fraction: share of each layer's weights that the first change replaces; α in the paper.
        interval: steps between changes; ΔT in the paper.
        stop: share of training after which the topology is fixed. The fraction falls to zero by then.
    """

    sampling: Annotated[str, one_of(*SAMPLINGS)] = "exact"
    fraction: Share = 0.3
    interval: Count = 100
    stop: Share = 0.75

    def compose(self) -> Dynamics:
        schedule = CosineSteps(self.interval, self.fraction, self.stop)
        return Dynamics(magnitude, highest_score, schedule, by_gradient=True)
