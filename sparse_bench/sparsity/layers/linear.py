"""A linear layer that holds and multiplies only the weights that exist."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.kernels.linear import sparse_linear
from sparse_bench.kernels.structure import SparseStructure


class SparseLinear(nn.Module):
    """Stands in for an :class:`torch.nn.Linear`: y = x Wᵀ + b with a sparse W [out, in].

    Attributes:
        weight: the weights that exist [entries], row by row. The only ones that an optimizer sees; frozen if they were
            in the replaced layer.
        bias: [out] or None, the replaced layer's own.
        structure: where the weights stand.
    """

    def __init__(self, linear: nn.Linear, mask: Tensor, execution: str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.execution = execution
        self.structure, values = compressed(linear.weight, mask)
        self.weight = nn.Parameter(values, linear.weight.requires_grad)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        if self.structure.dense_gradient is not None and torch.is_grad_enabled():
            return F.linear(x, self.structure.full(self.weight), self.bias)
        return sparse_linear(x, self.structure, self.weight, self.bias, self.execution)

    def extra_repr(self) -> str:
        """Sizes and execution."""
        return f"in_features={self.in_features}, out_features={self.out_features}, execution={self.execution}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize_to_saved(self, {"weight": "structure"}, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def compressed(full: Tensor, mask: Tensor) -> tuple[SparseStructure, Tensor]:
    """The structure of ``mask`` and the weights of ``full`` [out, in] that exist in it.

    A matrix on the meta device, which has no numbers, gives zeros on the mask's device.
    """
    if full.is_meta:
        structure = SparseStructure(mask)
        return structure, torch.zeros(structure.entries, dtype=full.dtype, device=mask.device)
    structure = SparseStructure(mask.to(full.device))
    return structure, structure.gather(full.detach()).clone()


def resize_to_saved(module: nn.Module, names: Mapping[str, str], state_dict: dict[str, Any], prefix: str) -> None:
    """Make room for saved values: a rewired layer may have another number of weights than it was built with.

    The parameters stay the same objects, since an optimizer holds them. What a masked layer saved, a matrix [out, in]
    and its mask, is compressed first. ``names`` are those of the weights, with those of their structures.
    """
    for name, structure in names.items():
        mask = state_dict.pop(f"{prefix}{name}_mask", None)
        if mask is not None:
            found, state_dict[prefix + name] = compressed(state_dict[prefix + name], mask)
            state_dict |= {f"{prefix}{structure}.{part}": held for part, held in found.state_dict().items()}
        parameter, saved = getattr(module, name), state_dict.get(prefix + name)
        if isinstance(saved, Tensor) and saved.dim() == 1 and saved.shape != parameter.shape:
            parameter.data = torch.empty_like(saved, device=parameter.device)
