"""A linear layer that stores only the weights that exist, and computes with them alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.kernels.linear import sparse_linear
from sparse_bench.kernels.structure import SparseStructure


class SparseLinear(nn.Module):
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

    def __init__(self, linear: nn.Linear, mask: Tensor, execution: str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.execution = execution
        self.structure, values = compressed(linear.weight, mask)
        self.weight = nn.Parameter(values, linear.weight.requires_grad)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Compute y [..., out] for ``x`` [..., in]."""
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
    """The structure of ``mask`` [out, in], and a copy of the weights of ``full`` [out, in] that exist in it [entries].

    For a matrix on the meta device, which has no numbers, the weights are zeros on the mask's device.
    """
    if full.is_meta:
        structure = SparseStructure(mask)
        return structure, torch.zeros(structure.entries, dtype=full.dtype, device=mask.device)
    structure = SparseStructure(mask.to(full.device))
    return structure, structure.gather(full.detach()).clone()


def resize_to_saved(module: nn.Module, names: Mapping[str, str], state_dict: dict[str, Any], prefix: str) -> None:
    """Resize parameters to saved values, because a rewired layer may have another number of weights than at first.

    The parameters stay the same objects, since an optimizer refers to them. A masked layer's checkpoint holds a matrix
    [out, in] and its mask; these are compressed first.

    Args:
        module: the layer that is about to load.
        names: name of each weight → name of its structure.
        state_dict: the saved values, changed in place.
        prefix: of the layer's names in ``state_dict``.
    """
    for name, structure in names.items():
        mask = state_dict.pop(f"{prefix}{name}_mask", None)
        if mask is not None:
            found, state_dict[prefix + name] = compressed(state_dict[prefix + name], mask)
            state_dict |= {f"{prefix}{structure}.{part}": held for part, held in found.state_dict().items()}
        parameter, saved = getattr(module, name), state_dict.get(prefix + name)
        if isinstance(saved, Tensor) and saved.dim() == 1 and saved.shape != parameter.shape:
            parameter.data = torch.empty_like(saved, device=parameter.device)
