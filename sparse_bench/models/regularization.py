"""L2 penalty: the sum of squared weights, collected during the forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def add_penalty_(gradient: Tensor, weight: Tensor, factor: Tensor, only_where_positive: bool) -> Tensor:
    """Add the gradient of ``factor`` · Σ w² to ``gradient`` in place. For the last argument, see :class:`Penalty`."""
    if only_where_positive:
        return gradient.add_(torch.where(gradient > 0, weight * (2 * factor), 0.0))
    return gradient.addcmul_(weight, 2 * factor)


class _PenaliseWherePositive(torch.autograd.Function):
    """Return the weight and Σ w². All uses of the weight must go through this, since their gradients are tested."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        return weight.view_as(weight), weight.square().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        # A copy, because autograd may use the same tensor elsewhere.
        return add_penalty_(gradients[0].clone(), weight, gradients[1], only_where_positive=True)


class Penalty:
    """Σ w² over the weights of a forward pass.

    Args:
        only_where_positive: apply the penalty only to elements of a weight where the gradient of the other losses is
            above 0. This is a bug of the released Rasa code, which meant to skip elements without a gradient.
    """

    def __init__(self, only_where_positive: bool = False) -> None:
        self.only_where_positive = only_where_positive
        self._squares: list[Tensor] = []

    def add(self, squares: Tensor) -> None:
        """Add a sum of squares (scalar) to the penalty."""
        self._squares.append(squares)

    def weight(self, weight: Tensor) -> Tensor:
        """Add Σ w² of ``weight`` to the penalty. The model must use the returned tensor in its place."""
        if not self.only_where_positive:
            self.add(weight.square().sum())
            return weight
        used, squares = _PenaliseWherePositive.apply(weight)
        self.add(squares)
        return used

    def call(self, module: nn.Module, *arguments: Any, name: str = "weight") -> Tensor:
        """Return ``module(*arguments)``, and add its weight ``name`` (a dotted path) to the penalty."""
        owner, _, attribute = name.rpartition(".")
        weight = getattr(module.get_submodule(owner), attribute)
        used = self.weight(weight)
        output: Tensor = module(*arguments) if used is weight else functional_call(module, {name: used}, arguments)
        return output

    def sum(self) -> Tensor:
        """Σ w² over all added weights (scalar)."""
        return torch.stack(self._squares).sum()


def call(penalty: Penalty | None, module: nn.Module, *arguments: Any, name: str = "weight") -> Tensor:
    """:meth:`Penalty.call`, or ``module(*arguments)`` if there is no penalty."""
    if penalty is not None:
        return penalty.call(module, *arguments, name=name)
    output: Tensor = module(*arguments)
    return output
