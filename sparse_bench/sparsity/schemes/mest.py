"""MEST: memory-economic sparse training (Yuan et al. 2021)."""

from dataclasses import dataclass

from torch import Generator, Tensor
from torch.optim import Optimizer

from sparse_bench.limits import NotNegative
from sparse_bench.sparsity.dynamics.drop import of_scores
from sparse_bench.sparsity.dynamics.grow import random_free
from sparse_bench.sparsity.dynamics.schedule import CosineSteps
from sparse_bench.sparsity.dynamics.scheme import Dynamics, own_gradient
from sparse_bench.sparsity.schemes.rigl import RigL


@dataclass
class MEST(RigL):
    """RigL's schedule: drops the weights of smallest |w| + λ |gradient|, and grows as many at random places.

    The gradient is the one that the optimizer steps on. It is known for existing weights alone, so a step of a change
    costs no more than any other. w is the weight after that step.

    Attributes:
        gradient_weight: λ, the importance of the gradient relative to the weight.
    """

    gradient_weight: NotNegative = 0.01

    def compose(self) -> Dynamics:
        return Dynamics(of_scores, random_free, CosineSteps(self.interval, self.fraction, self.stop))

    def before_step(self, optimizer: Optimizer) -> None:
        super().before_step(optimizer)
        if self._due(self.step) is not None:
            self._scores = {name: own_gradient(weight, optimizer).abs() for name, weight in self.weights.items()}

    def ranked(self, layer: str, generator: Generator) -> tuple[Tensor, Tensor]:
        places, values = super().ranked(layer, generator)
        return places, values.abs() + self.gradient_weight * self._scores[layer].index_select(0, places)
