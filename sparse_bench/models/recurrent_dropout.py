"""Dropout for recurrent language models: locked over time, of whole words, and of recurrent weights.

All three are inverted dropout with the random numbers of :mod:`sparse_bench.models.dropout`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparse_bench.models.dropout import Dropout, check_rate, keep_mask, keep_probability

#: Name of the hidden-to-hidden matrix in each of torch's recurrent layers.
_HIDDEN_WEIGHT = "weight_hh_l0"


def _factors(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    """Factors [shape] of ``like``'s type: 0 with probability ``rate``, else 1 / the probability of keeping."""
    if like.is_cuda:
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - rate).div_(1 - rate)
    return keep_mask(torch.Size(shape), rate, like.device).to(like.dtype).div_(keep_probability(rate))


class LockedDropout(nn.Module):
    """Dropout with one mask for all time steps (Gal and Ghahramani 2016; Merity et al. 2018, section 4.2).

    Args:
        rate: from 0 to less than 1.

    Raises:
        ConfigError: the rate is outside this range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate(rate, "dropout")

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to ``x`` [T, B, H]. In evaluation mode and at rate 0 this returns ``x`` itself."""
        if not self.training or self.rate == 0:
            return x
        return x * _factors((1, *x.shape[1:]), self.rate, x)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


class WordDropout(nn.Module):
    """Dropout of whole rows of an embedding (Merity et al. 2018, section 4.3).

    A dropped word is zero wherever it occurs. The looked-up rows are scaled, not the matrix: the result is the same
    and the cost lower.

    Args:
        rate: from 0 to less than 1.

    Raises:
        ConfigError: the rate is outside this range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate(rate, "word dropout")

    def forward(self, embedded: Tensor, words: Tensor, vocabulary: int) -> Tensor:
        """Apply dropout to ``embedded`` [T, B, H], the rows of ``words`` [T, B]. Words are below ``vocabulary``."""
        if not self.training or self.rate == 0:
            return embedded
        return embedded * _factors((vocabulary,), self.rate, embedded)[words].unsqueeze(-1)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


class WeightDrop(nn.Module):
    """Calls a recurrent layer with dropout on its recurrent weights (Wan et al. 2013; Merity et al. 2018, section 2).

    Each call draws one mask for all time steps. The layer's parameters are not changed; the call uses other values in
    their place. The recurrent weights are every ``weight_hh_l0`` in the layer or in its submodules.

    Args:
        rate: from 0 to less than 1.

    Raises:
        ConfigError: the rate is outside this range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop = Dropout(rate)

    def forward(self, layer: nn.Module, x: Tensor, state: tuple[Tensor, ...] | None) -> Any:
        """Return ``layer(x, state)``, computed with dropped weights in training."""
        if not self.training or self.drop.rate == 0:
            return layer(x, state)
        dropped = {
            name: self.drop(weight)
            for name, weight in layer.named_parameters()
            if name.rpartition(".")[2] == _HIDDEN_WEIGHT
        }
        return functional_call(layer, dropped, (x, state))
