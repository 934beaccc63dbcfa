"""Tagging data: the numbering of words, and arrays from which batches are gathered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparse_bench.batch.base import Layout
from sparse_bench.batch.tagging import TaggingBatch
from sparse_bench.data.tagged import Sentence
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.tasks.ranges import ranges

UNK = "<unk>"


@dataclass(frozen=True)
class Words:
    """The vocabulary of a tagger.

    Attributes:
        numbers: word → number, from 1. ``<unk>`` is 1, also where a text contains that spelling. The other words follow
            from the most frequent to the rarest; words with equal frequency are in the order of their first occurrence.
            0 is padding and no word: a ``<pad>`` in a text is an ordinary word.
        counts: occurrences of each number in the training sentences [V]. As in the released code, padding counts 1, and
            ``<unk>`` counts the tokens that it replaced, but at least 1.
    """

    numbers: Mapping[str, int]
    counts: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[Sentence], size: int | None = None) -> "Words":
        """Number the words of ``sentences``, or only so many of the most frequent that there are ``size`` numbers.

        Raises:
            ConfigError: a size below 3, which leaves no room for a word.
        """
        if size is not None and size < 3:
            raise ConfigError(f"vocabulary = {size} has to be at least 3: padding, {UNK} and a word.")
        found = Counter(word for words, _ in sentences for word in words if word != UNK)
        kept = found.most_common(None if size is None else size - 2)
        unknown = sum(len(words) for words, _ in sentences) - sum(count for _, count in kept)
        counts = [1, max(1, unknown), *(count for _, count in kept)]
        names = [UNK, *(word for word, _ in kept)]
        return cls({word: number for number, word in enumerate(names, start=1)}, np.asarray(counts, dtype=np.int64))


class TaggedArrays:
    """The sentences of a split as numbers, one sentence after the other.

    Attributes:
        words: number of each token's word [N].
        tags: number of each token's tag [N].
        lengths: tokens of each sentence [S].
        first: number of the first token of each sentence [S].

    Raises:
        DataError: the split has no sentence.
    """

    def __init__(self, sentences: Sequence[Sentence], words: Words, tags: Mapping[str, int], split: str) -> None:
        if not sentences:
            raise DataError(f"The split '{split}' has no sentences.")
        unknown = words.numbers[UNK]
        self.words = np.asarray([words.numbers.get(word, unknown) for found, _ in sentences for word in found])
        self.tags = np.asarray([tags[tag] for _, found in sentences for tag in found])
        self.lengths = np.asarray([len(found) for found, _ in sentences])
        self.first = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray, words: np.ndarray | None = None) -> TaggingBatch:
        """A batch of the sentences ``rows``, longest first. ``words`` [N] replaces the split's own words."""
        rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
        tokens = ranges(self.first[rows], self.lengths[rows])
        return TaggingBatch(
            words=torch.from_numpy((self.words if words is None else words)[tokens]),
            layout=Layout.of(self.lengths[rows]),
            tags=torch.from_numpy(self.tags[tokens]),
        )
