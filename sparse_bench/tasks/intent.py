"""The intent task: intent classification with entity recognition, as DIET is trained and evaluated."""

import logging
from collections.abc import Callable, Iterator
from functools import reduce
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from scipy import sparse
from torch import nn

from sparse_bench.batch import Batch, IntentBatch, IntentSizes, Loss, SparseRows
from sparse_bench.data.featurizers import (
    CombinedFeaturizer,
    CountFeaturizer,
    LexicalFeaturizer,
    RegexFeaturizer,
    counted_words,
)
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.splits import Duplicates, merged_intent, split_messages
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import shortened
from sparse_bench.limits import Count, Name, Pair, Part, Seed, checked
from sparse_bench.streams import Streams
from sparse_bench.tasks import bilou
from sparse_bench.tasks.balancing import GrowingBatches
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.held_out import Ordered
from sparse_bench.tasks.intent_data import MessageArrays
from sparse_bench.tasks.intent_metrics import entity_metrics, intent_metrics
from sparse_bench.tasks.ranges import ranges

_LOG = logging.getLogger(__name__)


class IntentModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, batch: IntentBatch) -> dict[str, torch.Tensor]:
        """Named scalar losses, whose sum is minimised."""

    def predict(self, batch: IntentBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """A score for each intent [B, C], and the best BILOU tag of each token [N], arbitrary without tagging."""


class IntentTask(Task):
    """Predict the intent of each message, and an entity tag of each of its tokens.

    The labels are all merged intents and all entity types of the corpus, in alphabetical order. Every featurizer is
    fitted on the training messages only. Entities that do not start and end at token borders are left out: they are
    neither learned nor evaluated. The log and the result's notes report their number.

    Args:
        corpus: the messages, or a function that reads them.
        batch_epochs: number of epochs over which the batch size grows, normally all epochs of the training.
        batch_size: batch size of the first and of the last of these epochs.
        balanced: repeat rare intents (:func:`balanced_order`); otherwise an epoch visits every message once.
        test_fraction: share of the messages in the test split, for a corpus without test messages.
        split_seed: seed of the split, independent of the run's seed.
        duplicates: rule for messages to leave out as duplicates, ``features`` or ``exact`` (:func:`split_messages`).
        evaluate_batch_size: messages in a batch of :meth:`evaluate`.
        entities: whether entities are learned and evaluated.
        oov_token: word that replaces unknown words, if it is in the training data (see :class:`CountFeaturizer`).
        char_ngrams: lengths of the shortest and the longest character n-gram.
        validation_fraction: share of the training messages that are a split ``valid`` instead; None: no such split.

    Raises:
        ConfigError: a setting outside its range.
        DataError: messages that cannot be split or tokenized.
    """

    name: ClassVar[str] = "intent"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("intent_f1", "max")
    metrics: ClassVar[tuple[str, ...]] = (
        "intent_f1",
        "intent_accuracy",
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "entity_span_f1",
        "entity_span_precision",
        "entity_span_recall",
    )
    splits: tuple[str, ...] = ("test",)
    sizes: IntentSizes

    @checked
    def __init__(
        self,
        *,
        corpus: NluCorpus | Callable[[], NluCorpus],
        batch_epochs: Count,
        batch_size: Pair = (64, 256),
        balanced: bool = True,
        test_fraction: Part = 0.2,
        split_seed: Seed = 0,
        duplicates: Duplicates = "exact",
        evaluate_batch_size: Count = 512,
        entities: bool = True,
        oov_token: Name | None = "oov",
        char_ngrams: Pair = (1, 4),
        validation_fraction: Part | None = None,
    ) -> None:
        self.corpus = corpus if isinstance(corpus, NluCorpus) else corpus()

        # Split the messages, and fix the labels from the whole corpus.
        if self.corpus.test:
            self.train_messages, self.test_messages = list(self.corpus.messages), list(self.corpus.test)
        else:
            self.train_messages, self.test_messages = split_messages(
                self.corpus.messages, test_fraction, split_seed, duplicates
            )
        held_out = {"test": self.test_messages}
        if validation_fraction is not None:
            self.train_messages, valid = split_messages(
                self.train_messages, validation_fraction, split_seed, duplicates
            )
            held_out, self.splits = {"valid": valid, **held_out}, ("valid", "test")
        messages = (*self.corpus.messages, *self.corpus.test)
        self.intents = sorted({merged_intent(message.intent) for message in messages})
        self.entity_types = (
            sorted({entity.type for message in messages for entity in message.entities}) if entities else []
        )

        # Featurize both splits, with featurizers fitted on the training messages.
        featurizer = CombinedFeaturizer(
            [
                RegexFeaturizer(self.corpus.regexes, self.corpus.lookups),
                LexicalFeaturizer(),
                CountFeaturizer(oov_token=oov_token),
                CountFeaturizer("char_wb", (char_ngrams[0], char_ngrams[1])),
            ]
        )
        train_texts = [tokenize(message.text) for message in self.train_messages]
        texts = {split: [tokenize(message.text) for message in held_out[split]] for split in self.splits}
        train_features = featurizer.fit_transform(train_texts)
        labels = {intent: label for label, intent in enumerate(self.intents)}
        types = {entity_type: number for number, entity_type in enumerate(self.entity_types)}
        self.train = MessageArrays(train_texts, train_features, self.train_messages, labels, types)
        self.held_out = {
            split: MessageArrays(texts[split], featurizer.transform(texts[split]), held_out[split], labels, types)
            for split in self.splits
        }
        self.test = self.held_out["test"]

        self._left_out = self._count_left_out()

        self.sizes = IntentSizes(
            token_features=train_features.tokens.shape[1],
            sentence_features=train_features.sentences.shape[1],
            intent_features=len(self.intents),
            intents=_one_hot(len(self.intents)),
            tags=bilou.tag_count(len(self.entity_types)) if entities else 0,
            frequencies={
                "token": _occurrences(train_features.tokens),
                "sentence": _occurrences(train_features.sentences),
                "label": tuple(np.bincount(self.train.intents, minlength=len(self.intents)).tolist()),
            },
        )

        self._words = {name: [*map(counted_words, found)] for name, found in {"train": train_texts, **texts}.items()}
        known = {word for words in self._words["train"] for word in words}
        self.unknown_tokens: dict[str, float] = {}
        self._ordered: dict[str, Ordered[IntentBatch]] = {}
        for split, arrays in self.held_out.items():
            seen = [word in known for words in self._words[split] for word in words]
            self.unknown_tokens[split] = 1 - sum(seen) / len(seen)
            # Held-out messages of similar length share a batch, for less padding in attention.
            by_length = np.argsort(arrays.lengths, kind="stable")
            self._ordered[split] = Ordered(arrays.batch, by_length, evaluate_batch_size)
        self._batches = GrowingBatches(self.train.intents, batch_size, batch_epochs, balanced)

    def inputs(self, split: str) -> list[tuple[str, ...]]:
        """The words of every message, as the featurizer counts them."""
        return self._words[split]

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[IntentBatch]:
        for rows in self._batches.of_epoch(epoch, streams):
            yield self.train.batch(rows)

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return len(self._batches.of_epoch(epoch, streams))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, IntentBatch)
        parts = cast(IntentModel, model)(batch)
        return Loss(
            total=reduce(torch.add, parts.values()),
            parts={name: part.detach() for name, part in parts.items()},
            examples=batch.intents.shape[0],
            tokens=batch.tags.shape[0],
        )

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        held_out, arrays = self._ordered[split], self.held_out[split]
        held_out = held_out.few() if few else held_out
        intents: list[torch.Tensor] = []
        tags: list[torch.Tensor] = []
        for batch in held_out.on_device_of(model):
            scores, best_tags = cast(IntentModel, model).predict(batch)
            intents.append(scores.argmax(dim=1))
            tags.append(best_tags)
        predicted = torch.cat([*intents, *tags]).cpu().numpy()  # the one synchronisation with the device
        order = held_out.order
        metrics = intent_metrics(arrays.intents[order], predicted[: len(order)])
        if self.entity_types:
            lengths = arrays.lengths[order]
            tags_there = arrays.tags[ranges(arrays.first_token[order], lengths)]
            metrics |= entity_metrics(tags_there, predicted[len(order) :], lengths)
        return metrics

    def chance(self, split: str) -> Chance:
        """Always predict the most frequent intent of the training messages."""
        gold = self.held_out[split].intents
        guess = np.full_like(gold, np.bincount(self.train.intents).argmax())
        return {name: (value, "max") for name, value in intent_metrics(gold, guess).items()}

    def notes(self) -> dict[str, str]:
        """The number of entities that are neither learned nor evaluated, if there are any."""
        return {"entities_left_out": self._left_out} if self._left_out else {}

    def _count_left_out(self) -> str:
        """Describe how many entities have no tags, and log it with two examples; empty if all have tags."""
        left_out = self.train.left_out + self.test.left_out
        if not left_out:
            return ""
        entities = sum(len(message.entities) for message in (*self.train_messages, *self.test_messages))
        counted = f"{len(left_out)} of {entities}, {len(self.test.left_out)} of them in the test"
        _LOG.warning(
            "Entities that overlap, or do not begin and end at token borders, are left out: %s. For example: %s.",
            counted,
            "; ".join(f"{shortened(surface)} in {shortened(text)}" for surface, text in left_out[:2]),
        )
        return counted


def _occurrences(features: sparse.csr_array) -> tuple[int, ...]:
    """In how many rows each feature occurs [features]."""
    counts = np.bincount(features.indices, minlength=features.shape[1])
    return tuple(counts.tolist())


def _one_hot(size: int) -> SparseRows:
    """Features of intent names: each merged intent is one word of its own."""
    numbers = torch.arange(size)
    return SparseRows(indices=numbers, offsets=numbers.clone(), values=torch.ones(size))
