"""How a product with a sparse weight matrix is computed."""

from sparse_bench.sparsity.kernels.cpu import kernel_available
from sparse_bench.sparsity.kernels.linear import EXECUTIONS, sparse_linear
from sparse_bench.sparsity.kernels.structure import SparseStructure

__all__ = ["EXECUTIONS", "SparseStructure", "kernel_available", "sparse_linear"]
