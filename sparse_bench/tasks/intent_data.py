"""Intent data: arrays of featurised messages, from which packed batches are gathered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import sparse

from sparse_bench.batch import IntentBatch, Layout, SparseRows
from sparse_bench.data.featurizers import Features
from sparse_bench.data.messages import Message
from sparse_bench.data.splits import merged_intent
from sparse_bench.data.tokenizer import TokenizedText
from sparse_bench.tasks import bilou
from sparse_bench.tasks.ranges import ranges


@dataclass(frozen=True)
class _Rows:
    """A CSR matrix as plain arrays, with the types that batches have."""

    pointers: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> Self:
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float32))

    def gather(self, rows: np.ndarray) -> SparseRows:
        """The rows with these numbers, in this order."""
        starts = self.pointers[rows]
        counts = self.pointers[rows + 1] - starts
        stored = ranges(starts, counts)
        return SparseRows(
            indices=torch.from_numpy(self.indices.take(stored)),
            offsets=torch.from_numpy(np.cumsum(counts) - counts),
            values=torch.from_numpy(self.values.take(stored)),
        )


class MessageArrays:
    """The featurised messages of a split, from which batches are gathered.

    Args:
        texts: the messages' tokens.
        features: their features, in the same order.
        messages: their intents and entities.
        intents: merged intent → label.
        entity_types: entity type → number from 0; empty if nothing is tagged.

    Attributes:
        intents: label of each message [messages], int64.
        lengths: tokens of each message [messages], int64.
        first_token: number of the first token of each message [messages], int64.
        tags: BILOU tag of each token, message after message [tokens], int64.
        left_out: for each entity without tags (:func:`bilou.encode`), its text and the text of its message.
    """

    def __init__(
        self,
        texts: Sequence[TokenizedText],
        features: Features,
        messages: Sequence[Message],
        intents: Mapping[str, int],
        entity_types: Mapping[str, int],
    ) -> None:
        self.intents = np.array([intents[merged_intent(message.intent)] for message in messages], dtype=np.int64)
        self.lengths = np.array([len(text.tokens) for text in texts], dtype=np.int64)
        encoded = [
            bilou.encode(text.tokens, message.entities if entity_types else (), entity_types)
            for text, message in zip(texts, messages, strict=True)
        ]
        self.tags = np.concatenate([tags for tags, _ in encoded])
        self.left_out = [
            (message.text[entity.start : entity.end], message.text)
            for message, (_, left_out) in zip(messages, encoded, strict=True)
            for entity in left_out
        ]
        self.first_token = np.cumsum(self.lengths) - self.lengths
        self._tokens = _Rows.of(features.tokens)
        self._sentences = _Rows.of(features.sentences)

    def __len__(self) -> int:
        return len(self.intents)

    def batch(self, messages: np.ndarray) -> IntentBatch:
        """A packed batch of the messages with these numbers, in this order."""
        lengths = self.lengths[messages]
        tokens = ranges(self.first_token[messages], lengths)
        # Each message's CLS follows its tokens, and shifts the tokens of all later messages by one.
        number = np.arange(len(messages))
        token_rows = np.arange(len(tokens)) + np.repeat(number, lengths)
        return IntentBatch(
            tokens=self._tokens.gather(tokens),
            sentences=self._sentences.gather(messages),
            layout=Layout.of(lengths + 1),
            token_rows=torch.from_numpy(token_rows),
            sentence_rows=torch.from_numpy(np.cumsum(lengths) + number),
            token_layout=Layout.of(lengths),
            intents=torch.from_numpy(self.intents[messages]),
            tags=torch.from_numpy(self.tags[tokens]),
        )
