"""What travels from a task to a model: small dataclasses of tensors, and nothing else. One file a task."""

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
