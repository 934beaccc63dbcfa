"""From the configuration of a model to models."""

from typing import Any

import torch

from sparse_bench import environment
from sparse_bench.config import build
from sparse_bench.errors import ConfigError


class ModelFactory:
    """Builds the configured model for a task's sizes; a scheme may ask for other settings, a narrower width say."""

    def __init__(self, node: dict[str, Any], sizes: Any) -> None:
        self._node = node
        self._sizes = sizes

    def __call__(self, **settings: Any) -> Any:
        """The model, with these settings in place of the configured ones."""
        return build(self._node, _partial_=True, **settings)(self._sizes)

    def check_memory(self, device: torch.device) -> None:
        """Refuse a model whose weights alone are more than a device holds; nothing is drawn or held.

        Raises:
            ConfigError: see above.
        """
        with torch.device("meta"):
            parameters = list(self().parameters())
        needed = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        there = environment.memory_bytes(device)
        if there is not None and needed > there:
            raise ConfigError(
                f"The model's weights alone take {needed / 1e9:,.1f} GB, and this {device.type} has "
                f"{there / 1e9:,.1f} GB. Make the layers of 'model' narrower or fewer."
            )

    def widths(self) -> list[dict[str, Any]]:
        """Settings of all narrower variants, narrowest first."""
        model = build(self._node, _partial_=True)
        found: list[dict[str, Any]] = model.func.widths(model.keywords)
        return found
