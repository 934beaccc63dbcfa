"""The base of schemes that are made of other schemes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any

from torch.optim import Optimizer

from sparse_bench.sparsity.scheme import Scheme
from sparse_bench.streams import Streams


@dataclass
class Composite(Scheme):
    """Passes every call on to its parts, in their order, and puts their answers together.

    Attributes:
        parts: any name → scheme.
    """

    parts: Mapping[str, Any] = field(default_factory=dict)

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

    next_stage = partialmethod(_each, "next_stage")
    scale_rates = partialmethod(_each, "scale_rates")
    check_optimizer = partialmethod(_each, "check_optimizer")
    before_training = partialmethod(_each, "before_training")
    before_backward = partialmethod(_each, "before_backward")
    before_step = partialmethod(_each, "before_step")
    after_step = partialmethod(_each, "after_step")

    def after_backward(self) -> None:
        for part in self.parts.values():
            part.gradient_scale = self.gradient_scale
            part.after_backward()

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
