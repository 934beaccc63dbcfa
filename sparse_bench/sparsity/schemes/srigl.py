"""SRigL: dynamic sparse training with a constant fan-in (Lasby et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Share, one_of
from sparse_bench.sparsity.dynamics.drop import magnitude, on_host, whole
from sparse_bench.sparsity.dynamics.fan_in import salient_fan_in
from sparse_bench.sparsity.dynamics.grow import highest_score
from sparse_bench.sparsity.dynamics.schedule import CosineSteps
from sparse_bench.sparsity.dynamics.scheme import Dynamic, Dynamics
from sparse_bench.sparsity.scheme import MaskScheme
from sparse_bench.sparsity.selection import refuse_transposed
from sparse_bench.sparsity.topology import DISTRIBUTIONS, Shape, constant_fan_in
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class SRigL(MaskScheme, Dynamic):
    """RigL with as many inputs for each unit of a layer; units with few salient weights are ablated.

    Units are the rows of a matrix, in a recurrent layer those of its gates. The rule is
    :func:`sparse_bench.sparsity.dynamics.fan_in.salient_fan_in`. Ablated units live again when enough places of them
    become salient. Fan-ins are whole, so a layer differs from density times size by up to half a weight per unit.

    Attributes:
        distribution: how the density is distributed over layers.
        gamma: γ; units with fewer salient weights than this share of the fan-in are ablated, but for the last layer's.
        fraction: α; share of each layer's weights that the first change replaces. It falls to zero along half a cosine.
        interval: steps between changes; ΔT in the paper.
        stop: share of training after which the topology is fixed.
    """

    resizes: ClassVar[bool] = True
    distribution: Annotated[str, one_of(*DISTRIBUTIONS)] = "erdos_renyi"
    gamma: Share = 0.3
    fraction: Share = 0.3
    interval: Count = 100
    stop: Share = 0.75

    def compose(self) -> Dynamics:
        return Dynamics(magnitude, highest_score, CosineSteps(self.interval, self.fraction, self.stop), True)

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        refuse_transposed(model, self.selected, "SRigL")
        weights = super().install(model, streams)
        self._totals = {name: weight.active for name, weight in weights.items()}
        return weights

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        masks = {}
        for name, count in DISTRIBUTIONS[self.distribution](shapes, self.density).items():
            inputs = round(count / shapes[name][0])
            if inputs < 1:
                raise ConfigError(f"sparsity.density = {self.density} leaves the units of '{name}' without an input.")
            masks[name] = constant_fan_in(shapes[name], inputs, streams.torch("topology", name))
        return masks

    def warnings(self) -> list[str]:
        realised = sum(self._totals.values()) / self.size  # at first
        text = f"SRigL has density {realised:.4g}: each unit has a whole number of inputs."
        return super().warnings() + [text] * (abs(realised - self.density) > 0.05 * self.density)

    def removed(self, layer: str, fraction: float, generator: Generator, pruned: Tensor | None = None) -> Tensor:
        weight, last = self.weights[layer], layer == self.selected[-1]
        mask, size = weight.mask.cpu().numpy(), on_host(weight.dense().abs())
        gradient, drop = on_host(self._scores[layer]).reshape(mask.shape), whole(fraction, weight.active)
        kept, self._new = salient_fan_in(size, mask, gradient, drop, self._totals[layer], self.gamma, not last)
        return torch.from_numpy(np.flatnonzero(mask & ~kept)).to(weight.mask.device)

    def grown(self, layer: str, left: Tensor, count: int, generator: Generator) -> Tensor:
        return torch.from_numpy(np.flatnonzero(self._new & ~left.cpu().numpy())).to(left.device)
