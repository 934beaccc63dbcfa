"""Batches of held-out splits, which are evaluated many times."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import nn

from sparse_bench.batch import Batch

B = TypeVar("B", bound=Batch)
#: Number of examples in a rehearsal of an evaluation.
FEW = 4


class HeldOut(Generic[B]):
    """The batches of a split, made once, and copied once to the device of the evaluated model."""

    def __init__(self, batches: Iterable[B]) -> None:
        self._batches = list(batches)
        self._device: torch.device | None = None

    def __iter__(self) -> Iterator[B]:
        """The batches, on their present device."""
        return iter(self._batches)

    def on_device_of(self, model: nn.Module) -> list[B]:
        """All batches, on the device of ``model``."""
        device = next(model.parameters()).device
        if device != self._device:
            self._batches = [batch.to(device) for batch in self._batches]
            self._device = device
        return self._batches


class Ordered(HeldOut[B]):
    """Batches of numbered examples.

    Args:
        batch: makes a batch from the numbers of its examples.
        order: numbers of the examples, batch after batch [examples].
        size: examples in a batch.
    """

    def __init__(self, batch: Callable[[np.ndarray], B], order: np.ndarray, size: int) -> None:
        self._batch = batch
        self.order = order
        super().__init__(batch(numbers) for numbers in np.split(order, range(size, len(order), size)))

    def few(self) -> Self:
        """Batches of a few examples, including the first and the last: if sorted by length, shortest and longest."""
        places = np.linspace(0, len(self.order) - 1, FEW).astype(np.int64)
        return type(self)(self._batch, self.order[np.unique(places)], FEW)
