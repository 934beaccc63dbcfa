import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.language import HiddenState, LanguageBatch, LanguageOutput, LanguageSizes
from sparse_bench.data.ptb_like import ptb_like
from sparse_bench.data.text import TextCorpus, numbered_corpus
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.streams import Streams
from sparse_bench.tasks.language_modelling import LanguageModellingTask

STREAMS = Streams(0)


class Counting(nn.Module):
    """Gives every word the same score but the one after the input; its state counts the tokens that it has seen."""

    def __init__(self, sizes: LanguageSizes, certainty: float = 0.0, penalty: float = 0.0) -> None:
        super().__init__()
        self.sizes, self.penalty = sizes, penalty
        self.certainty = nn.Parameter(torch.tensor(certainty))
        self.seen: list[int] = []

    def forward(self, inputs: Tensor, state: HiddenState | None) -> LanguageOutput:
        before = inputs.new_zeros(inputs.shape[1]) if state is None else state[0][0]
        self.seen.append(int(before[0]))
        following = (inputs + 1) % self.sizes.vocabulary
        logits = F.one_hot(following, self.sizes.vocabulary) * self.certainty
        penalties = {"extra": self.certainty * 0 + self.penalty} if self.training else {}
        return LanguageOutput(logits, penalties, ((before + inputs.shape[0],),))


def corpus() -> TextCorpus:
    """Numbers 0 to 9 over and over: with eos=False word number n is followed by n + 1."""
    words = ["<unk>", *"abcdefghi"]
    return numbered_corpus([words * 11], [words * 3], [words * 2], eos=False)


def make(**settings: Any) -> LanguageModellingTask:
    return LanguageModellingTask(
        **{"corpus": corpus(), "batch_size": 2, "bptt": 10, "valid_batch_size": 2, "test_batch_size": 1, **settings}
    )


def test_perplexity_of_a_model_that_knows_nothing_is_the_size_of_the_vocabulary() -> None:
    task = make()
    for split in task.splits:
        metrics = task.evaluate(Counting(task.sizes), split)
        assert metrics["perplexity"] == pytest.approx(10.0)
        assert metrics["cross_entropy"] == pytest.approx(math.log(10))


def test_metrics_are_means_over_predicted_tokens() -> None:
    """Not over all tokens: in each stream the first one is not predicted."""
    task = make()
    model = Counting(task.sizes, certainty=2.0)
    metrics = task.evaluate(model, "test")
    assert metrics["accuracy"] == 1.0
    assert metrics["cross_entropy"] == pytest.approx(math.log(1 + 9 * math.exp(-2.0)))


def test_both_batchings_are_evaluated_on_the_same_words() -> None:
    """Two lines of three words in one stream: 5 targets, 4 without the second line's start. Sentences have 2 each."""
    lines = [["a", "b", "c"], ["b", "c", "a"]]
    text = numbered_corpus(lines * 2, lines, lines, eos=False)
    settings = {"corpus": text, "batch_size": 1, "valid_batch_size": 1, "bptt": 2}

    def targets(**more: Any) -> list[int]:
        held_out = LanguageModellingTask(**settings, **more)._held_out["valid"]
        assert sum(batch.tokens for batch in held_out) == sum(int((batch.targets >= 0).sum()) for batch in held_out)
        return sorted(int(t) for batch in held_out for t in batch.targets.flatten() if t >= 0)

    a, b, c = (text.words.index(word) for word in "abc")
    assert targets() == sorted([b, c, b, c, a])
    assert targets(evaluate_line_starts=False) == targets(batching="sentences") == sorted([b, c, c, a])


def test_evaluation_carries_the_state_and_leaves_the_trainings_alone() -> None:
    task = make()
    model = Counting(task.sizes)
    batch = next(iter(task.epoch_batches(0, STREAMS)))
    task.loss(model, batch)
    kept = task.state_dict()["hidden"][0][0].clone()
    model.seen.clear()
    task.evaluate(model, "test")  # 20 tokens in one stream: chunks of 10 and 9
    assert model.seen == [0, 10]
    assert torch.equal(task.state_dict()["hidden"][0][0], kept)


def test_an_overflowing_perplexity_is_infinite() -> None:
    task = make()
    assert task.evaluate(Counting(task.sizes, certainty=-2000.0), "test")["perplexity"] == math.inf


def test_loss_parts_and_what_the_trainer_is_told() -> None:
    task = make()
    model = Counting(task.sizes, certainty=1.0, penalty=0.25)
    batches = list(task.epoch_batches(0, STREAMS))
    losses = [task.loss(model, batch) for batch in batches]
    expected = math.log(1 + 9 * math.exp(-1.0))
    for batch, loss in zip(batches, losses, strict=True):
        assert loss.total.item() == pytest.approx(expected + 0.25)
        assert loss.parts["extra"].item() == 0.25
        assert loss.tokens == loss.examples == batch.inputs.numel()
        assert loss.learning_rate_factor == batch.learning_rate_factor
    # Means over the batches are means over the epoch's tokens, though chunks differ in length.
    assert len({batch.tokens for batch in batches}) > 1
    for name, value in (("cross_entropy", expected), ("accuracy", 1.0)):
        assert sum(loss.parts[name].item() for loss in losses) / len(losses) == pytest.approx(value)


def test_padding_counts_nowhere() -> None:
    task = make(batching="sentences")
    logits = torch.zeros(2, 2, 10)
    logits[:, :, 3] = 5.0
    targets = torch.tensor([[3, 3], [3, -100]])

    class Fixed(nn.Module):
        def forward(self, inputs: Tensor, state: HiddenState | None) -> LanguageOutput:
            assert state is None
            return LanguageOutput(logits.requires_grad_(), {}, ())

    loss = task.loss(Fixed(), LanguageBatch(torch.zeros(2, 2, dtype=torch.int64), targets, tokens=3, starts=True))
    assert loss.parts["accuracy"].item() == 1.0
    assert loss.total.item() == pytest.approx(math.log(1 + 9 * math.exp(-5.0)))
    loss.total.backward()
    assert logits.grad is not None
    assert logits.grad[1, 1].abs().sum() == 0


def test_the_state_is_carried_through_an_epoch_and_zero_at_its_start() -> None:
    task = make()
    model = Counting(task.sizes)
    for _ in range(2):
        expected, position = [], 0
        model.seen.clear()
        for batch in task.epoch_batches(0, STREAMS):
            task.loss(model, batch)
            expected.append(position)
            position += batch.inputs.shape[0]
        assert model.seen == expected
        assert len(expected) > 2


def test_a_run_that_starts_does_not_see_another_ones_state() -> None:
    task = make()
    used, fresh = Counting(task.sizes), Counting(task.sizes)
    batches = list(task.epoch_batches(0, STREAMS))
    for batch in batches[:2]:
        task.loss(used, batch)
    task.loss(fresh, batches[0])
    assert fresh.seen == [0]


def test_the_state_is_saved_and_restored() -> None:
    task, other = make(), make()
    model = Counting(task.sizes)
    batches = list(task.epoch_batches(0, STREAMS))
    task.loss(model, batches[0])
    other.load_state_dict(task.state_dict())
    other.loss(model, batches[1])
    assert model.seen == [0, batches[0].inputs.shape[0]]
    other.reset()
    assert other.state_dict() == {"hidden": None}


def test_batches_are_a_function_of_epoch_and_seed() -> None:
    task = make(corpus=ptb_like(sentences=100), batch_size=4, bptt=20, longest=60)

    def lengths(epoch: int, seed: int) -> list[int]:
        batches = list(task.epoch_batches(epoch, Streams(seed)))
        assert len(batches) == task.epoch_steps(epoch, Streams(seed))
        return [batch.inputs.shape[0] for batch in batches]

    assert lengths(0, 0) == lengths(0, 0) != lengths(1, 0)
    assert lengths(0, 0) != lengths(0, 1)


def test_fixed_lengths_keep_the_rate() -> None:
    task = make(variable_length=False)
    batches = list(task.epoch_batches(0, STREAMS))
    assert [batch.inputs.shape[0] for batch in batches] == [10, 10, 10, 10, 10, 4]
    assert {batch.learning_rate_factor for batch in batches} == {1.0}


def test_sentences_are_trained_and_evaluated_apart() -> None:
    task = make(corpus=ptb_like(sentences=60), batching="sentences", batch_size=8, valid_batch_size=4)
    batches = list(task.epoch_batches(0, STREAMS))
    assert len(batches) == task.epoch_steps(0, STREAMS) == 8
    assert all(batch.starts for batch in batches)
    model = Counting(task.sizes)
    assert task.evaluate(model, "valid")["perplexity"] == pytest.approx(task.sizes.vocabulary)
    assert set(model.seen) == {0}


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="continuous, sentences"):
        make(batching="chunks")
    with pytest.raises(ConfigError, match="at least bptt"):
        make(longest=9)
    with pytest.raises(ConfigError, match="Unknown split"):
        make().evaluate(nn.Identity(), "train")
    with pytest.raises(DataError, match="too few for 50 parallel streams"):
        make(batch_size=50)
    single = numbered_corpus([["a"]], [["a"]], [["a"]], eos=False)
    with pytest.raises(DataError, match="two tokens"):
        make(corpus=single, batching="sentences")
