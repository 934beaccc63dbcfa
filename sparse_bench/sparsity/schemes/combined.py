"""Several schemes on one model, each on different layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.scheme import Length, Scheme
from sparse_bench.streams import Streams


@dataclass
class Combined(Scheme):
    """Applies several schemes to one model. Density, layers and execution are settings of its parts.

    Attributes:
        parts: any name → scheme.
    """

    parts: Mapping[str, Any] = field(default_factory=dict)

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

    def asked(self) -> str | None:
        return ", ".join(f"{name}: {part.asked()}" for name, part in self.parts.items() if part.asked()) or None

    def missing_in_the_end(self) -> int:
        return sum(part.missing_in_the_end() for part in self.parts.values())

    def warnings(self) -> list[str]:
        return [warning for part in self.parts.values() for warning in part.warnings()]

    def rewirings(self) -> int | None:
        counted = [number for part in self.parts.values() if (number := part.rewirings()) is not None]
        return sum(counted) if counted else None

    def next_stage(self, model: nn.Module) -> None:
        for part in self.parts.values():
            part.next_stage(model)

    def scale_rates(self, optimizer: Optimizer, model: nn.Module) -> None:
        for part in self.parts.values():
            part.scale_rates(optimizer, model)

    def before_training(self, length: Callable[[], Length]) -> None:
        for part in self.parts.values():
            part.before_training(length)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        for part in self.parts.values():
            part.check_optimizer(optimizer)

    def before_backward(self, step: int) -> None:
        for part in self.parts.values():
            part.before_backward(step)

    def after_backward(self) -> None:
        for part in self.parts.values():
            part.gradient_scale = self.gradient_scale
            part.after_backward()

    def before_step(self, optimizer: Optimizer) -> None:
        for part in self.parts.values():
            part.before_step(optimizer)

    def after_step(self, step: int, optimizer: Optimizer, streams: Streams) -> None:
        for part in self.parts.values():
            part.after_step(step, optimizer, streams)

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        return {
            f"{name}/{key}": value
            for name, part in self.parts.items()
            for key, value in part.at_epoch_end(epoch, last, optimizer, streams).items()
        }

    def topology(self) -> dict[str, Any]:
        return {layer: entry for part in self.parts.values() for layer, entry in part.topology().items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state.get(name, {}))
