"""Batches and sizes for classifiers of text fragments."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch


@dataclass
class TextBatch(Batch):
    """B packed fragments with N tokens in total, in the layout of :class:`torch.nn.EmbeddingBag`.

    Attributes:
        words: word numbers, fragment after fragment [N], int64.
        offsets: where each fragment starts in ``words`` [B], int64.
        types: type of each fragment [B], int64.
    """

    words: Tensor
    offsets: Tensor
    types: Tensor


@dataclass(frozen=True)
class TextSizes:
    """The sizes of the data from which a classifier is built.

    Attributes:
        vocabulary: number of word types, ``<unk>`` included.
        frequencies: count of every word type in the training data, in the order of their numbers.
        types: number of types of text.
    """

    vocabulary: int
    frequencies: tuple[int, ...]
    types: int
