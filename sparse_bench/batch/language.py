"""What a language model is built from and trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch


@dataclass
class LanguageBatch(Batch):
    """T consecutive tokens of B text streams and their successors.

    Attributes:
        inputs: token numbers [T, B], int64.
        targets: the token after each of them [T, B], int64.
        learning_rate_factor: T over the nominal length, where the task rescales the rate (host number).
        starts: whether the streams begin here: the hidden state is zero (host boolean).
    """

    inputs: Tensor
    targets: Tensor
    learning_rate_factor: float = 1.0
    starts: bool = False


@dataclass(frozen=True)
class LanguageSizes:
    """What a language model must know of its data before it is built.

    Attributes:
        vocabulary: number of word types.
    """

    vocabulary: int
