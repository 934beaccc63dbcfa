"""Parts that several models share: linear layers initialised as in Keras, and sinusoids for positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dense(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer initialised as in Keras: Glorot-uniform weight, zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def sinusoids(length: int, size: int, device: torch.device) -> Tensor:
    """Position table [length, size]: sine at even and cosine at odd features i of p / 10000^(2⌊i/2⌋ / size)."""
    exponents = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * torch.pow(10000.0, -exponents)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]
