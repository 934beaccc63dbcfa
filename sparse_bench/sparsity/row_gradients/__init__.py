"""Embedding tables whose gradient holds the rows that a batch touched, and no others."""

from sparse_bench.sparsity.row_gradients.install import tables, use_row_gradients
from sparse_bench.sparsity.row_gradients.layers import RowGradientLayer
from sparse_bench.sparsity.row_gradients.optimizers import ELEMENTWISE
from sparse_bench.sparsity.row_gradients.rows import host_sees, sparse_in_rows

__all__ = ["ELEMENTWISE", "RowGradientLayer", "host_sees", "sparse_in_rows", "tables", "use_row_gradients"]
