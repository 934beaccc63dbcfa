"""Masked execution: the values are put into a full matrix and multiplied as if it were dense.

The reference that the other executions have to agree with, and what `jaxpruner`-style masking costs.
"""

import torch.nn.functional as F
from torch import Tensor

from sparse_bench.kernels.structure import SparseStructure


def masked_linear(x: Tensor, structure: SparseStructure, values: Tensor, bias: Tensor | None) -> Tensor:
    """y = x Wᵀ + b for ``x`` [..., in]; returns [..., out]. Twice differentiable, on any device, under autocast."""
    return F.linear(x, structure.scatter(values), bias)
