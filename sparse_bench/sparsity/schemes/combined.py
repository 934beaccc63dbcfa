"""Several schemes on one model, each on different layers."""

from dataclasses import dataclass

from torch import nn

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.composite import Composite
from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.streams import Streams


@dataclass
class Combined(Composite):
    """Applies several schemes to one model. All other settings belong to its parts.

    Attributes:
        parts: any name → scheme.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts:
            raise ConfigError("sparsity.parts names no scheme.")
        for name, part in self.parts.items():
            if not isinstance(part, Scheme):
                raise ConfigError(f"sparsity.parts.{name} is not a scheme: it needs a _target_.")
            if type(part).build is not Scheme.build:
                raise ConfigError(f"sparsity.parts.{name} builds another model and cannot be combined with others.")
        if self.density != 1.0 or self.execution != "masked" or tuple(self.layers) != ("default",):
            raise ConfigError("density, layers and execution belong to the parts of a combined scheme.")
        if self.width_ratio is not None:
            raise ConfigError("width_ratio and sigma belong to the parts of a combined scheme.")

    def attach(self, model: nn.Module, streams: Streams) -> None:
        for name, part in self.parts.items():
            chosen = part.matrices(model)
            if twice := [weight for weight in chosen if weight in self.selected]:
                raise ConfigError(f"sparsity.parts.{name} selects {', '.join(twice)}, which another part selects too.")
            self.selected += chosen
        for part in self.parts.values():
            part.losses = self.losses
            part.attach(model, streams)
            self.weights |= part.weights
