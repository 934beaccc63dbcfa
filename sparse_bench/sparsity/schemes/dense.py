"""The dense baseline: the selected layers keep all of their weights, and are counted."""

from dataclasses import dataclass

import torch
from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.limits import Positive
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.weights import SparseWeight
from sparse_bench.streams import Streams


@dataclass
class Dense(Scheme):
    """The dense model. ``layers`` selects the layers whose weights are counted for comparisons.

    Attributes:
        gain: factor on the first weights of these layers. A sparse matrix of density d, with weights drawn as for a
            dense one, gives products √d times as large. With ``gain`` = √d the dense matrix does too. This control
            separates the effect of sparsity from the effect of smaller products at the start.
    """

    gain: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ConfigError(
                f"sparsity=dense has density 1, not {self.density}. For a dense model with fewer weights use "
                "sparsity=small_dense; for sparse layers use sparsity=random or sparsity=random_connected."
            )

    def install(self, model: nn.Module, streams: Streams) -> dict[str, SparseWeight]:
        if self.gain != 1.0:
            with torch.no_grad():
                for name in self.selected:
                    model.get_parameter(name).mul_(self.gain)
        return {}
