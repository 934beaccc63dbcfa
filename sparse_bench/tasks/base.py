"""The interface between a task and the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.streams import Streams


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

    def checksums(self) -> dict[str, str]:
        """SHA-256 of everything that the task's data was made from, by name: what its corpus says, unless a task with
        data of another kind says it."""
        return dict(self.corpus.checksums)

    def notes(self) -> dict[str, str]:
        """What the metrics of a finished run depend on and no number says (signatures of scores, versions), by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step (a carried hidden state), for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
