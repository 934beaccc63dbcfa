"""Products with sparse weight matrices, computed in several ways."""

from sparse_bench.kernels.cpu import kernel_available
from sparse_bench.kernels.linear import EXECUTIONS, sparse_linear
from sparse_bench.kernels.structure import SparseStructure, places_of

__all__ = ["EXECUTIONS", "SparseStructure", "kernel_available", "places_of", "sparse_linear"]
