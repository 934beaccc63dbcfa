"""Checks of the arguments of the project's kernels, which read memory without any checks of their own."""

from typing import Protocol

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64)


class Weight(Protocol):
    """A sparse weight [out, in]: its structure, or a kernel's own form of it."""

    @property
    def out_features(self) -> int:
        """Rows."""

    @property
    def in_features(self) -> int:
        """Columns."""

    @property
    def entries(self) -> int:
        """Number of stored entries."""

    @property
    def device(self) -> torch.device:
        """Device of its indices."""


def check_product(
    x: Tensor, weight: Weight, values: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None
) -> None:
    """Check the arguments of y = x Wᵀ + b: ``x`` [..., in], ``values`` [entries] and ``bias`` [out] or None.

    Values and bias have to be of ``dtype``; None: that of ``x``.

    Raises:
        ValueError: sizes, dtypes or devices do not match.
    """
    dtype, device = dtype or x.dtype, x.device
    if dtype not in _DTYPES or values.dtype != dtype or (bias is not None and bias.dtype != dtype):
        given = [x.dtype, values.dtype, *([] if bias is None else [bias.dtype])]
        raise ValueError(
            "the kernel needs input, values and bias all in float32 or all in float64, or on the CPU an input in "
            f"bfloat16 with the others in float32, not {given}"
        )
    if weight.device != device or values.device != device or (bias is not None and bias.device != device):
        places = [f"input on {device}", f"structure on {weight.device}", f"values on {values.device}"]
        places += [] if bias is None else [f"bias on {bias.device}"]
        raise ValueError(f"everything must be on one device, not {', '.join(places)}")
    if x.dim() == 0 or x.shape[-1] != weight.in_features:
        raise ValueError(f"the input must be [..., {weight.in_features}], not {list(x.shape)}")
    if values.dim() != 1 or values.numel() != weight.entries:
        raise ValueError(f"the values must be [{weight.entries}], not {list(values.shape)}")
    if bias is not None and (bias.dim() != 1 or bias.numel() != weight.out_features):
        raise ValueError(f"the bias must be [{weight.out_features}], not {list(bias.shape)}")
