"""A linear layer that stores only the weights that exist, and computes with them alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.kernels.linear import sparse_linear
from sparse_bench.sparsity.layers.compressed import CompressedLayer, compressed


class SparseLinear(CompressedLayer):
    """Replaces an :class:`torch.nn.Linear`: y = x Wᵀ + b with a sparse W [out, in].

    Args:
        linear: the layer to replace.
        mask: which weights exist, boolean [out, in].
        execution: see :func:`sparse_bench.kernels.linear.sparse_linear`.

    Attributes:
        weight: the weights that exist [entries], row by row; frozen if they were in ``linear``.
        bias: [out] or None, the parameter of ``linear``.
        structure: the places of the weights.
    """

    structures = {"weight": "structure"}  # noqa: RUF012

    def __init__(self, linear: nn.Linear, mask: Tensor, execution: str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.execution = execution
        self.structure, values = compressed(linear.weight, mask)
        self.weight = nn.Parameter(values, linear.weight.requires_grad)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Compute y [..., out] for ``x`` [..., in].

        Raises:
            ConfigError: see :class:`CompressedLayer`.
        """
        self.check_copy()
        if self.structure.dense_gradient is not None and torch.is_grad_enabled():
            return F.linear(x, self.structure.full(self.weight), self.bias)
        return sparse_linear(x, self.structure, self.weight, self.bias, self.execution)

    def extra_repr(self) -> str:
        """Sizes and execution."""
        return f"in_features={self.in_features}, out_features={self.out_features}, execution={self.execution}"
