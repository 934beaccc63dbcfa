"""The interface between a task and the trainer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.errors import ConfigError, unknown_choice
from sparse_bench.streams import Streams
from sparse_bench.tasks.shares import twin_share

#: Baseline of guessing: metric → its value, and whether a higher or a lower value is better.
Chance = dict[str, tuple[float, Literal["max", "min"]]]


class Task(ABC):
    """A corpus and what is learned from it. It calls only those methods of a model that the task's protocol names."""

    #: Name of the task. A model that can learn it lists the name in its ``tasks``.
    name: ClassVar[str]
    #: Metric that selects the best checkpoint, and whether a higher or a lower value is better.
    monitor: ClassVar[tuple[str, Literal["max", "min"]]]
    #: Metrics that the watched split may have, including :attr:`monitor`'s. A setting that names another metric is
    #: refused before training.
    metrics: ClassVar[tuple[str, ...]]
    #: Splits that :meth:`evaluate` accepts; the first one is watched during training. Settings may add splits.
    splits: tuple[str, ...]

    #: The data from which the task was made, with the ``checksums`` of its files.
    corpus: Any
    #: The sizes from which a model is built: vocabulary sizes, number of classes, ...
    sizes: Any
    #: Share of unknown tokens in each split, ``train`` included; empty if no token can be unknown.
    unknown_tokens: Mapping[str, float] = {}

    @abstractmethod
    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[Batch]:
        """The training batches of ``epoch`` (from 0), on the CPU.

        They depend only on the arguments, so that a resumed epoch gets the same batches.
        """

    @abstractmethod
    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        """Number of batches of :meth:`epoch_batches`."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch that is already on the model's device."""

    @abstractmethod
    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        """Metrics of ``model`` in evaluation mode on one of :attr:`splits`, by name without the split.

        Args:
            model: a model that can learn the task.
            split: the examples.
            few: measure on a few of them only, to find errors early.
        """

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """All of :meth:`measure`.

        Raises:
            ConfigError: another split than :attr:`splits`.
        """
        if split not in self.splits:
            raise ConfigError(unknown_choice("split", split, self.splits))
        return self.measure(model, split, few=False)

    @torch.no_grad()
    def rehearse(self, model: nn.Module, split: str) -> dict[str, float]:
        """Evaluate a few examples before training, so that errors of an evaluation occur early."""
        return self.measure(model, split, few=True)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of everything from which the task's data was made, by name; by default, those of its corpus."""
        return dict(self.corpus.checksums)

    def chance(self, split: str) -> Chance:
        """Baseline of guessing on ``split``, without a split prefix; empty if unknown.

        A run that is no better gets a warning.
        """
        return {}

    def inputs(self, split: str) -> Collection[Hashable]:
        """The model's input for each example of a split, ``train`` included; empty if unknown.

        Examples with equal inputs are twins. Inputs are compared before rare tokens are replaced by the unknown one.
        """
        return ()

    @cached_property
    def shares(self) -> dict[str, dict[str, float]]:
        """Shares from 0 to 1 that describe each split before training.

        ``unknown_tokens`` is the share of unknown tokens. ``twins``, for held-out splits, is the share of their
        :meth:`inputs` that also occur in training.
        """
        found = {split: {"unknown_tokens": share} for split, share in self.unknown_tokens.items()}
        for split in self.splits:
            if inputs := self.inputs(split):
                found.setdefault(split, {})["twins"] = twin_share(self.inputs("train"), inputs)
        return found

    def notes(self) -> dict[str, str]:
        """Facts about the metrics of a finished run that are not numbers, by name: signatures of scores, versions."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that a checkpoint must keep, for example a hidden state carried from step to step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""


def training_losses(task: Task, streams: Streams, model: nn.Module) -> Iterator[Tensor]:
    """The losses of ``model`` on the batches of the first epoch, in turn; the task's state does not change."""
    device, state = next(model.parameters()).device, task.state_dict()
    try:
        for batch in task.epoch_batches(0, streams):
            yield task.loss(model, batch.to(device)).total
    finally:
        task.load_state_dict(state)


def metric_warnings(task: Task, metrics: Mapping[str, float]) -> Iterator[str]:
    """Warnings about final ``metrics`` (``split/name`` → value) that are not finite or no better than guessing."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            yield f"{name} is {value}, which is not a finite number."
    for split in task.splits:
        for metric, (guessed, better) in task.chance(split).items():
            name = f"{split}/{metric}"
            value = metrics.get(name, math.nan)
            ahead = value - guessed if better == "max" else guessed - value
            if ahead <= 1e-9 * abs(guessed):  # for a constant prediction, the two may differ by rounding
                yield f"{name} is {value:.4g}, no better than guessing ({guessed:.4g})."
