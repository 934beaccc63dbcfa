"""Batches: the small dataclasses of tensors that a task hands to a model.

Sequences are packed: the positions of all sequences of a batch follow each other without padding. Token-wise layers
therefore work on real tokens only. Attention and CRF move the positions to a padded grid and back. They use index
tensors that the host computed when it collated the batch, so no synchronisation with the device is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


@dataclass
class Batch:
    """A dataclass of tensors, or of further batches, that is moved as a whole."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to every tensor, and keep all other values."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            return value.map(function) if isinstance(value, Batch) else value

        return dataclasses.replace(
            self, **{field.name: apply(getattr(self, field.name)) for field in dataclasses.fields(self)}
        )

    def to(self, device: torch.device) -> Self:
        """Copy to ``device``. A copy to a GPU is asynchronous if the tensors are pinned; a copy to the CPU never is."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=device.type != "cpu"))

    def pin_memory(self) -> Self:
        """Copy into page-locked memory. From there a copy to a GPU can overlap with the GPU's work."""
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
    """Places of the M packed positions of B sequences on the padded grid [B, S]; S is the longest length.

    Attributes:
        position: index of each packed position within its sequence [M].
        grid: packed row of every grid cell [B, S]; padding cells hold row 0.
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
        """Make the layout of sequences with these ``lengths`` [B], each at least 1, on the host."""
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
    """The loss of one batch, as the trainer needs it.

    Attributes:
        total: the scalar to differentiate.
        parts: named detached scalars, logged as means over the epoch.
        examples: number of examples in the batch (host integer).
        tokens: number of tokens in the batch (host integer).
        learning_rate_factor: an extra factor on the learning rate of the step that this batch belongs to, for tasks
            whose batches differ in length by design.
    """

    total: Tensor
    parts: dict[str, Tensor]
    examples: int
    tokens: int
    learning_rate_factor: float = 1.0


def as_logits(scores: Tensor) -> Tensor:
    """``scores`` themselves, which enter a softmax of the loss; a torch function mode can find or change them here.

    A loss without :func:`torch.nn.functional.cross_entropy` calls this, as nobody else could tell its logits.
    """
    if has_torch_function_unary(scores):
        found: Tensor = handle_torch_function(as_logits, (scores,), scores)
        return found
    return scores
