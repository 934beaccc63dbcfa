"""Cache of an epoch's batches: their content and their number are both needed, but are computed once."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from sparse_bench.streams import Streams

T = TypeVar("T")


class EpochCache(Generic[T]):
    """Cache of the value last made for an epoch of a run."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[int, int], T] | None = None

    def get(self, epoch: int, streams: Streams, make: Callable[[np.random.Generator], T]) -> T:
        """Return the cached value of this epoch, or call ``make`` with the epoch's random generator for data."""
        key = streams.seed, epoch
        if self._kept is None or self._kept[0] != key:
            self._kept = key, make(streams.numpy("data", epoch))
        return self._kept[1]
