"""A linear layer that holds and multiplies only the weights that exist."""

from typing import Any

import torch
from torch import Tensor, nn

from sparse_bench.sparsity.kernels.linear import sparse_linear
from sparse_bench.sparsity.kernels.structure import SparseStructure


class SparseLinear(nn.Module):
    """Stands in for an :class:`torch.nn.Linear`: y = x Wᵀ + b with a sparse W [out, in].

    Attributes:
        weight: the weights that exist [entries], row by row. The only ones that an optimizer sees.
        bias: [out] or None, the replaced layer's own.
        structure: where the weights stand.
    """

    def __init__(self, linear: nn.Linear, mask: Tensor, execution: str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.execution = execution
        self.structure = SparseStructure(mask.to(linear.weight.device))
        self.weight = nn.Parameter(self.structure.gather(linear.weight.detach()).clone())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return sparse_linear(x, self.structure, self.weight, self.bias, self.execution)

    def extra_repr(self) -> str:
        """Sizes and execution."""
        return f"in_features={self.in_features}, out_features={self.out_features}, execution={self.execution}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A rewired layer may have been saved with another number of weights; the optimizer keeps its parameter.
        saved = state_dict.get(prefix + "weight")
        if isinstance(saved, Tensor) and saved.dim() == 1 and saved.shape != self.weight.shape:
            self.weight.data = torch.empty_like(saved, device=self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
