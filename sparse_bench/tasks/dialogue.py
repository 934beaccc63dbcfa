"""The dialogue task: choose the assistant's next action in a conversation, as TED is trained and evaluated."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from sparse_bench.batch import Batch, DialogueBatch, DialogueSizes, Loss
from sparse_bench.data.dialogues import LISTEN, DialogueCorpus, DialogueTurn, Story
from sparse_bench.errors import DataError
from sparse_bench.limits import Count, Pair, Part, checked
from sparse_bench.streams import Streams
from sparse_bench.tasks.balancing import GrowingBatches
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.dialogue_data import Attributes, ExampleArrays, ceiling, examples
from sparse_bench.tasks.held_out import Ordered


class DialogueModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, batch: DialogueBatch) -> dict[str, torch.Tensor]:
        """Named scalar losses, whose sum is minimised."""

    def predict(self, batch: DialogueBatch) -> torch.Tensor:
        """A score for each action [B, actions]."""


class DialogueTask(Task):
    """Predict the assistant's next action from the latest turns of a conversation. Waiting for the user is an action.

    Every action of a story is an example. Duplicate examples, with the same turns and action, are trained on once, but
    tested as often as they occur. In the test the turns are always those of the story, so an error does not affect
    later predictions.

    There is no validation split: the corpora have none, TED has few stories, and the published experiment trained for a
    fixed number of epochs. The test split is therefore watched during training, and must not select anything.

    Args:
        corpus: the stories, or a function that reads them.
        batch_epochs: number of epochs over which the batch size grows, normally all epochs of the training.
        batch_size: batch size of the first and of the last of these epochs.
        balanced: repeat rare actions (:func:`balanced_order`); otherwise an epoch visits every example once.
        max_history: number of latest turns that the model gets.
        evaluate_batch_size: examples in a batch of :meth:`evaluate`.
        validation_fraction: share of the training stories that are a split ``valid`` instead; None: no such split.

    Attributes:
        ceilings: the best possible accuracy with ``max_history`` turns, by split; for ``train``, without duplicates.

    Raises:
        ConfigError: a setting outside its range.
        DataError: stories that do not fit their domain, or no stories.
    """

    name: ClassVar[str] = "dialogue"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("action_f1", "max")
    metrics: ClassVar[tuple[str, ...]] = (
        "action_f1",
        "action_accuracy",
        "action_f1_without_listen",
        "action_accuracy_without_listen",
    )
    splits: tuple[str, ...] = ("test",)
    sizes: DialogueSizes

    @checked
    def __init__(
        self,
        *,
        corpus: DialogueCorpus | Callable[[], DialogueCorpus],
        batch_epochs: Count,
        batch_size: Pair = (32, 64),
        balanced: bool = True,
        max_history: Count = 10,
        evaluate_batch_size: Count = 512,
        validation_fraction: Part | None = None,
    ) -> None:
        self.corpus = corpus if isinstance(corpus, DialogueCorpus) else corpus()

        stories = {"train": self.corpus.stories, "test": self.corpus.test_stories}
        if validation_fraction is not None:
            kept, valid = spaced(self.corpus.stories, validation_fraction)
            stories, self.splits = {"train": kept, "valid": valid, "test": stories["test"]}, ("valid", "test")
        slots = self.corpus.featurized_slots
        found = {split: examples(part, slots, max_history) for split, part in stories.items()}
        found["train"] = list(dict.fromkeys(found["train"]))
        if not all(found.values()):
            raise DataError("A dialogue corpus needs training stories and test stories.")
        self.ceilings = {split: ceiling(part) for split, part in found.items()}
        self._turns = {split: [turns for turns, _ in part] for split, part in found.items()}
        attributes = Attributes(self.corpus, found["train"], [*found.get("valid", ()), *found["test"]])
        arrays = {split: ExampleArrays(part, attributes, self.corpus.actions) for split, part in found.items()}
        self.train, self.test = arrays["train"], arrays["test"]
        self.held_out = {split: arrays[split] for split in self.splits}
        self.sizes = DialogueSizes(attributes.sizes, len(self.corpus.actions))

        self._ordered = {
            split: Ordered(part.batch, np.arange(len(part)), evaluate_batch_size)
            for split, part in self.held_out.items()
        }
        self._batches = GrowingBatches(self.train.actions, batch_size, batch_epochs, balanced)

    def inputs(self, split: str) -> list[tuple[DialogueTurn, ...]]:
        """The turns before every action."""
        return self._turns[split]

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[DialogueBatch]:
        for numbers in self._batches.of_epoch(epoch, streams):
            yield self.train.batch(numbers)

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return len(self._batches.of_epoch(epoch, streams))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, DialogueBatch)
        parts = cast(DialogueModel, model)(batch)
        return Loss(
            total=reduce(torch.add, parts.values()),
            parts={name: part.detach() for name, part in parts.items()},
            examples=batch.actions.shape[0],
            tokens=batch.turns.shape[0],
        )

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        held_out, arrays = self._ordered[split], self.held_out[split]
        held_out = held_out.few() if few else held_out
        best = [cast(DialogueModel, model).predict(batch).argmax(dim=1) for batch in held_out.on_device_of(model)]
        predicted = torch.cat(best).cpu().numpy()  # the one synchronisation with the device
        return action_metrics(arrays.actions[held_out.order], predicted, self.corpus.actions.index(LISTEN))

    def chance(self, split: str) -> Chance:
        """Always predict the most frequent action of the training examples."""
        gold = self.held_out[split].actions
        guess = np.full_like(gold, np.bincount(self.train.actions).argmax())
        found = action_metrics(gold, guess, self.corpus.actions.index(LISTEN))
        return {name: (found[name], "max") for name in ("action_f1", "action_accuracy")}


def spaced(stories: Sequence[Story], share: float) -> tuple[tuple[Story, ...], tuple[Story, ...]]:
    """The other stories, and a share of them, evenly spaced: a corpus may have one domain after the other."""
    due = [int((n + 1) * share) > int(n * share) for n in range(len(stories))]
    kept = tuple(story for story, out in zip(stories, due, strict=True) if not out)
    return kept, tuple(story for story, out in zip(stories, due, strict=True) if out)


def action_metrics(gold: np.ndarray, predicted: np.ndarray, listen: int) -> dict[str, float]:
    """Accuracy and weighted F1: the mean of the F1 of each action in ``gold``, weighted by its frequency.

    ``…_without_listen`` are the same metrics without the examples whose correct action is to wait for the user, the
    easiest and most frequent action. They are absent if all examples are of this kind.

    Args:
        gold: correct action of each example [n], n at least 1.
        predicted: predicted action of each example [n].
        listen: number of the action of waiting.
    """
    metrics = {}
    for suffix, kept in (("", gold >= 0), ("_without_listen", gold != listen)):
        if kept.any():
            right, given = gold[kept], predicted[kept]
            f1 = f1_score(right, given, labels=np.unique(right), average="weighted", zero_division=0.0)
            metrics[f"action_f1{suffix}"] = float(f1)
            metrics[f"action_accuracy{suffix}"] = float(accuracy_score(right, given))
    return metrics
