import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparse_bench.batch import IntentBatch
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.sara import sara
from sparse_bench.errors import ConfigError
from sparse_bench.streams import Streams
from sparse_bench.tasks.balancing import balanced_order
from sparse_bench.tasks.intent import IntentTask
from tests.tasks.nlu_corpus import small_corpus

TAGS = 9  # O and B, I, L, U of city and drink


def make(**settings) -> IntentTask:
    return IntentTask(**{"corpus": small_corpus, "batch_epochs": 10, "batch_size": (8, 16), **settings})


@pytest.fixture(scope="module")
def task() -> IntentTask:
    return make()


class LinearModel(nn.Module):
    """Intents from sentence features, tags from token features."""

    def __init__(self, sizes):
        super().__init__()
        self.intents = nn.EmbeddingBag(sizes.sentence_features, sizes.intents.rows, mode="sum")
        self.tags = nn.EmbeddingBag(sizes.token_features, max(sizes.tags, 1), mode="sum")
        self.drop = nn.Dropout(0.5)

    def scores(self, batch: IntentBatch):
        return [
            bag(rows.indices, rows.offsets, per_sample_weights=rows.values)
            for bag, rows in ((self.intents, batch.sentences), (self.tags, batch.tokens))
        ]

    def forward(self, batch: IntentBatch):
        intents, tags = self.scores(batch)
        return {
            "intent": F.cross_entropy(self.drop(intents), batch.intents),
            "entity": F.cross_entropy(tags, batch.tags),
        }

    def predict(self, batch: IntentBatch):
        intents, tags = self.scores(batch)
        return intents, tags.argmax(dim=1)


class Oracle(nn.Module):
    """Predicts the labels of the batch, but for messages with more than ``longest`` tokens."""

    def __init__(self, longest: int = 99):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.longest = longest
        self.batches = 0

    def predict(self, batch: IntentBatch):
        self.batches += 1
        wrong = (batch.token_layout.lengths > self.longest).long()
        return F.one_hot((batch.intents + wrong) % 4, 4).float(), batch.tags


def flat(batch: IntentBatch) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    batch.map(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def same(one: list[IntentBatch], other: list[IntentBatch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(flat(x), flat(y), strict=True)
    )


class TestSizes:
    def test_labels(self, task):
        assert task.intents == ["faq", "greet", "order", "travel"]
        assert task.entity_types == ["city", "drink"]
        assert task.sizes.tags == TAGS

    def test_intents_are_one_hot(self, task):
        intents = task.sizes.intents
        assert task.sizes.intent_features == intents.rows == 4
        table = F.embedding_bag(
            intents.indices, torch.eye(4), intents.offsets, mode="sum", per_sample_weights=intents.values
        )
        assert torch.equal(table, torch.eye(4))

    def test_widths_fit_the_features(self, task):
        for arrays in (task.train, task.test):
            batch = arrays.batch(np.arange(len(arrays)))
            assert int(batch.tokens.indices.max()) < task.sizes.token_features
            assert int(batch.sentences.indices.max()) < task.sizes.sentence_features

    def test_frequencies_are_those_of_the_training_data(self, task):
        batch = task.train.batch(np.arange(len(task.train)))
        for part, rows in (("token", batch.tokens), ("sentence", batch.sentences)):
            width = getattr(task.sizes, f"{part}_features")
            assert torch.bincount(rows.indices, minlength=width).tolist() == [*task.sizes.frequencies[part]]
        assert sum(task.sizes.frequencies["label"]) == len(task.train)
        assert task.sizes.frequencies["label"][0] == (task.train.intents == 0).sum()

    def test_lexical_features_are_the_tokens_alone(self, task):
        assert 10 < task.sizes.token_features - task.sizes.sentence_features <= 24

    def test_without_entities(self):
        task = make(entities=False)
        assert task.sizes.tags == 0
        assert not task.train.tags.any()
        assert task.evaluate(Oracle(), "test") == {"intent_f1": 1.0, "intent_accuracy": 1.0}

    def test_a_corpus_without_entities(self):
        messages = tuple(message for message in small_corpus().messages if not message.entities)
        task = make(corpus=NluCorpus(messages))
        assert task.sizes.tags == 1
        assert task.entity_types == []

    def test_the_corpus_may_be_given_or_made(self, task):
        assert make(corpus=small_corpus()).corpus == task.corpus
        assert task.checksums() == {"small": "0" * 64}


class TestEpoch:
    def test_steps_are_the_batches(self, task):
        for epoch in (0, 5, 9, 20):
            assert task.epoch_steps(epoch, Streams(1)) == len(list(task.epoch_batches(epoch, Streams(1))))

    def test_batch_sizes_grow(self, task):
        for epoch, size in ((0, 8), (1, 8), (5, 12), (9, 16), (30, 16)):
            sizes = [batch.intents.shape[0] for batch in task.epoch_batches(epoch, Streams(0))]
            assert set(sizes[:-1]) == {size}
            assert 0 < sizes[-1] <= size

    def test_order_is_the_balanced_one(self, task):
        streams = Streams(3)
        order = balanced_order(task.train.intents, 8, streams.numpy("data", 0).permutation)
        intents = torch.cat([batch.intents for batch in task.epoch_batches(0, streams)])
        assert intents.tolist() == task.train.intents[order].tolist()

    def test_unbalanced_epochs_visit_each_message_once(self):
        task = make(balanced=False)
        batches = list(task.epoch_batches(0, Streams(0)))
        assert [batch.intents.shape[0] for batch in batches] == [8, 8, 8, 8, 8, 7]
        counts = np.bincount(torch.cat([batch.intents for batch in batches]).numpy())
        assert counts.tolist() == np.bincount(task.train.intents).tolist()

    def test_an_epoch_is_a_function_of_seed_and_epoch(self, task):
        first = list(task.epoch_batches(1, Streams(0)))
        assert same(first, list(make().epoch_batches(1, Streams(0))))
        list(task.epoch_batches(2, Streams(0)))
        assert same(first, list(task.epoch_batches(1, Streams(0))))
        assert not same(first, list(task.epoch_batches(1, Streams(1))))
        assert not same(first, list(task.epoch_batches(0, Streams(0))))

    def test_an_epoch_does_not_depend_on_what_the_model_draws(self, task):
        expected = list(task.epoch_batches(4, Streams(0)))
        fresh = make()
        model = LinearModel(fresh.sizes)
        found = []
        for batch in fresh.epoch_batches(4, Streams(0)):
            model(batch)["intent"].backward()
            found.append(batch)
        assert same(expected, found)

    def test_the_split_does_not_depend_on_the_seed_of_the_run(self, task):
        assert make().test_messages == task.test_messages
        assert make(split_seed=1).test_messages != task.test_messages


class TestLoss:
    def test_parts_are_summed(self, task):
        batch = next(task.epoch_batches(0, Streams(0)))
        loss = task.loss(LinearModel(task.sizes).eval(), batch)
        assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()))
        assert loss.parts.keys() == {"intent", "entity"}
        assert not any(part.requires_grad for part in loss.parts.values())
        assert (loss.examples, loss.tokens) == (8, batch.tags.shape[0])

    def test_on_the_meta_device(self, task):
        batch = next(task.epoch_batches(0, Streams(0))).to(torch.device("meta"))
        loss = task.loss(LinearModel(task.sizes).to("meta"), batch)
        assert loss.total.is_meta
        assert loss.examples == 8


class TestEvaluate:
    def test_an_oracle_is_always_right(self, task):
        metrics = task.evaluate(Oracle(), "test")
        assert metrics.keys() == {
            *("intent_f1", "intent_accuracy"),
            *("entity_f1", "entity_precision", "entity_recall"),
            *("entity_span_f1", "entity_span_precision", "entity_span_recall"),
        }
        assert set(metrics.values()) == {1.0}

    def test_batches_are_of_like_length_and_the_numbers_do_not_depend_on_them(self):
        one, several = make(), make(evaluate_batch_size=5)
        oracle = Oracle(longest=2)
        metrics = several.evaluate(oracle, "test")
        assert oracle.batches == -(-len(several.test) // 5)
        assert metrics == one.evaluate(oracle, "test")
        short = (several.test.lengths <= 2).mean()
        assert 0 < short < 1
        assert metrics["intent_accuracy"] == pytest.approx(short)

    def test_evaluation_keeps_no_graph(self, task):
        seen = []
        model = LinearModel(task.sizes)
        model.predict = lambda batch: seen.append(model.scores(batch)) or (seen[-1][0], seen[-1][1].argmax(1))
        task.evaluate(model, "test")
        assert not any(tensor.requires_grad for tensor in seen[0])

    def test_an_unknown_split_is_named(self, task):
        with pytest.raises(ConfigError, match=r"Unknown split 'valid'.*Valid choices: test"):
            task.evaluate(Oracle(), "valid")

    def test_a_linear_model_learns(self, task):
        torch.manual_seed(0)
        model = LinearModel(task.sizes)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        before = task.evaluate(model.eval(), "test")
        model.train()
        for epoch in range(6):
            for batch in task.epoch_batches(epoch, Streams(0)):
                optimizer.zero_grad()
                task.loss(model, batch).total.backward()
                optimizer.step()
        after = task.evaluate(model.eval(), "test")
        assert after["intent_f1"] > max(0.9, before["intent_f1"])
        assert after["entity_f1"] > max(0.9, before["entity_f1"])


def test_entities_that_are_left_out_are_counted(caplog):
    """In the log, once and with two examples, and in the notes of the result."""
    messages = [
        replace(message, entities=tuple(replace(entity, end=entity.end - 1) for entity in message.entities))
        if message.intent == "travel"
        else message
        for message in small_corpus().messages
    ]
    task = make(corpus=replace(small_corpus(), messages=tuple(messages)))
    in_test = sum(message.intent == "travel" for message in task.test_messages)
    assert 0 < in_test < 24
    assert task.notes() == {"entities_left_out": f"24 of 36, {in_test} of them in the test"}
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"left out: 24 of 36, {in_test} of them in the test. For example: 'Rom' in 'go to Rome today!'; " in said
    assert said.count(" in 'go to") == 2
    kinds = {(tag - 1) // 4 for tag in np.concatenate([task.train.tags, task.test.tags]) if tag}
    assert kinds == {task.entity_types.index("drink")}


def test_where_all_entities_are_learned_nothing_is_said(caplog):
    assert make().notes() == {}
    assert make(entities=False).notes() == {}
    assert not caplog.records


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": (8,)},
        {"batch_size": (0, 8)},
        {"batch_epochs": 0},
        {"evaluate_batch_size": 0},
        {"char_ngrams": ()},
    ],
)
def test_settings_outside_their_range_are_named(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(**settings)


def test_sara(shared_data, monkeypatch):
    """The real corpus has the sizes that are known of it."""
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    task = IntentTask(corpus=sara, batch_epochs=200)
    assert len(task.intents) == 32
    assert len(task.entity_types) == 10
    assert (len(task.train), len(task.test)) == (3972, 993)
    everything = np.concatenate([task.train.lengths, task.test.lengths])
    assert everything.mean() == pytest.approx(4.9, abs=0.05)
    assert everything.max() == 24
    # Every annotated entity begins and ends with a token.
    entities = sum(len(message.entities) for message in (*task.train_messages, *task.test_messages))
    begins = [tags[(tags > 0) & np.isin((tags - 1) % 4, (0, 3))].size for tags in (task.train.tags, task.test.tags)]
    assert sum(begins) == entities
    assert task.notes() == {}
    assert task.evaluate(Oracle32(), "test")["entity_span_f1"] == 1


class Oracle32(Oracle):
    def predict(self, batch: IntentBatch):
        return F.one_hot(batch.intents, 32).float(), batch.tags


def test_validation_messages_are_training_messages_and_the_test_stays():
    without, task = make(), make(validation_fraction=0.25)
    assert (without.splits, task.splits) == (("test",), ("valid", "test"))
    assert task.inputs("test") == without.inputs("test")
    assert sorted(task.inputs("train") + task.inputs("valid")) == sorted(without.inputs("train"))
    assert len(task.held_out["valid"]) == math.ceil(0.25 * len(without.train))
    found = task.evaluate(Oracle(), "valid")
    assert found["intent_accuracy"] == 1.0
    assert set(task.unknown_tokens) == {"valid", "test"}
