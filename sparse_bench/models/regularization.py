"""Squared-weight penalty, as a sum that is gathered during the forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def add_penalty_(gradient: Tensor, weight: Tensor, factor: Tensor, only_where_positive: bool) -> Tensor:
    """Add the gradient of ``factor`` · Σ w² to ``gradient``, in place; see :class:`Penalty` for the last argument."""
    if only_where_positive:
        return gradient.add_(torch.where(gradient > 0, weight * (2 * factor), 0.0))
    return gradient.addcmul_(weight, 2 * factor)


class _PenaliseWherePositive(torch.autograd.Function):
    """The weight, and Σ w². The gradients of all uses of the weight have to arrive here, so that they can be judged."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        return weight.view_as(weight), weight.square().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        # A copy: autograd may have given the same tensor to someone else.
        return add_penalty_(gradients[0].clone(), weight, gradients[1], only_where_positive=True)


class Penalty:
    """Σ w² over the weights of a forward pass.

    Args:
        only_where_positive: let the penalty act only on elements of a weight in which the gradient of the rest of the
            loss is above 0. A quirk of the released Rasa code, which meant to leave alone what has no gradient.
    """

    def __init__(self, only_where_positive: bool = False) -> None:
        self.only_where_positive = only_where_positive
        self._squares: list[Tensor] = []

    def add(self, squares: Tensor) -> None:
        """Count a sum of squares."""
        self._squares.append(squares)

    def weight(self, weight: Tensor) -> Tensor:
        """Count ``weight``. The result has to be used in its place."""
        if not self.only_where_positive:
            self.add(weight.square().sum())
            return weight
        used, squares = _PenaliseWherePositive.apply(weight)
        self.add(squares)
        return used

    def call(self, module: nn.Module, *arguments: Any, name: str = "weight") -> Tensor:
        """``module(*arguments)``, with its weight ``name`` (a dotted path) counted."""
        owner, _, attribute = name.rpartition(".")
        weight = getattr(module.get_submodule(owner), attribute)
        used = self.weight(weight)
        output: Tensor = module(*arguments) if used is weight else functional_call(module, {name: used}, arguments)
        return output

    def sum(self) -> Tensor:
        """Σ w² over all counted weights (scalar)."""
        return torch.stack(self._squares).sum()


def call(penalty: Penalty | None, module: nn.Module, *arguments: Any, name: str = "weight") -> Tensor:
    """:meth:`Penalty.call`, or ``module(*arguments)`` if there is no penalty."""
    if penalty is not None:
        return penalty.call(module, *arguments, name=name)
    output: Tensor = module(*arguments)
    return output
