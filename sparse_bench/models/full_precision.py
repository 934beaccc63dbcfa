"""Parts of a model under autocast: those that need full precision, and casts that several layers share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """A context without autocast on ``tensor``'s device. Tensors used inside it must already be float32 or float64."""
    # The meta device has no autocast; even asking whether it is enabled would fail.
    if tensor.is_meta or not torch.is_autocast_enabled(tensor.device.type):
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def lowered(x: Tensor) -> Tensor:
    """``x`` in autocast's type, for several layers that would each cast it; without autocast ``x`` itself."""
    if x.is_meta or x.dtype != torch.float32 or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))
