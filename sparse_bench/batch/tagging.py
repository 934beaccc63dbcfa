"""Batches and sizes for taggers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch, Layout


@dataclass
class TaggingBatch(Batch):
    """B packed sentences with N tokens in total, longest sentence first.

    Attributes:
        words: word numbers, sentence after sentence [N], int64.
        layout: layout of the sentences (N positions).
        tags: tag of each token [N], int64.
    """

    words: Tensor
    layout: Layout
    tags: Tensor


@dataclass(frozen=True)
class TaggingSizes:
    """The sizes of the data from which a tagger is built.

    Attributes:
        vocabulary: number of word types, ``<pad>`` and ``<unk>`` included.
        frequencies: count of every word type in the training data, in the order of their numbers.
        tags: number of tags.
    """

    vocabulary: int
    frequencies: tuple[int, ...]
    tags: int
