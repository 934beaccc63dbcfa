"""What travels from a task to a model: small dataclasses of tensors, and nothing else.

Sequences are packed: the positions of all sequences of a batch follow each other without padding, so that
token-wise layers work on real tokens only. Attention and CRF lay them out on a padded grid and back, with index
tensors that the host computed while it collated the batch (no synchronisation with the device).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass
class Batch:
    """A dataclass of tensors (and of such dataclasses) that moves as a whole."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with ``function`` applied to every tensor; other values are kept."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            return value.map(function) if isinstance(value, Batch) else value

        return dataclasses.replace(
            self, **{field.name: apply(getattr(self, field.name)) for field in dataclasses.fields(self)}
        )

    def to(self, device: torch.device) -> Self:
        """Copy to ``device``; asynchronous to a GPU where the tensors are pinned. Nobody would wait for one back."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=device.type != "cpu"))

    def pin_memory(self) -> Self:
        """Copy into page-locked memory, from which a copy to a GPU can overlap with its work."""
        return self.map(lambda tensor: tensor.pin_memory())


@dataclass
class SparseRows(Batch):
    """Rows of a sparse feature matrix, in the layout of :class:`torch.nn.EmbeddingBag`.

    Attributes:
        indices: feature numbers of all stored values, row after row [nnz], int64.
        offsets: where each row starts in ``indices`` [rows], int64.
        values: the stored values [nnz], float32.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.offsets.shape[0]


@dataclass
class Layout(Batch):
    """Where the M packed positions of B sequences stand on the padded grid [B, S], S the longest length.

    Attributes:
        position: index of each packed position within its sequence [M].
        grid: packed row of every grid cell [B, S]; padding cells point at row 0.
        mask: True where a grid cell holds a real position [B, S].
        cell: flat grid index (b·S + s) of each packed position [M].
        lengths: number of positions of each sequence [B].
    """

    position: Tensor
    grid: Tensor
    mask: Tensor
    cell: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray) -> Layout:
        """The layout of sequences with these lengths (every length at least 1), made on the host."""
        lengths = np.asarray(lengths, dtype=np.int64)
        longest = int(lengths.max())
        mask = np.arange(longest)[None, :] < lengths[:, None]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        grid = np.where(mask, starts[:, None] + np.arange(longest)[None, :], 0)
        row, column = np.nonzero(mask)
        return cls(
            position=torch.from_numpy(column),
            grid=torch.from_numpy(grid),
            mask=torch.from_numpy(mask),
            cell=torch.from_numpy(row * longest + column),
            lengths=torch.from_numpy(lengths),
        )


@dataclass
class Loss:
    """What one batch's forward pass gives the trainer.

    Attributes:
        total: the scalar to differentiate.
        parts: named detached scalars, logged as means over the epoch.
        examples: number of examples in the batch (host integer).
        tokens: number of tokens in the batch (host integer).
        learning_rate_factor: factor on the learning rate of the step that this batch belongs to, beside the schedule's.
            For tasks whose batches differ in length by design.
    """

    total: Tensor
    parts: dict[str, Tensor]
    examples: int
    tokens: int
    learning_rate_factor: float = 1.0
