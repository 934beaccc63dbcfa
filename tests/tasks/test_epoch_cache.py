"""What is made for an epoch is made once, and anew for another epoch or another run."""

import numpy as np

from sparse_bench.streams import Streams
from sparse_bench.tasks.epoch_cache import EpochCache


def test_made_once_for_an_epoch_of_a_run() -> None:
    made: list[int] = []

    def make(generator: np.random.Generator) -> int:
        made.append(int(generator.integers(1 << 30)))
        return made[-1]

    last = EpochCache[int]()
    first = last.get(0, Streams(0), make)
    assert first == last.get(0, Streams(0), make) == int(Streams(0).numpy("data", 0).integers(1 << 30))
    assert len(made) == 1
    assert len({first, last.get(1, Streams(0), make), last.get(1, Streams(1), make)}) == 3
    assert last.get(0, Streams(0), make) == first
    assert len(made) == 4
