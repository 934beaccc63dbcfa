"""Squared-weight penalty whose gradient joins the prediction's in one pass over the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparse_bench.models.sparse_features import SparseProjection


class _Penalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, only_where_positive: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        ctx.only_where_positive = only_where_positive
        ctx.set_materialize_grads(False)
        flat = weight.reshape(-1)
        return weight.view_as(weight), torch.dot(flat, flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        from_use, from_penalty = gradients
        (weight,) = ctx.saved_tensors
        if from_penalty is None:
            return from_use, None
        if from_use is None:
            # A weight that no prediction depends on: the released code's condition is never met.
            return (torch.zeros_like(weight) if ctx.only_where_positive else weight * (2 * from_penalty)), None
        total = torch.addcmul(from_use, weight, 2 * from_penalty)
        return (torch.where(from_use > 0, total, from_use) if ctx.only_where_positive else total), None


def penalise(weight: Tensor, only_where_positive: bool = False) -> tuple[Tensor, Tensor]:
    """The weight to compute with, and its sum of squares.

    Computing with the first result instead of ``weight`` lets the gradients of both meet here and be added in one
    pass, which counts where the weight has millions of elements and each step touches few of them.

    Args:
        weight: any shape.
        only_where_positive: drop the penalty's gradient from every element in which the gradient of the rest of the
            loss is not above 0. A quirk of the released Rasa code, which meant to leave weights without a gradient
            alone; it needs the first result to be used in place of ``weight``.

    Returns:
        ``weight`` itself as seen by autograd, and Σ weight² (scalar).
    """
    used, squares = _Penalise.apply(weight, only_where_positive)
    return used, squares


class Penalty:
    """Calls modules and gathers the squares of their weights on the way.

    Args:
        only_where_positive: see :func:`penalise`.
    """

    def __init__(self, only_where_positive: bool = False) -> None:
        self._only_where_positive = only_where_positive
        self._squares: list[Tensor] = []

    def weight(self, weight: Tensor) -> Tensor:
        """The weight to compute with, counted."""
        used, squares = penalise(weight, self._only_where_positive)
        self._squares.append(squares)
        return used

    def call(self, module: nn.Module, *arguments: Any, name: str = "weight") -> Tensor:
        """``module(*arguments)``, its weight ``name`` (a dotted path) counted."""
        owner, _, attribute = name.rpartition(".")
        used = self.weight(getattr(module.get_submodule(owner), attribute))
        if isinstance(module, SparseProjection):
            output: Tensor = module(*arguments, weight=used)
        elif self._only_where_positive:
            output = functional_call(module, {name: used}, arguments)
        else:
            # A small weight's two gradients may as well be added by autograd: putting the other tensor in its place
            # costs more than it saves.
            output = module(*arguments)
        return output

    def sum(self) -> Tensor:
        """Σ w² over all counted weights (scalar)."""
        return torch.stack(self._squares).sum()
