"""Row-sparse embeddings: gradient, moments and update of a table are those of the rows that a batch reads.

A layer's gradient holds these rows (``layers.py``, ``gradients.py``), any elementwise optimizer steps on them
(``updates.py``), and what a dense step would do to the others waits until they are read (``deferral.py``).
"""

from sparse_bench.row_sparse.gradients import TouchedRows, clip_gradient_norm, host_sees
from sparse_bench.row_sparse.layers import RowSparseLayer, make_row_sparse, tables
from sparse_bench.row_sparse.updates import ELEMENTWISE, RowSparseUpdates

__all__ = [
    "ELEMENTWISE",
    "RowSparseLayer",
    "RowSparseUpdates",
    "TouchedRows",
    "clip_gradient_norm",
    "host_sees",
    "make_row_sparse",
    "tables",
]
