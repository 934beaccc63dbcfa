"""Text typing: class weights as the post gives them, batches, metrics."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.text import TextBatch
from sparse_bench.data.text_types import TextTypeCorpus
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.streams import Streams
from sparse_bench.tasks.text_typing import TextTypingTask, class_weights, typing_metrics

CORPUS = TextTypeCorpus(
    train=((("a", "b", "a"), "x"), (("a",), "x"), (("c", "b"), "y"), (("a", "d"), "x")),
    valid=((("a",), "x"), (("unheard", "b"), "y")),
    test=((("b", "b"), "y"), (("a",), "x"), (("c",), "x")),
    types=("x", "y"),
)


class Fixed(nn.Module):
    """Scores that depend on the first word alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.5], [0.0, 0.0]]))

    def forward(self, batch: TextBatch) -> Tensor:
        return self.table[batch.words[batch.offsets]]


def test_class_weights_as_in_the_post() -> None:
    """1.17 for "an almost common label", 3.66 for "a rather seldom one"."""
    weights = class_weights([3104, 257, 6639])
    assert [round(weight, 2) for weight in weights] == [1.17, 3.66, 0.41]
    assert class_weights([1, 1]) == pytest.approx([np.log(2)] * 2)
    with pytest.raises(DataError, match=r"no training example.*\[3, 0\]"):
        class_weights([3, 0])


def test_words_are_numbered_by_frequency_and_rare_ones_are_unknown() -> None:
    task = TextTypingTask(corpus=CORPUS)
    assert task.words == {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    assert task.sizes.vocabulary == 5
    assert task.sizes.frequencies == (0, 4, 2, 1, 1)
    rare = TextTypingTask(corpus=CORPUS, least_count=2)
    assert rare.words == {"<unk>": 0, "a": 1, "b": 2}
    assert rare.sizes.frequencies == (2, 4, 2)


def test_the_spelling_of_the_unknown_word_means_it() -> None:
    train = ((("<unk>", "a", "a", "<pad>", *"aaa"), "x"), (("<unk>", "b"), "y"))
    task = TextTypingTask(corpus=TextTypeCorpus(train, train, train, ("x", "y")), least_count=2)
    assert task.words == {"<unk>": 0, "a": 1}
    assert task.sizes.frequencies == (4, 5)  # <unk> twice, and the two words that occur once
    assert task._splits["train"].words.tolist() == [0, 1, 1, 0, 1, 1, 1, 0, 0]


def test_an_epoch_visits_every_fragment_once() -> None:
    task = TextTypingTask(corpus=CORPUS, batch_size=3)
    batches = list(task.epoch_batches(0, Streams(0)))
    assert len(batches) == task.epoch_steps(0, Streams(0)) == 2
    found = []
    for batch in batches:
        ends = [*batch.offsets.tolist()[1:], len(batch.words)]
        for start, end, kind in zip(batch.offsets.tolist(), ends, batch.types.tolist(), strict=True):
            found.append((tuple(batch.words[start:end].tolist()), kind))
    assert sorted(found) == sorted([((1, 2, 1), 0), ((1,), 0), ((3, 2), 1), ((1, 4), 0)])
    again = [batch.words.tolist() for batch in task.epoch_batches(0, Streams(0))]
    assert again == [batch.words.tolist() for batch in batches]
    orders = [[batch.types.tolist() for batch in task.epoch_batches(epoch, Streams(0))] for epoch in range(6)]
    assert any(order != orders[0] for order in orders)


def test_the_loss_is_the_weighted_mean() -> None:
    task = TextTypingTask(corpus=CORPUS, batch_size=4)
    batch = next(task.epoch_batches(0, Streams(0)))
    model = Fixed()
    losses = F.cross_entropy(model(batch), batch.types, reduction="none")
    weights = torch.tensor([np.log(4 / 3), np.log(4)], dtype=torch.float32)[batch.types]
    loss = task.loss(model, batch)
    torch.testing.assert_close(loss.total, (losses * weights).sum() / weights.sum())
    assert (loss.examples, loss.tokens) == (4, 8)
    plain = TextTypingTask(corpus=CORPUS, batch_size=4, weighted=False)
    torch.testing.assert_close(plain.loss(model, batch).total, losses.mean())


def test_metrics_by_hand() -> None:
    """Of type 0 two of three are found and one is wrong: F1 2/3; of type 1 one of two, one wrong: 1/2; type 2: none."""
    metrics = typing_metrics(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 1]), types=3)
    f1 = [2 * 2 / (3 + 3), 2 * 1 / (2 + 3), 0.0]
    assert metrics["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert metrics["accuracy"] == pytest.approx(3 / 6)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_evaluation_in_batches(size: int) -> None:
    """On the test the first words b, a, c give the types y, x, y; y, x, x are right."""
    task = TextTypingTask(corpus=CORPUS, evaluate_batch_size=size)
    metrics = task.evaluate(Fixed(), "test")
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["macro_f1"] == pytest.approx(2 / 3)
    assert task.evaluate(Fixed(), "valid")["accuracy"] == 1.0
    with pytest.raises(ConfigError, match="test, valid"):
        task.evaluate(Fixed(), "train")


def test_what_cannot_be_learned() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        TextTypingTask(corpus=CORPUS, batch_size=0)
    with pytest.raises(DataError, match="The split 'valid' has no fragments"):
        TextTypingTask(corpus=TextTypeCorpus(CORPUS.train, (), CORPUS.test, CORPUS.types))
    with pytest.raises(DataError, match="no training example"):
        TextTypingTask(corpus=TextTypeCorpus(CORPUS.train[:2], CORPUS.valid, CORPUS.test, CORPUS.types))
