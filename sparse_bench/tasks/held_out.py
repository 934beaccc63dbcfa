"""Batches that are evaluated again and again."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import nn

from sparse_bench.batch import Batch

B = TypeVar("B", bound=Batch)
#: Examples that a rehearsal of an evaluation looks at.
FEW = 4


class HeldOut(Generic[B]):
    """The batches of a split, made once and copied once to the device of the model that is evaluated."""

    def __init__(self, batches: Iterable[B]) -> None:
        self._batches = list(batches)
        self._device: torch.device | None = None

    def __iter__(self) -> Iterator[B]:
        """The batches, where they lie."""
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
        batch: makes a batch of the examples with these numbers.
        order: numbers of the examples, batch after batch [examples].
        size: examples of a batch.
    """

    def __init__(self, batch: Callable[[np.ndarray], B], order: np.ndarray, size: int) -> None:
        self._batch = batch
        self.order = order
        super().__init__(batch(numbers) for numbers in np.split(order, range(size, len(order), size)))

    def few(self) -> Self:
        """A few of the examples, the first and the last among them: where they are sorted, the least and the most."""
        places = np.linspace(0, len(self.order) - 1, FEW).astype(np.int64)
        return type(self)(self._batch, self.order[np.unique(places)], FEW)
