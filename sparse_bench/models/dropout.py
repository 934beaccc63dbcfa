"""Dropout whose noise is cheap on a CPU.

``torch.nn.functional.dropout`` draws one Bernoulli number per element, which on a CPU takes several times as long as
everything else it does. Here a 64-bit random number is cut into four 16-bit coins, and an element is dropped when its
coin is below a threshold. A rate is therefore a multiple of 2^-16; the nearest one is taken (0.2 becomes
13107/65536 = 0.199997) and kept elements are divided by the true probability of keeping, so the expectation is exact.

All noise comes from torch's default generator: a run that restores the generator's state draws the same noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.errors import ConfigError

_SIDES = 1 << 16
_COINS_PER_DRAW = 4


def check_rate(rate: float, name: str) -> float:
    """``rate`` itself, if it is a dropout rate.

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
    """Independent coins: uint8 [shape], 1 with probability :func:`keep_probability` and 0 otherwise."""
    elements = shape.numel()
    # The range has to be given: the default one never sets the highest bit, and that coin would be biased.
    draws = torch.empty(-(-elements // _COINS_PER_DRAW), dtype=torch.int64, device=device).random_(-(2**63), None)
    coins = draws.view(torch.int16)[:elements].view(shape)
    return (coins >= round(rate * _SIDES) - _SIDES // 2).view(torch.uint8)


class _Masked(torch.autograd.Function):
    """x ⊙ keep · scale. Saves the mask of one byte an element, not its product with the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        # A scalar tensor of x's type makes the product of that type; a Python number would make it float32.
        ctx.scale = torch.tensor(scale, dtype=x.dtype)
        return x * (keep * ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return gradients[0] * (keep * ctx.scale), None, None


class Dropout(nn.Module):
    """Inverted dropout: in training an element is 0 with probability ``rate`` and otherwise divided by 1 − ``rate``.

    Args:
        rate: from 0 to less than 1. On a GPU it is exact, elsewhere the nearest multiple of 2^-16.

    Raises:
        ConfigError: for a rate outside this range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate(rate, "dropout")

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type of ``x`` are kept; in evaluation mode and at rate 0 it is returned as it is."""
        if not self.training or self.rate == 0:
            return x
        if x.is_cuda:
            return F.dropout(x, self.rate)
        return _Masked.apply(x, keep_mask(x.shape, self.rate, x.device), 1 / keep_probability(self.rate))

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"
