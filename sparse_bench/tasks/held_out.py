"""Batches that are evaluated again and again."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import nn

from sparse_bench.batch import Batch

B = TypeVar("B", bound=Batch)


class HeldOut(Generic[B]):
    """The batches of a split, made once and copied once to the device of the model that is evaluated."""

    def __init__(self, batches: Iterable[B]) -> None:
        self._batches = list(batches)
        self._device: torch.device | None = None

    def __iter__(self) -> Iterator[B]:
        """The batches, where they lie."""
        return iter(self._batches)

    def beside(self, model: nn.Module) -> list[B]:
        """All batches, on the device of ``model``."""
        device = next(model.parameters()).device
        if device != self._device:
            self._batches = [batch.to(device) for batch in self._batches]
            self._device = device
        return self._batches
