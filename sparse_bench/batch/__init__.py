"""Batches and sizes: the small dataclasses that a task hands to a model. One file per task."""

from sparse_bench.batch.base import Batch, Layout, Loss, SparseRows
from sparse_bench.batch.dialogue import Attribute, DialogueBatch, DialogueSizes
from sparse_bench.batch.intent import IntentBatch, IntentSizes

__all__ = [
    "Attribute",
    "Batch",
    "DialogueBatch",
    "DialogueSizes",
    "IntentBatch",
    "IntentSizes",
    "Layout",
    "Loss",
    "SparseRows",
]
