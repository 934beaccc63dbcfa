"""The interface between a task and the trainer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

from torch import nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.streams import Streams
from sparse_bench.tasks.shares import twin_share

#: What guessing reaches: metric → its value, and whether more or less of it is better.
Chance = dict[str, tuple[float, Literal["max", "min"]]]


class Task(ABC):
    """A corpus and what is learned from it. Knows no model beyond the calls that the task's own protocol names."""

    #: Name that a model lists in its ``tasks`` to say that it can learn this.
    name: ClassVar[str]
    #: Metric that selects the best checkpoint, and whether more or less of it is better.
    monitor: ClassVar[tuple[str, Literal["max", "min"]]]
    #: Metrics that the watched split may have, :attr:`monitor`'s among them: a setting that names another is refused
    #: before training.
    metrics: ClassVar[tuple[str, ...]]
    #: Splits that :meth:`evaluate` accepts; the first one is watched during training.
    splits: ClassVar[tuple[str, ...]]

    #: What the task was made from, with the ``checksums`` of its files.
    corpus: Any
    #: What a model is built from (vocabulary sizes, number of classes, ...).
    sizes: Any
    #: Share of the tokens of each split, ``train`` included, that are unknown; empty where none can be.
    unknown_tokens: Mapping[str, float] = {}

    @abstractmethod
    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[Batch]:
        """The training batches of ``epoch`` (from 0), on the CPU. A function of its arguments alone, so that a
        resumed epoch sees the same batches."""

    @abstractmethod
    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        """How many batches :meth:`epoch_batches` gives."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch that is already on the model's device."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Metrics of ``model`` (in evaluation mode, no gradient) on one of :attr:`splits`, without a split prefix."""

    def rehearse(self, model: nn.Module, split: str) -> dict[str, float]:
        """:meth:`evaluate` on a few examples, before training: what refuses a model, a setting or a text does so now.

        A task that does not say how evaluates the whole split.
        """
        return self.evaluate(model, split)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of everything that the task's data was made from, by name: what its corpus says, unless a task with
        data of another kind says it."""
        return dict(self.corpus.checksums)

    def chance(self, split: str) -> Chance:
        """What guessing reaches on ``split``, without a split prefix; empty where the task does not know it. A run
        that is no better carries a warning."""
        return {}

    def inputs(self, split: str) -> Collection[Hashable]:
        """What a model is given of each example of a split, ``train`` included, so that equal ones are twins; before
        rare tokens become unknown, where they do. Empty: the task does not say."""
        return ()

    @cached_property
    def shares(self) -> dict[str, dict[str, float]]:
        """What is known of each split before training, from 0 to 1: ``unknown_tokens``, and of held-out ones ``twins``,
        the share of their :meth:`inputs` that are inputs of training too."""
        found = {split: {"unknown_tokens": share} for split, share in self.unknown_tokens.items()}
        for split in self.splits:
            if inputs := self.inputs(split):
                found.setdefault(split, {})["twins"] = twin_share(self.inputs("train"), inputs)
        return found

    def notes(self) -> dict[str, str]:
        """What the metrics of a finished run depend on and no number says (signatures of scores, versions), by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step (a carried hidden state), for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""


def doubts(task: Task, metrics: Mapping[str, float]) -> Iterator[str]:
    """What is wrong with final ``metrics`` (``split/name`` → value): not finite, or no better than guessing."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            yield f"{name} is {value}, which is no finite number."
    for split in task.splits:
        for metric, (guessed, better) in task.chance(split).items():
            name = f"{split}/{metric}"
            value = metrics.get(name, math.nan)
            ahead = value - guessed if better == "max" else guessed - value
            if ahead <= 1e-9 * abs(guessed):  # of a model that always gives one answer, the two differ by rounding
                yield f"{name} is {value:.4g}, no better than guessing ({guessed:.4g})."
