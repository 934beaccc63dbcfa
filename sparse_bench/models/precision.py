"""Parts of a model that keep full precision under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """A context without autocast on ``tensor``'s device; what is used inside it has to be float32 already."""
    # The meta device knows no autocast, not even to ask whether it is on.
    if tensor.is_meta or not torch.is_autocast_enabled(tensor.device.type):
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
