"""Held-out batches follow the model from device to device, and are copied there once."""

import torch
from torch import nn

from sparse_bench.tasks.held_out import HeldOut
from tests.toy import ToyBatch


def test_batches_are_copied_once_to_where_the_model_is() -> None:
    batch = ToyBatch(points=torch.ones(3, 8), labels=torch.zeros(3, dtype=torch.int64))
    held_out = HeldOut(batch for _ in range(2))
    here, there = nn.Linear(8, 2), nn.Linear(8, 2, device="meta")

    first = held_out.on_device_of(here)
    assert [found.points.device.type for found in first] == ["cpu", "cpu"]
    assert torch.equal(first[0].points, batch.points)
    assert held_out.on_device_of(here) is first

    moved = held_out.on_device_of(there)
    assert [found.labels.device.type for found in moved] == ["meta", "meta"]
    assert held_out.on_device_of(there) is moved
