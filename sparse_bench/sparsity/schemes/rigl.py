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
    """Every so many steps, weights of least magnitude make way for those with the largest gradient.

    The dense gradient is computed at those steps alone. The optimizer takes its step there too, and the topology
    changes after it; in the authors' code the change takes the place of the step.

    Attributes:
        fraction: of each layer's weights, replaced at the first change; α in the paper.
        interval: steps between changes; ΔT in the paper.
        stop: share of training after which the topology stays. The fraction falls to zero by then.
    """

    sampling: Annotated[str, one_of(*SAMPLINGS)] = "exact"
    fraction: Share = 0.3
    interval: Count = 100
    stop: Share = 0.75

    def compose(self) -> Dynamics:
        schedule = CosineSteps(self.interval, self.fraction, self.stop)
        return Dynamics(magnitude, highest_score, schedule, by_gradient=True)
