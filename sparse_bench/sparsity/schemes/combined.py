"""Several schemes on one model, each on different layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparse_bench.errors import ConfigError
from sparse_bench.sparsity.scheme import Scheme
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

    def _each(self, method: str, *arguments: Any) -> None:
        for part in self.parts.values():
            getattr(part, method)(*arguments)

    next_stage = partialmethod(_each, "next_stage")  # type: ignore[assignment]
    scale_rates = partialmethod(_each, "scale_rates")  # type: ignore[assignment]
    check_optimizer = partialmethod(_each, "check_optimizer")  # type: ignore[assignment]
    before_training = partialmethod(_each, "before_training")  # type: ignore[assignment]
    before_backward = partialmethod(_each, "before_backward")  # type: ignore[assignment]
    before_step = partialmethod(_each, "before_step")  # type: ignore[assignment]
    after_step = partialmethod(_each, "after_step")  # type: ignore[assignment]

    def after_backward(self) -> None:
        for part in self.parts.values():
            part.gradient_scale = self.gradient_scale
            part.after_backward()

    def at_epoch_end(self, epoch: int, last: bool, optimizer: Optimizer, streams: Streams) -> dict[str, float]:
        ended = {name: part.at_epoch_end(epoch, last, optimizer, streams) for name, part in self.parts.items()}
        return {f"{name}/{key}": value for name, logged in ended.items() for key, value in logged.items()}

    def topology(self) -> dict[str, Any]:
        return {layer: entry for part in self.parts.values() for layer, entry in part.topology().items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state.get(name, {}))
