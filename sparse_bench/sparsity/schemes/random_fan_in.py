"""SparseLang's random sparsity: every unit has the same small number of random inputs, which never change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from sparse_bench.limits import one_of
from sparse_bench.sparsity.meta_init import build_large_on_meta
from sparse_bench.sparsity.scheme import MaskScheme, ModelFactory
from sparse_bench.sparsity.selection import refuse_transposed, units
from sparse_bench.sparsity.topology import Shape, fan_in
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams

INITIAL = ("fan_in", "report", "model")
#: From this density on, the report's code initialised weights within another range.
_REPORT_WIDE_DENSITY, _REPORT_WIDE_RANGE = 0.01, 0.1


@dataclass
class RandomFanIn(MaskScheme):
    """Each unit draws ⌊density · inputs⌋ of its inputs (Guo and Zhou 2018, "Sparse LSTM Model", and their code).

    The units of a recurrent layer are those of its gates. Their inputs are the layer's input and its hidden state
    together, so the share of each varies from unit to unit. The units of a linear layer draw from the layer's inputs.
    At density 1 layers are dense, with the same initialiser: the baseline.

    Attributes:
        with_replacement: draw inputs as the original code does, which may draw one twice; the unit then has fewer
            weights. If false, all inputs of a unit are different.
        initial: first weights. ``fan_in``: uniform within ±√(3 / fan-in), at every density. ``report``: as in the
            original code, uniform within ±√(3 / n) for n weights in a layer, and within ±0.1 from density 0.01 on.
            ``model``: the weights that the model was built with.
    """

    with_replacement: bool = False
    initial: Annotated[str, one_of(*INITIAL)] = "fan_in"

    def build(self, factory: ModelFactory) -> Any:
        """Build the model. Large matrices have no numbers if this scheme draws all first weights itself."""
        whole = self.execution == "masked" or self.density == 1.0 or self.initial == "model"
        return factory() if whole else build_large_on_meta(factory, self.matrices)

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        refuse_transposed(model, self.selected, "RandomFanIn")
        weights = super().install(model, streams)
        # On the meta device there are shapes only, so no first weights to draw.
        if self.initial == "model" or model.get_parameter(self.selected[0]).is_meta:
            return weights
        for names in units(self.selected).values():
            matrices = [weights.get(name) or model.get_parameter(name) for name in names]
            counts = [one.active if isinstance(one, SparseWeight) else one.numel() for one in matrices]
            limit = self._limit(sum(counts) / matrices[0].shape[0], sum(counts))
            for name, matrix, count in zip(names, matrices, counts, strict=True):
                values = (2 * torch.rand(count, generator=streams.torch("init", name)) - 1) * limit
                if isinstance(matrix, SparseWeight):
                    matrix.set_values(values)
                else:
                    matrix.detach().copy_(values.view(matrix.shape))
        return weights

    def _limit(self, fan_in: float, weights: int) -> float:
        """Largest initial weight of units with ``fan_in`` inputs, in a layer of ``weights`` weights."""
        if self.initial != "report":
            return math.sqrt(3 / max(fan_in, 1.0))
        return _REPORT_WIDE_RANGE if self.density >= _REPORT_WIDE_DENSITY else math.sqrt(3 / max(weights, 1))

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {} if self.density == 1.0 else fan_in(shapes, self.density, streams, self.with_replacement)
