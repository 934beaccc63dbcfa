"""Autocast and loss scaling for one run."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp import GradScaler

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The numeric precision of a run. Sets torch's global switches for TF32.

    ``fp32``: full precision everywhere. ``tf32``: GPUs may round the factors of products to ten bits of mantissa;
    torch's own default allows that in cuDNN, but not in other products. ``bf16``: autocast. ``fp16``: autocast, with a
    gradient scaler against underflow.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
        self.name = name
        self._dtype = _DTYPES.get(name)
        self._device_type = device.type
        self.scaler = GradScaler(device.type, enabled=name == "fp16")

    @property
    def reduced(self) -> bool:
        """Whether autocast is on, which torch does not support for every operation and device."""
        return self._dtype is not None

    def autocast(self) -> AbstractContextManager[object]:
        """The context for a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self._dtype)
