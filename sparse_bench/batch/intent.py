"""Batches and sizes for intent models."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sparse_bench.batch.base import Batch, Layout, SparseRows


@dataclass
class IntentBatch(Batch):
    """Features of B messages with N tokens in total. Each packed sequence is a message's tokens, then its CLS.

    Attributes:
        tokens: sparse features of the N tokens.
        sentences: sparse features of the B messages.
        layout: layout of the sequences with CLS (M = N + B positions).
        token_rows: packed row of each token [N].
        sentence_rows: packed row of each message's CLS [B].
        token_layout: layout of the sequences without CLS (N positions), for tagging.
        intents: label of each message [B], int64.
        tags: tag of each token [N], int64.
    """

    tokens: SparseRows
    sentences: SparseRows
    layout: Layout
    token_rows: Tensor
    sentence_rows: Tensor
    token_layout: Layout
    intents: Tensor
    tags: Tensor


@dataclass(frozen=True)
class IntentSizes:
    """The sizes of the data from which an intent model is built.

    Attributes:
        token_features: width of the sparse token features.
        sentence_features: width of the sparse sentence features.
        intent_features: width of the sparse features of intent names.
        intents: the features of every intent's name, one row per intent, on the CPU.
        tags: number of entity tags; 0 or 1 means that nothing is tagged.
        frequencies: ``token``, ``sentence`` or ``label`` → how often each of these features occurs in the training
            data; empty if they were not counted.
    """

    token_features: int
    sentence_features: int
    intent_features: int
    intents: SparseRows
    tags: int
    frequencies: dict[str, tuple[int, ...]] = field(default_factory=dict)
