"""No sparsity: the selected layers are counted and keep all of their weights."""

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
    """The dense model. ``layers`` says which layers a comparison counts.

    Attributes:
        gain: factor on the first weights of these layers. A sparse matrix of density d whose weights are drawn as the
            dense ones are gives √d times as large products; with ``gain`` = √d so does the dense one, which tells what
            sparsity does from what smaller first products do.
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
