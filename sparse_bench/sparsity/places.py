"""Places in a matrix: numbers of its entries, row after row, as every scheme and every kind of weight names them.

What goes and what comes is decided at these places on the host.
"""

import numpy as np
import torch
from torch import Tensor


def places_of(mask: Tensor) -> Tensor:
    """Where a boolean tensor is true, as if it were flat: int64, ascending."""
    flat = mask.reshape(-1)
    if flat.is_cpu:  # NumPy takes two thirds of the time of torch
        return torch.from_numpy(np.flatnonzero(flat.numpy()))
    return flat.nonzero().squeeze(1)


def on_host(values: Tensor) -> np.ndarray:
    """Real numbers for NumPy, which knows float32 and float64 alone."""
    known = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return known.detach().cpu().numpy()
