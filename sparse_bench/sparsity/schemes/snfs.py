"""SNFS: sparse networks from scratch, by sparse momentum (Dettmers & Zettlemoyer 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from sparse_bench.limits import Share
from sparse_bench.sparsity.dynamics.adam import parameter_of
from sparse_bench.sparsity.dynamics.grow import shared
from sparse_bench.sparsity.dynamics.scheme import dense_gradient, of_step
from sparse_bench.sparsity.schemes.rigl import RigL
from sparse_bench.sparsity.weights import SparseWeight


@dataclass
class SNFS(RigL):
    """Drops the weights of smallest magnitude in each layer; layers share the growth by the mean momentum of weights.

    Within a layer, the places of highest momentum grow. So the momentum of all places is kept, which takes a dense
    gradient in every step and two more matrices for each. It is m / √v under an optimizer with two averages such as
    Adam, else the average gradient m.
    """

    resizes: ClassVar[bool] = True

    fraction: Share = 0.5
    stop: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        #: Layer → averages of the dense gradient and, under Adam, of its square [1 or 2, size].
        self._momentum: dict[str, Tensor] = {}

    def before_backward(self, step: int) -> None:
        self.step = step
        self._keep_gradient(step <= self.stop * self._length().steps or self._put_off is not None)

    def observed(self, weight: SparseWeight) -> Tensor:
        return dense_gradient(weight)

    @torch.no_grad()
    def before_step(self, optimizer: Optimizer) -> None:
        super().before_step(optimizer)
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        due, gradients, self._scores = self._due(self.step) is not None, self._scores, {}
        for name, gradient in of_step(self.weights, gradients, optimizer).items():
            group = groups[id(parameter_of(self.weights[name]))]
            rates = group.get("betas") or (group.get("momentum") or 0.9,)
            start = self._momentum.get(name, gradient.new_zeros(len(rates), gradient.numel()))
            momentum = self._momentum[name] = start.to(gradient.device)
            finite = (0 * gradient).sum() == 0  # else the step is left out, and changes no average
            known = gradient.is_cpu and bool(finite)  # a device is not waited for
            for average, power, rate in zip(momentum, (gradient, gradient**2), rates, strict=False):
                average.lerp_(power if known else torch.where(finite, power, average), 1 - rate)
            if due:
                size = momentum[0].abs()
                self._scores[name] = size / (momentum[1].sqrt() + 1e-8) if len(rates) > 1 else size

    def plan(
        self, amount: float, density: float | None, generators: dict[str, Generator]
    ) -> Iterator[tuple[str, Tensor, int]]:
        gone = {name: self.removed(name, amount, generators[name]) for name in self.weights}
        rooms, means = [], []
        for name, weight in self.weights.items():
            rooms.append((weight.size - weight.active) // self.side**2 + gone[name].numel())
            means.append(float(self._scores[name][weight.mask.flatten()].mean()) if weight.active else 0.0)
        counts = shared(means, sum(places.numel() for places in gone.values()), rooms)
        for name, count in zip(self.weights, counts, strict=True):
            yield name, gone[name], count

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"momentum": self._momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._momentum = dict(state["momentum"])
