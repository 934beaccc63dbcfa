"""Optimizer steps for gradients that are sparse in rows: of the touched rows, and put off for all others."""

from sparse_bench.training.row_sparse.updates import RowUpdates

__all__ = ["RowUpdates"]
