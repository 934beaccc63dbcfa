"""Build models from their configuration."""

from typing import Any

import torch

from sparse_bench import environment
from sparse_bench.config import build
from sparse_bench.errors import ConfigError


class ModelFactory:
    """Builds the configured model for a task's sizes; a scheme may replace some settings, such as the width."""

    def __init__(self, node: dict[str, Any], sizes: Any) -> None:
        self._node = node
        self._sizes = sizes

    def __call__(self, **settings: Any) -> Any:
        """Build the model, with ``settings`` in place of the configured ones."""
        return build(self._node, _partial_=True, **settings)(self._sizes)

    def check_memory(self, device: torch.device) -> None:
        """Check that a device has enough memory for the model's weights, without allocating them.

        Raises:
            ConfigError: it has not.
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

    def widths(self, **settings: Any) -> list[dict[str, Any]]:
        """Settings of all variants up to the configured width, or up to that of ``settings``; narrowest first."""
        model = build(self._node, _partial_=True)
        found: list[dict[str, Any]] = model.func.widths({**model.keywords, **settings})
        return found
