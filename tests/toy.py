"""The smallest task and model that exercise every seam: points in the plane, classified by a small network."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Batch, Loss
from sparse_bench.models.base import Model
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Chance, Task


@dataclass
class ToyBatch(Batch):
    points: Tensor
    labels: Tensor


class ToyTask(Task):
    name = "toy"
    monitor = ("accuracy", "max")
    metrics = ("accuracy", "cross_entropy")
    splits = ("valid", "test")

    def __init__(self, *, examples: int = 96, batch_size: int = 16, bad_step: int | None = None) -> None:
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        draw = np.random.default_rng(0)
        self._points = draw.normal(size=(examples, 8)).astype(np.float32)
        self._labels = (self._points[:, :4].sum(1) > self._points[:, 4:].sum(1)).astype(np.int64)
        self._batch_size, self._bad_step = batch_size, bad_step
        self.sizes = {"inputs": 8, "classes": 2}

    def _batch(self, rows: np.ndarray) -> ToyBatch:
        return ToyBatch(torch.from_numpy(self._points[rows]), torch.from_numpy(self._labels[rows]))

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[Batch]:
        order = streams.numpy("data", epoch).permutation(len(self._points))
        for step, start in enumerate(range(0, len(order), self._batch_size)):
            batch = self._batch(order[start : start + self._batch_size])
            if step == self._bad_step:
                batch.points = batch.points * float("inf")
            yield batch

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return -(-len(self._points) // self._batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, ToyBatch)
        loss = F.cross_entropy(model(batch.points), batch.labels)
        rows = batch.labels.shape[0]
        return Loss(loss, {"cross_entropy": loss.detach()}, examples=rows, tokens=rows)

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        device = next(model.parameters()).device
        batch = self._batch(np.arange(4 if few else len(self._points))).to(device)
        logits = model(batch.points).float()
        return {
            "accuracy": (logits.argmax(1) == batch.labels).float().mean().item(),
            "cross_entropy": F.cross_entropy(logits, batch.labels).item(),
        }

    def checksums(self) -> dict[str, str]:
        return {"points": hashlib.sha256(self._points.tobytes()).hexdigest()}


class GuessedTask(ToyTask):
    """One that no model beats guessing on."""

    def chance(self, split: str) -> Chance:
        return {"accuracy": (1.0, "max")}


class ToyModel(Model):
    tasks: ClassVar = ("toy",)
    groups: ClassVar = ("default", "first", "output")

    def __init__(self, sizes: dict[str, int], *, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(sizes["inputs"], width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, sizes["classes"])

    def forward(self, points: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.first(points)))
        return self.output(torch.relu(self.second(hidden)))

    def layer_groups(self) -> dict[str, list[str]]:
        return {
            "default": ["first.weight", "second.weight"],
            "first": ["first.weight"],
            "output": ["output.weight"],
        }

    @classmethod
    def widths(cls, settings: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"width": width} for width in range(1, settings.get("width", 16) + 1)]
