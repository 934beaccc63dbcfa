"""Transfer of batches to the device."""

from collections.abc import Iterator

import torch

from sparse_bench.batch import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield each batch on ``device``. Its copy starts before the previous batch is used, and the host does not wait."""
    pinned = device.type == "cuda"
    ahead: Batch | None = None
    for batch in batches:
        moved = (batch.pin_memory() if pinned else batch).to(device)
        if ahead is not None:
            yield ahead
        ahead = moved
    if ahead is not None:
        yield ahead
