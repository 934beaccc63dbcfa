"""The text typing task: classify short fragments of text into a few types of very different frequency."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Batch, Loss
from sparse_bench.batch.text import TextBatch, TextSizes
from sparse_bench.data.text_types import TextTypeCorpus, TypedText
from sparse_bench.errors import DataError
from sparse_bench.limits import Count, checked
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.held_out import FEW
from sparse_bench.tasks.ranges import ranges
from sparse_bench.tasks.shares import refuse_unknown

UNK = "<unk>"


class TextTypingModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, batch: TextBatch) -> Tensor:
        """A score for each type [B, types]."""


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """ln(N / N_y) for each class y, for "a penalty that depends on the inverse frequency of the labels".

    The quotation is from "Efficient Embedding Models With PyTorch". A class with 31.04 % of the examples has the weight
    1.17, one with 2.57 % has 3.66.

    Raises:
        DataError: a class without examples.
    """
    if min(counts) < 1:
        raise DataError(f"A class has no training example (examples of the classes: {list(counts)}).")
    return tuple(math.log(sum(counts) / count) for count in counts)


class TextTypingTask(Task):
    """Predict the type of each fragment. The vocabulary is that of the training fragments; tokens keep their order.

    Args:
        corpus: the fragments, or a function that reads them.
        batch_size: fragments in a batch.
        least_count: words that occur less often in training become ``<unk>``. At 1, training has no ``<unk>``, so its
            embedding keeps its random initial value, but held-out words that do not occur in training still use it.
        weighted: weight the examples by :func:`class_weights`; the loss of a batch is the weighted mean.
        evaluate_batch_size: fragments in a batch of :meth:`evaluate`.

    Raises:
        ConfigError: a setting outside its range.
        DataError: a split without fragments, or a type without training fragments.
    """

    name: ClassVar[str] = "text_typing"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("macro_f1", "max")
    metrics: ClassVar[tuple[str, ...]] = ("macro_f1", "accuracy")
    splits: tuple[str, ...] = ("valid", "test")
    sizes: TextSizes

    @checked
    def __init__(
        self,
        *,
        corpus: TextTypeCorpus | Callable[[], TextTypeCorpus],
        batch_size: Count = 64,
        least_count: Count = 1,
        weighted: bool = True,
        evaluate_batch_size: Count = 4096,
    ) -> None:
        self.corpus = corpus if isinstance(corpus, TextTypeCorpus) else corpus()
        self._batch_size, self._evaluate_batch_size = batch_size, evaluate_batch_size
        found = Counter(word for words, _ in self.corpus.train for word in words)
        kept = [(word, count) for word, count in found.most_common() if count >= least_count and word != UNK]
        unknown = found.total() - sum(count for _, count in kept)
        #: Word → number. ``<unk>`` is 0, also where a text contains it; the others go from most frequent to rarest.
        self.words = {word: number for number, word in enumerate([UNK, *(word for word, _ in kept)])}
        self._splits = {
            split: _Fragments(getattr(self.corpus, split), self.words, self.corpus.types, split)
            for split in ("train", *self.splits)
        }
        self.unknown_tokens = {split: float((texts.words == 0).mean()) for split, texts in self._splits.items()}
        refuse_unknown(self.unknown_tokens, f"dataset.least_count={least_count}")
        self.sizes = TextSizes(
            vocabulary=len(self.words),
            frequencies=(unknown, *(count for _, count in kept)),
            types=len(self.corpus.types),
        )
        counts = np.bincount(self._splits["train"].types, minlength=self.sizes.types).tolist()
        weights = class_weights(counts)
        #: Weight of each type in the loss [types]; None: equal weights.
        self.weights = torch.tensor(weights) if weighted else None
        self._weights_on: dict[torch.device, Tensor] = {}  # by device, so that they are copied there once

    def inputs(self, split: str) -> list[tuple[str, ...]]:
        """The words of every fragment."""
        return [words for words, _ in getattr(self.corpus, split)]

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[TextBatch]:
        train = self._splits["train"]
        order = streams.numpy("data", epoch).permutation(len(train))
        for start in range(0, len(order), self._batch_size):
            yield train.batch(order[start : start + self._batch_size])

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return -(-len(self._splits["train"]) // self._batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, TextBatch)
        scores = cast(TextTypingModel, model)(batch)
        loss = F.cross_entropy(scores, batch.types, weight=self._weights_at(scores.device))
        return Loss(
            total=loss,
            parts={},
            examples=batch.types.shape[0],
            tokens=batch.words.shape[0],
        )

    def _weights_at(self, device: torch.device) -> Tensor | None:
        if self.weights is not None and device not in self._weights_on:
            self._weights_on[device] = self.weights.to(device)
        return self._weights_on.get(device)

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        fragments, device = self._splits[split], next(model.parameters()).device
        count = min(FEW, len(fragments)) if few else len(fragments)
        found = []
        for start in range(0, count, self._evaluate_batch_size):
            rows = np.arange(start, min(start + self._evaluate_batch_size, count))
            scores = cast(TextTypingModel, model)(fragments.batch(rows).to(device))
            found.append(scores.argmax(dim=1))
        return typing_metrics(fragments.types[:count], torch.cat(found).cpu().numpy(), self.sizes.types)

    def chance(self, split: str) -> Chance:
        """Always predict the most frequent type of the training fragments."""
        gold = self._splits[split].types
        guess = np.full_like(gold, np.bincount(self._splits["train"].types).argmax())
        return {name: (value, "max") for name, value in typing_metrics(gold, guess, self.sizes.types).items()}


def typing_metrics(gold: np.ndarray, predicted: np.ndarray, types: int) -> dict[str, float]:
    """Accuracy and macro F1: the mean F1 of all types, where a type that is never predicted correctly has 0.

    Args:
        gold: true type of each fragment [B], B at least 1.
        predicted: predicted type of each fragment [B].
        types: number of types.
    """
    f1 = f1_score(gold, predicted, labels=np.arange(types), average="macro", zero_division=0)
    return {"macro_f1": float(f1), "accuracy": float(accuracy_score(gold, predicted))}


class _Fragments:
    """The fragments of a split as numbers, one fragment after the other."""

    def __init__(self, texts: Sequence[TypedText], words: dict[str, int], types: Sequence[str], split: str) -> None:
        if not texts:
            raise DataError(f"The split '{split}' has no fragments.")
        numbers = {kind: number for number, kind in enumerate(types)}
        self.words = np.asarray([words.get(word, 0) for found, _ in texts for word in found], dtype=np.int64)
        self.types = np.asarray([numbers[kind] for _, kind in texts], dtype=np.int64)
        self.lengths = np.asarray([len(found) for found, _ in texts], dtype=np.int64)
        self.first = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> TextBatch:
        """A batch of the fragments with these numbers, in this order."""
        lengths = self.lengths[rows]
        return TextBatch(
            words=torch.from_numpy(self.words[ranges(self.first[rows], lengths)]),
            offsets=torch.from_numpy(np.cumsum(lengths) - lengths),
            types=torch.from_numpy(self.types[rows]),
        )
