"""Batches on their way to the device."""

from collections.abc import Iterator

import torch

from sparse_bench.batch import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Each batch on ``device``; its copy is asked for before the one before it is worked on, and the host waits for
    neither."""
    pinned = device.type == "cuda"
    ahead: Batch | None = None
    for batch in batches:
        moved = (batch.pin_memory() if pinned else batch).to(device)
        if ahead is not None:
            yield ahead
        ahead = moved
    if ahead is not None:
        yield ahead
