"""Row-sparse embeddings: each step computes and updates only the rows of a table that its batch reads.

The gradient of a layer holds these rows (``layers.py``, ``gradients.py``). Any elementwise optimizer can step on them
(``updates.py``). What a dense step would do to the other rows is deferred until they are read (``deferral.py``).
"""

from sparse_bench.row_sparse.gradients import TouchedRows, clip_gradient_norm, readable_without_wait
from sparse_bench.row_sparse.layers import RowSparseLayer, make_row_sparse, tables
from sparse_bench.row_sparse.updates import ELEMENTWISE, RowSparseUpdates

__all__ = [
    "ELEMENTWISE",
    "RowSparseLayer",
    "RowSparseUpdates",
    "TouchedRows",
    "clip_gradient_norm",
    "make_row_sparse",
    "readable_without_wait",
    "tables",
]
