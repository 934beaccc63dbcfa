"""What a dialogue model is built from and trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch, Layout


@dataclass
class DialogueBatch(Batch):
    """B conversations up to a prediction, M turns in all; the packed sequence of each begins with its latest turn.

    Attributes:
        turns: number of the value that each turn has of each attribute, in the order of
            :attr:`DialogueSizes.attributes`; the number of values where it has none [M, attributes], int64.
        layout: of the sequences (M positions).
        latest_rows: packed row of each conversation's latest turn, position 0 [B].
        actions: what the assistant does next [B], int64.
    """

    turns: Tensor
    layout: Layout
    latest_rows: Tensor
    actions: Tensor


@dataclass(frozen=True)
class Attribute:
    """One of the things that a turn may have, an intent or a set of entities say.

    Attributes:
        values: the 0/1 features of every value that occurs, one row a value (on the CPU) [values, features], float32.
    """

    values: Tensor


@dataclass(frozen=True)
class DialogueSizes:
    """What a dialogue model must know of its data before it is built.

    Attributes:
        attributes: those that turns have in the training data, by name: ``intent`` and ``previous_action``, and any of
            ``entities``, ``slots`` and ``loop``.
        actions: number of actions of the domain.
    """

    attributes: dict[str, Attribute]
    actions: int
