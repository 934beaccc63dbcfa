"""Layer normalisation that adds ε to the standard deviation, as old Keras transformers do, not to the variance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: ε of torch's own kernel, added to the variance. It keeps constant rows at zero and changes no other row.
_TINY = 1e-30


class _StdLayerNorm(torch.autograd.Function):
    """γ (x − μ) / (σ + ε) + β over the last dimension, by torch's fused kernel and one or two cheap passes.

    The kernel computes x̂ = (x − μ) / σ. With s = σ / (σ + ε) the value is γ x̂ s + β.

    With g = γ · ∂y, the gradient of x is ((g − mean(g)) − (x − μ) mean(g x̂) / (σ + ε)) / (σ + ε). The kernel computes
    just that if it gets √s · ∂y as gradient and 1/√(σ (σ + ε)) as reciprocal standard deviation. The same substitution
    gives the right gradient of γ, because x̂ s = √s · (x − μ) / √(σ (σ + ε)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normalised, mean, reciprocal = torch.native_layer_norm(x, x.shape[-1:], weight, bias, _TINY)
        shrink = 1 / (1 + eps * reciprocal)
        ctx.save_for_backward(x, weight, bias, mean, reciprocal, shrink)
        return torch.lerp(bias, normalised, shrink)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, bias, mean, reciprocal, shrink = ctx.saved_tensors
        root = shrink.sqrt()
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradients[0] * root, x, x.shape[-1:], mean, reciprocal * root, weight, bias, [True, True, False]
        )
        return grad_x, grad_weight, gradients[0].flatten(0, -2).sum(0), None


class StdLayerNorm(nn.Module):
    """γ (x − μ) / (σ + ε) + β over the last dimension; σ is the standard deviation of all its elements.

    :class:`torch.nn.LayerNorm`, in contrast, divides by √(σ² + ε). An ε of 1e-6 here is about 1e-12 there.

    Args:
        size: length of the last dimension.
        eps: ε.
    """

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` [..., size], which has at least two dimensions."""
        normalised: Tensor = _StdLayerNorm.apply(x, self.weight, self.bias, self.eps)
        return normalised

    def extra_repr(self) -> str:
        """Size and ε."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
