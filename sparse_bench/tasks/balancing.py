"""Balanced batches: epochs in which the examples of rare labels are repeated."""

from collections.abc import Callable, Sequence

import numpy as np

from sparse_bench.streams import Streams
from sparse_bench.tasks.epoch_cache import EpochCache


def balanced_order(labels: np.ndarray, batch_size: int, permutation: Callable[[int], np.ndarray]) -> np.ndarray:
    """Order of the examples in one epoch of balanced batches, as DIET and TED are trained (Rasa's ``balanced_data``).

    Each round visits all labels in a new random order. A visit appends the next int(share · batch_size) + 1 examples of
    its label, or the rest if fewer are left. After its last example a label has finished a cycle, and starts again. A
    label that has finished a cycle is skipped at every other visit. The epoch ends when all labels have finished their
    first cycle. So every example occurs at least once, and examples of rare labels occur often.

    Args:
        labels: label of each example [n], n at least 1.
        batch_size: size of the batches that the order will be cut into.
        permutation: n → a random permutation of 0 … n-1. It is called once for the order of the examples within their
            labels, and then once per round.

    Returns:
        Numbers of examples [at least n], int64.
    """
    shuffled = permutation(len(labels))
    _, label_of, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    queues = np.split(shuffled[np.argsort(label_of, kind="stable")], np.cumsum(counts)[:-1])
    takes = ((counts / len(labels) * batch_size).astype(np.int64) + 1).tolist()
    position = [0] * len(queues)
    cycled = [False] * len(queues)
    skipped = [False] * len(queues)
    unfinished = len(queues)
    order: list[np.ndarray] = []
    while unfinished:
        for label in permutation(len(queues)).tolist():
            if cycled[label] and not skipped[label]:
                skipped[label] = True
                continue
            skipped[label] = False
            start, queue = position[label], queues[label]
            order.append(queue[start : start + takes[label]])
            position[label] = start + takes[label]
            if position[label] >= len(queue):
                position[label] = 0
                unfinished -= not cycled[label]
                cycled[label] = True
                if not unfinished:
                    break
    return np.concatenate(order)


def growing_batch_size(epoch: int, first: int, last: int, epochs: int) -> int:
    """Batch size of ``epoch`` (from 0): it grows linearly from ``first`` to ``last`` over ``epochs``, then stays."""
    if epochs <= 1:
        return first
    return first + (last - first) * min(epoch, epochs - 1) // (epochs - 1)


class GrowingBatches:
    """Batches whose size grows over the epochs, as DIET and TED are trained.

    Args:
        labels: label of each example [n].
        sizes: batch size of the first and of the last epoch.
        epochs: number of epochs over which the size grows.
        balanced: repeat rare labels (:func:`balanced_order`); otherwise an epoch visits every example once.
    """

    def __init__(self, labels: np.ndarray, sizes: Sequence[int], epochs: int, balanced: bool) -> None:
        self._labels, self._sizes, self._epochs, self._balanced = labels, sizes, epochs, balanced
        self._epoch_cache = EpochCache[list[np.ndarray]]()

    def of_epoch(self, epoch: int, streams: Streams) -> list[np.ndarray]:
        """Numbers of the examples in each batch of ``epoch``."""

        def batches(generator: np.random.Generator) -> list[np.ndarray]:
            first, last = self._sizes
            size = growing_batch_size(epoch, first, last, self._epochs)
            if self._balanced:
                order = balanced_order(self._labels, size, generator.permutation)
            else:
                order = generator.permutation(len(self._labels))
            return np.split(order, list(range(size, len(order), size)))

        return self._epoch_cache.get(epoch, streams, batches)
