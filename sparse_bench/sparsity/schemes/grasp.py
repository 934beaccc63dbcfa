"""GraSP: keep the weights that preserve the flow of the gradient."""

from dataclasses import dataclass

from torch import Tensor, nn

from sparse_bench.limits import Positive
from sparse_bench.sparsity.scores import Losses, grasp
from sparse_bench.sparsity.scoring import ScoredOnce


@dataclass
class GraSP(ScoredOnce):
    """Keeps the highest w · (H g) over all layers, with H the Hessian and g the gradient of the loss before training.

    This is the paper's rule: its score is −w · (H g), and it removes the highest. Removing a weight of high w · (H g)
    would make the gradient smaller.

    Source: Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow", algorithm 1.

    Attributes:
        batches: number of training batches whose mean loss gives both.
        temperature: divides the logits of each softmax in the loss.
    """

    temperature: Positive = 200.0

    def scores(self, twin: nn.Module, losses: Losses, seed: int) -> dict[str, Tensor]:
        return grasp(twin, self.selected, losses, self.batches, seed, self.temperature)
