"""Dropout with fast random numbers on a CPU.

``torch.nn.functional.dropout`` draws one Bernoulli number per element. On a CPU this takes several times as long as the
rest of its work. Here a 64-bit random number is split into four 16-bit numbers ("coins"). An element is dropped if its
coin is below a threshold. A rate is therefore rounded to a multiple of 2^-16: 0.2 becomes 13107/65536 = 0.199997. Kept
elements are divided by the true probability of keeping, so the expectation is exact.

All random numbers come from torch's default generator. A run that restores the generator's state draws the same ones.
On a CPU compiled code draws them where there is a compiler; its results have the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.errors import ConfigError
from sparse_bench.kernels.dropout import draw_keep, draws, drop, drops, rescale

_SIDES = 1 << 16
_COINS_PER_DRAW = 4


def check_rate(rate: float, name: str) -> float:
    """Return ``rate`` if it is a valid dropout rate.

    Raises:
        ConfigError: unless 0 ≤ ``rate`` < 1.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"{name} = {rate} is not a dropout rate. Valid choices: numbers from 0 to less than 1.")
    return rate


def keep_probability(rate: float) -> float:
    """The probability of keeping an element at dropout ``rate``, a multiple of 2^-16."""
    return 1 - round(rate * _SIDES) / _SIDES


def keep_mask(shape: torch.Size, rate: float, device: torch.device) -> Tensor:
    """Draw an independent mask: uint8 [shape], 1 with probability :func:`keep_probability` and 0 otherwise."""
    if draws(device):
        return draw_keep(shape, _threshold(rate))
    elements = shape.numel()
    # The default range never sets the highest bit, so one coin in four would be biased.
    numbers = torch.empty(-(-elements // _COINS_PER_DRAW), dtype=torch.int64, device=device).random_(-(2**63), None)
    coins = numbers.view(torch.int16)[:elements].view(shape)
    return (coins >= _threshold(rate)).view(torch.uint8)


def _threshold(rate: float) -> int:
    """The least coin that keeps an element, seen as a signed number."""
    return round(rate * _SIDES) - _SIDES // 2


class _Dropped(torch.autograd.Function):
    """x ⊙ keep · scale. It saves the mask with one byte per element, not the mask times the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.factor = 1 / keep_probability(rate)
        if drops(x):
            y, keep = drop(x, _threshold(rate), ctx.factor)
        else:
            keep = keep_mask(x.shape, rate, x.device)
            y = _rescaled(x, keep, ctx.factor)
        ctx.save_for_backward(keep)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,), gradient = ctx.saved_tensors, gradients[0]
        # A gradient of the gradient needs torch's own functions.
        compiled = drops(gradient) and not torch.is_grad_enabled()
        return (rescale if compiled else _rescaled)(gradient, keep, ctx.factor), None


def _rescaled(x: Tensor, keep: Tensor, factor: float) -> Tensor:
    """x ⊙ keep · factor by torch."""
    # With a scalar tensor the product has x's type; a Python number would make it float32.
    return x * (keep * torch.tensor(factor, dtype=x.dtype))


class Dropout(nn.Module):
    """Inverted dropout: in training an element becomes 0 with probability ``rate``, else it is divided by 1 − ``rate``.

    Args:
        rate: from 0 to less than 1. It is exact on a GPU, and elsewhere rounded to a multiple of 2^-16.

    Raises:
        ConfigError: the rate is outside this range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate(rate, "dropout")

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to ``x`` of any shape. In evaluation mode and at rate 0 this returns ``x`` itself."""
        if not self.training or self.rate == 0:
            return x
        if x.is_cuda:
            return F.dropout(x, self.rate)
        dropped: Tensor = _Dropped.apply(x, self.rate)
        return dropped

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"
