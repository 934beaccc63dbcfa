"""The tagging task: predict a tag for every word of a sentence."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Annotated, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sparse_bench.batch import Batch, Loss
from sparse_bench.batch.tagging import TaggingBatch, TaggingSizes
from sparse_bench.data.tagged import TaggedCorpus
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Share, checked
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.held_out import Ordered
from sparse_bench.tasks.shares import refuse_unknown
from sparse_bench.tasks.tagging_data import UNK, TaggedArrays, Words


class TaggingModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, batch: TaggingBatch) -> dict[str, Tensor]:
        """Named scalar losses, whose sum is minimised."""

    def predict(self, batch: TaggingBatch) -> Tensor:
        """The best tag of each token [N]."""


class TaggingTask(Task):
    """Predict the tag of each word. Case and numbers are kept; the vocabulary is that of the training sentences.

    An epoch shuffles the sentences and cuts them into batches, each sorted with the longest sentence first. An
    incomplete last batch is dropped, as in the released code of Demeester et al. 2018.

    Args:
        corpus: the sentences, or a function that reads them.
        batch_size: sentences in a batch.
        vocabulary: number of word types, ``<pad>`` and ``<unk>`` included; rarer words become ``<unk>``. None: all
            words. Then training has no ``<unk>``, so its embedding keeps its random initial value, but held-out words
            that do not occur in training still use it.
        replace_singletons: probability that a word that occurs once in training becomes ``<unk>`` in an epoch, so that
            ``<unk>`` is trained.
        evaluate_batch_size: sentences in a batch of :meth:`evaluate`.

    Raises:
        ConfigError: a setting outside its range.
        DataError: a split without sentences.
    """

    name: ClassVar[str] = "tagging"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "accuracy_known_words",
        "accuracy_unknown_words",
        "accuracy_without_null",
    )
    splits: tuple[str, ...] = ("valid", "test")
    sizes: TaggingSizes

    @checked
    def __init__(
        self,
        *,
        corpus: TaggedCorpus | Callable[[], TaggedCorpus],
        batch_size: Count = 20,
        vocabulary: Annotated[int, Field(ge=3)] | None = None,
        replace_singletons: Share = 0.0,
        evaluate_batch_size: Count = 256,
    ) -> None:
        self.corpus = corpus if isinstance(corpus, TaggedCorpus) else corpus()
        self._batch_size, self._replace_singletons = batch_size, replace_singletons
        self.words = Words.of(self.corpus.train, vocabulary)
        tags = {tag: number for number, tag in enumerate(self.corpus.tags)}
        self.train = TaggedArrays(self.corpus.train, self.words, tags, "train")
        if batch_size > len(self.train):
            raise ConfigError(f"batch_size ({batch_size}) exceeds the {len(self.train)} training sentences.")
        singletons = self.words.counts == 1
        singletons[:2] = False  # <pad> and <unk> themselves
        self._singleton_tokens = np.flatnonzero(singletons[self.train.words])
        # Schemes that give rare words short vectors derive the length of <unk>'s vector from its frequency.
        counts = self.words.counts.copy()
        if replace_singletons:
            unknown = int((self.train.words == self._unknown).sum())
            counts[self._unknown] = max(1, unknown + round(replace_singletons * len(self._singleton_tokens)))
        self.sizes = TaggingSizes(len(counts), tuple(counts.tolist()), len(tags))

        self.unknown_tokens = {"train": float((self.train.words == self._unknown).mean())}
        self._held_out: dict[str, Ordered[TaggingBatch]] = {}
        for split in self.splits:
            arrays = TaggedArrays(getattr(self.corpus, split), self.words, tags, split)
            self.unknown_tokens[split] = float((arrays.words == self._unknown).mean())
            by_length = np.argsort(arrays.lengths, kind="stable")
            self._held_out[split] = Ordered(arrays.batch, by_length, evaluate_batch_size)
        refuse_unknown(self.unknown_tokens, f"dataset.vocabulary={vocabulary}")
        self._null = tags[self.corpus.null_tag] if self.corpus.null_tag is not None else None

    @property
    def _unknown(self) -> int:
        return self.words.numbers[UNK]

    def inputs(self, split: str) -> list[tuple[str, ...]]:
        """The words of every sentence."""
        return [words for words, _ in getattr(self.corpus, split)]

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[TaggingBatch]:
        order = streams.numpy("data", epoch).permutation(len(self.train))
        words = self._epoch_words(epoch, streams)
        for step in range(self.epoch_steps(epoch, streams)):
            yield self.train.batch(order[step * self._batch_size : (step + 1) * self._batch_size], words)

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return len(self.train) // self._batch_size

    def _epoch_words(self, epoch: int, streams: Streams) -> np.ndarray:
        """The training words [N] of an epoch, with some singletons replaced by ``<unk>``."""
        if not self._replace_singletons:
            return self.train.words
        coins = streams.numpy("data", epoch, "singletons").random(len(self._singleton_tokens))
        words = self.train.words.copy()
        words[self._singleton_tokens[coins < self._replace_singletons]] = self._unknown
        return words

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, TaggingBatch)
        parts = cast(TaggingModel, model)(batch)
        return Loss(
            total=reduce(torch.add, parts.values()),
            parts={name: part.detach() for name, part in parts.items()},
            examples=batch.layout.lengths.shape[0],
            tokens=batch.tags.shape[0],
        )

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        """Accuracy on all tokens, on known words, on unknown words (``<unk>``), and without null elements."""
        held_out = self._held_out[split]
        batches = (held_out.few() if few else held_out).on_device_of(model)
        right = torch.cat([cast(TaggingModel, model).predict(batch) == batch.tags for batch in batches])
        unknown = torch.cat([batch.words for batch in batches]) == self._unknown
        groups = {
            "accuracy": torch.ones_like(right),
            "accuracy_known_words": ~unknown,
            "accuracy_unknown_words": unknown,
        }
        if self._null is not None:
            groups["accuracy_without_null"] = torch.cat([batch.tags for batch in batches]) != self._null
        totals = torch.stack([part for group in groups.values() for part in ((right & group).sum(), group.sum())])
        counts = totals.tolist()  # the one synchronisation with the device
        return {name: hit / size for name, hit, size in zip(groups, counts[::2], counts[1::2], strict=True) if size > 0}

    def chance(self, split: str) -> Chance:
        """Always predict the most frequent tag of the training tokens."""
        guess = int(np.bincount(self.train.tags).argmax())
        right = torch.cat([batch.tags for batch in self._held_out[split]]) == guess
        return {"accuracy": (right.double().mean().item(), "max")}
