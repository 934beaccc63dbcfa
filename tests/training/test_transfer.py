"""Batches on their way to the device."""

from collections.abc import Iterator
from typing import Any

import torch

from sparse_bench.training.transfer import on_device
from tests.toy import ToyBatch


def test_every_batch_comes_once_in_order_and_one_is_asked_for_ahead() -> None:
    made: list[int] = []

    def batches() -> Iterator[ToyBatch]:
        for number in range(3):
            made.append(number)
            yield ToyBatch(torch.tensor([float(number)]), torch.tensor([number]))

    moved: Any = on_device(batches(), torch.device("cpu"))
    assert [(int(batch.labels), len(made)) for batch in moved] == [(0, 2), (1, 3), (2, 3)]
    assert list(on_device(iter(()), torch.device("cpu"))) == []


def test_batches_are_moved() -> None:
    """The device ``meta`` is not the one that they are made on."""
    batch = ToyBatch(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    (moved,) = on_device(iter([batch]), torch.device("meta"))
    assert isinstance(moved, ToyBatch)
    assert (moved.points.device.type, moved.labels.device.type) == ("meta", "meta")
