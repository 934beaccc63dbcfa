"""Tagging: vocabulary, batches, accuracy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse_bench.batch.tagging import TaggingBatch
from sparse_bench.data.tagged import Sentence, TaggedCorpus
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.streams import Streams
from sparse_bench.tasks.tagging import TaggingTask
from sparse_bench.tasks.tagging_data import TaggedArrays, Words


def tagged(text: str) -> Sentence:
    words, tags = zip(*(token.split("/") for token in text.split()), strict=True)
    return words, tags


CORPUS = TaggedCorpus(
    train=(tagged("the/D cat/N sat/V"), tagged("the/D cat/N */0"), tagged("dogs/N"), tagged("the/D mat/N")),
    valid=(tagged("the/D dog/N */0"), tagged("cat/N")),
    test=(tagged("cat/N"),),
    tags=("0", "D", "N", "V"),
    null_tag="0",
    checksums={"made": "up"},
)


class Constant(nn.Module):
    """Says N everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch: TaggingBatch) -> dict[str, Tensor]:
        return {"cross_entropy": self.weight + batch.words.numel()}

    def predict(self, batch: TaggingBatch) -> Tensor:
        return torch.full_like(batch.words, 2)


def task(**settings: object) -> TaggingTask:
    return TaggingTask(corpus=CORPUS, **{"batch_size": 2, **settings})  # type: ignore[arg-type]


def test_words_are_numbered_by_frequency() -> None:
    words = Words.of(CORPUS.train)
    assert list(words.numbers) == ["<unk>", "the", "cat", "sat", "*", "dogs", "mat"]
    assert list(words.numbers.values()) == [1, 2, 3, 4, 5, 6, 7]  # 0 is padding
    assert words.counts.tolist() == [1, 1, 3, 2, 1, 1, 1, 1]
    assert task().sizes.frequencies == tuple(words.counts)
    assert (task().sizes.vocabulary, task().sizes.tags) == (8, 4)


def test_a_limited_vocabulary_trains_unk() -> None:
    words = Words.of(CORPUS.train, 5)
    assert list(words.numbers) == ["<unk>", "the", "cat", "sat"]
    assert words.counts.tolist() == [1, 3, 3, 2, 1]
    assert (task(vocabulary=5).train.words == 1).sum() == 3
    with pytest.raises(ConfigError, match="at least 3"):
        Words.of(CORPUS.train, 2)


def test_the_spellings_of_special_words() -> None:
    """``<unk>`` in a text means the unknown word; ``<pad>`` is a word, and padding another thing."""
    train = (tagged("<pad>/NN the/DT <pad>/NN"), tagged("<unk>/NN the/DT"))
    words = Words.of(train)
    assert words.numbers == {"<unk>": 1, "<pad>": 2, "the": 3}
    assert words.counts.tolist() == [1, 1, 2, 2]
    corpus = TaggedCorpus(train=train, valid=train, test=train, tags=("DT", "NN"))
    made = TaggingTask(corpus=corpus, batch_size=1)
    assert made.train.words.tolist() == [2, 3, 2, 1, 3]
    held_out = TaggedArrays(train, Words.of(train[1:]), {"DT": 0, "NN": 1}, "test")
    assert held_out.words.tolist() == [1, 2, 1, 1, 2]  # unknown: <pad> twice, and <unk>


def test_batches_are_permuted_and_longest_first() -> None:
    made = task()
    batches = list(made.epoch_batches(0, Streams(0)))
    assert len(batches) == made.epoch_steps(0, Streams(0)) == 2
    for batch in batches:
        lengths = batch.layout.lengths.tolist()
        assert lengths == sorted(lengths, reverse=True)
        assert batch.words.numel() == sum(lengths)
    order = [batch.words.tolist() for epoch in range(4) for batch in made.epoch_batches(epoch, Streams(0))]
    assert len({tuple(words) for words in order}) > 2
    again = [batch.words.tolist() for epoch in range(4) for batch in made.epoch_batches(epoch, Streams(0))]
    assert order == again
    assert task(batch_size=3).epoch_steps(0, Streams(0)) == 1  # what is left over is not visited


def test_words_and_tags_stay_together() -> None:
    made = task(batch_size=4)
    (batch,) = made.epoch_batches(0, Streams(0))
    names = ["padding", *made.words.numbers]
    found = {(names[word], CORPUS.tags[tag]) for word, tag in zip(batch.words, batch.tags, strict=True)}
    assert found == {token for words, tags in CORPUS.train for token in zip(words, tags, strict=True)}


def test_singletons_are_replaced_anew_in_every_epoch() -> None:
    made = task(batch_size=4, replace_singletons=0.5)
    counts = []
    for epoch in range(200):
        (batch,) = made.epoch_batches(epoch, Streams(0))
        unknown = batch.words == 1
        assert {2, 3} <= set(batch.words.tolist())  # words that occur twice are never replaced
        counts.append(int(unknown.sum()))
    assert np.mean(counts) == pytest.approx(2.0, abs=0.3)  # of four
    assert made.sizes.frequencies[1] == 2
    assert (task(batch_size=4).train.words != 1).all()


def test_accuracy_with_and_without_null_elements() -> None:
    """Three of four tokens are no null elements, and two of them are nouns; two are unknown, both nouns or one null."""
    metrics = task().evaluate(Constant(), "valid")
    # the/D dog/N */0 cat/N: "dog" alone is unknown.
    assert metrics == {
        "accuracy": 0.5,
        "accuracy_known_words": pytest.approx(1 / 3),
        "accuracy_unknown_words": 1.0,
        "accuracy_without_null": pytest.approx(2 / 3),
    }
    assert task().evaluate(Constant(), "test") == {
        "accuracy": 1.0,
        "accuracy_known_words": 1.0,
        "accuracy_without_null": 1.0,
    }
    with pytest.raises(ConfigError, match="test, valid"):
        task().evaluate(Constant(), "train")


def test_loss_counts_sentences_and_tokens() -> None:
    made = task(batch_size=4)
    (batch,) = made.epoch_batches(0, Streams(0))
    loss = made.loss(Constant(), batch)
    assert (loss.examples, loss.tokens, loss.total.item()) == (4, 9, 9.0)
    assert made.checksums() == {"made": "up"}


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": 5}, {"evaluate_batch_size": 0}, {"replace_singletons": 1.5}]
)
def test_settings_outside_their_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        task(**settings)


def test_an_empty_split() -> None:
    with pytest.raises(DataError, match="split 'train'"):
        TaggingTask(corpus=TaggedCorpus(train=(), valid=CORPUS.valid, test=CORPUS.test, tags=CORPUS.tags))
