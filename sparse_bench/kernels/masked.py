"""Masked execution: scatter the values into a full matrix, and multiply by it as if it were dense.

The reference for the other executions. Its cost is that of masking as in `jaxpruner`.
"""

import torch.nn.functional as F
from torch import Tensor

from sparse_bench.kernels.structure import SparseStructure


def masked_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in]; returns [..., out]. Twice differentiable, on any device, under autocast."""
    return F.linear(x, structure.scatter(values), bias)
