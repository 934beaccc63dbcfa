"""Batches and sizes for dialogue models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_bench.batch.base import Batch, Layout


@dataclass
class DialogueBatch(Batch):
    """B conversations up to a prediction, with M turns in total. Each packed sequence starts with its latest turn.

    Attributes:
        turns: each turn's value of each attribute, as a number [M, attributes], int64. Columns follow
            :attr:`DialogueSizes.attributes`. If a turn does not have the attribute, the entry is the number of values.
        layout: layout of the sequences (M positions).
        latest_rows: packed row of each conversation's latest turn, position 0 [B].
        actions: the assistant's next action [B], int64.
    """

    turns: Tensor
    layout: Layout
    latest_rows: Tensor
    actions: Tensor


@dataclass(frozen=True)
class Attribute:
    """An attribute that a turn may have, for example an intent or a set of entities.

    Attributes:
        values: the features of every occurring value, from 0 to 1, one row per value [values, features], float32, on
            the CPU.
        frequencies: in how many turns of the training data each feature occurs, empty if they were not counted.
    """

    values: Tensor
    frequencies: tuple[int, ...] = ()


@dataclass(frozen=True)
class DialogueSizes:
    """The sizes of the data from which a dialogue model is built.

    Attributes:
        attributes: the attributes of turns in the training data, by name: ``intent`` and ``previous_action``, and any
            of ``entities``, ``slots`` and ``loop``.
        actions: number of actions of the domain.
    """

    attributes: dict[str, Attribute]
    actions: int
