"""What an epoch consists of is asked for twice, as batches and as their number, and worked out once."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from sparse_bench.streams import Streams

T = TypeVar("T")


class EpochCache(Generic[T]):
    """Keeps what was last made for an epoch of a run."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[int, int], T] | None = None

    def get(self, epoch: int, streams: Streams, make: Callable[[np.random.Generator], T]) -> T:
        """What ``make`` makes of this epoch's randomness for data, or has made of it just before."""
        key = streams.seed, epoch
        if self._kept is None or self._kept[0] != key:
            self._kept = key, make(streams.numpy("data", epoch))
        return self._kept[1]
