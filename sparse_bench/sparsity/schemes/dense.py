"""No sparsity: the selected layers are counted and stay as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.sparsity.topology import Shape
from sparse_bench.streams import Streams


@dataclass
class Dense(Scheme):
    """The dense model. ``layers`` says which layers a comparison counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ConfigError(
                f"sparsity=dense has density 1, not {self.density}. For a dense model with fewer weights use "
                "sparsity=small_dense; for sparse layers use sparsity=random or sparsity=random_connected."
            )

    def first_topology(self, shapes: Mapping[str, Shape], streams: Streams) -> dict[str, Tensor]:
        return {}
