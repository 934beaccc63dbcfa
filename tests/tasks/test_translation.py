"""Translation: numbers, batches, loss, metrics."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK, TranslationBatch
from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.data.multi30k_like import multi30k_like
from sparse_bench.data.parallel import ParallelText
from sparse_bench.errors import ConfigError
from sparse_bench.run import run
from sparse_bench.streams import Streams
from sparse_bench.tasks.translation import TranslationTask
from sparse_bench.tasks.translation_data import Sentences
from tests.tasks.padding import padding_share
from tests.tasks.tiny_translator import Oracle, TinyTranslator, make, small_corpus


@pytest.fixture(scope="module")
def task() -> TranslationTask:
    return make()


@pytest.fixture(scope="module")
def like() -> TranslationTask:
    return TranslationTask(corpus=multi30k_like(600, 40, 40), min_count=2, evaluate_batch_size=16)


def flat(batch: TranslationBatch) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    batch.map(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def same(one: list[TranslationBatch], other: list[TranslationBatch]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(flat(x), flat(y), strict=True)
    )


def sentences(batches: list[TranslationBatch]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Source and target of every pair without padding, sorted."""
    found = []
    for batch in batches:
        for number, (row, mask) in enumerate(zip(batch.source, batch.source_mask, strict=True)):
            target = batch.target_output[batch.target_sentence == number]
            found.append((tuple(row[mask].tolist()), tuple(target.tolist())))
    return sorted(found)


class TestNumbers:
    def test_sentences_stand_between_begin_and_end(self):
        arrays = Sentences.of([np.array([7, 8, 9]), np.array([5])])
        assert arrays.tokens.tolist() == [BOS, 7, 8, 9, EOS, BOS, 5, EOS]
        assert arrays.starts.tolist() == [0, 5]
        assert arrays.lengths.tolist() == [5, 3]

    def test_sizes(self, task):
        source, target = task.corpus.train.source, task.corpus.train.target
        assert task.sizes.source_vocabulary == 4 + len({w for line in source for w in line.split()})
        assert task.sizes.target_vocabulary == 4 + len({w for line in target for w in line.split()})
        assert task.sizes.longest == 7  # "a dog runs fast ." between BOS and EOS

    def test_held_out_words_are_unknown_and_case_is_kept(self, task):
        batch = task.encoded.valid.batch(np.array([1]))  # "a cat runs ." → "eine Katze läuft ."
        assert batch.source[0].tolist().count(UNK) == 1
        assert batch.target_output.tolist()[:2] == [UNK, UNK]
        assert {"Mann", "ein"} <= set(task.encoded.target.vocabulary.itos)
        assert "mann" not in task.encoded.target.vocabulary.stoi

    def test_a_joint_vocabulary(self):
        task = make(joint_vocabulary=True)
        assert task.encoded.source.vocabulary is task.encoded.target.vocabulary
        assert task.sizes.source_vocabulary == task.sizes.target_vocabulary
        dot = task.encoded.source.vocabulary.stoi["."]
        batch = task.train.batch(np.array([0]))
        assert batch.source[0, -2] == batch.target_output[-2] == dot

    def test_subwords(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
        corpus = multi30k_like(300, 20, 20)
        words, pieces, joint = (
            TranslationTask(corpus=corpus, **settings)
            for settings in ({}, {"bpe": 150}, {"bpe": 250, "joint_vocabulary": True})
        )
        assert pieces.sizes.target_vocabulary <= 150 < words.sizes.target_vocabulary
        assert joint.sizes.source_vocabulary == joint.sizes.target_vocabulary <= 250
        assert pieces.train.target_lengths.sum() > words.train.target_lengths.sum()
        for task in (words, pieces, joint):
            metrics = task.evaluate(Oracle(task), "test")
            assert metrics["sentence_accuracy"] == 1
        # Whatever the pieces, they are put together to the words that the reference has; single words may be unknown.
        for task in (pieces, joint):
            assert task.evaluate(Oracle(task), "test")["bleu"] == pytest.approx(100)

    def test_words_and_subwords_are_learned_from_training_text_alone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
        corpus = multi30k_like(300, 20, 20)
        # "zyx" would be a piece of its own, and a known word, if the held-out lines were learned from.
        line = ParallelText(("zyx " * 30,) * 20, ("zyx " * 30,) * 20)
        other = replace(corpus, valid=line, test=line, references=line.target)
        for settings in ({"min_count": 2}, {"bpe": 150}, {"bpe": 250, "joint_vocabulary": True}):
            monkeypatch.setattr("sparse_bench.tasks.shares.REFUSED", 1.0)  # nothing of these lines is known
            one, two = (TranslationTask(corpus=given, **settings).encoded for given in (corpus, other))
            for side in ("source", "target"):
                tokens = getattr(one, side).vocabulary.itos
                assert tokens == getattr(two, side).vocabulary.itos
                assert not any("zyx" in token for token in tokens)
            assert np.array_equal(one.train.source.tokens, two.train.source.tokens)
        assert len(list((tmp_path / "derived").iterdir())) == 3  # a model of each language, and one of both


class TestBatch:
    def test_by_hand(self, task):
        source, target = (side.vocabulary.stoi for side in (task.encoded.source, task.encoded.target))
        batch = task.train.batch(np.array([6, 0]))  # "a dog" → "Hund", "a man runs ." → "ein Mann läuft ."
        a, dog, man, runs, dot = (source[word] for word in ("a", "dog", "man", "runs", "."))
        ein, mann, hund, laeuft, punkt = (target[word] for word in ("ein", "Mann", "Hund", "läuft", "."))
        assert batch.source.tolist() == [[BOS, a, dog, EOS, PAD, PAD], [BOS, a, man, runs, dot, EOS]]
        assert batch.source_mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
        assert batch.target_input.tolist() == [[BOS, hund, PAD, PAD, PAD], [BOS, ein, mann, laeuft, punkt]]
        assert batch.target_output.tolist() == [hund, EOS, ein, mann, laeuft, punkt, EOS]
        assert batch.target_rows.tolist() == [0, 1, 5, 6, 7, 8, 9]
        assert batch.target_sentence.tolist() == [0, 0, 1, 1, 1, 1, 1]
        assert batch.target_lengths.tolist() == [2, 5]

    def test_types(self, task):
        batch = task.train.batch(np.arange(4))
        assert {tensor.dtype for tensor in flat(batch)} == {torch.int64, torch.bool}
        assert batch.source_mask.dtype == torch.bool

    def test_what_is_read_is_what_was_said_before(self, like):
        for batch in like.epoch_batches(0, Streams(0)):
            read = batch.target_input.flatten()[batch.target_rows]
            first = torch.cat([torch.ones(1, dtype=torch.bool), batch.target_sentence.diff() > 0])
            assert (read[first] == BOS).all()
            assert torch.equal(read[~first], batch.target_output[~first.roll(-1)])
            assert (batch.target_output[first.roll(-1)] == EOS).all()


class TestEpoch:
    @pytest.mark.parametrize("bucketed", [True, False])
    def test_every_pair_comes_once(self, bucketed):
        task = make(bucketed=bucketed)
        batches = list(task.epoch_batches(3, Streams(1)))
        assert task.epoch_steps(3, Streams(1)) == len(batches) == 4
        everything = task.train.batch(np.arange(len(task.train)))
        assert sentences(batches) == sentences([everything])

    @pytest.mark.parametrize("bucketed", [True, False])
    def test_an_epoch_is_a_function_of_seed_and_epoch(self, bucketed):
        task, fresh = make(bucketed=bucketed), make(bucketed=bucketed)
        first = list(task.epoch_batches(1, Streams(0)))
        assert same(first, list(fresh.epoch_batches(1, Streams(0))))
        list(task.epoch_batches(2, Streams(0)))
        assert same(first, list(task.epoch_batches(1, Streams(0))))
        assert not same(first, list(task.epoch_batches(1, Streams(1))))
        assert not same(first, list(task.epoch_batches(0, Streams(0))))

    def test_an_epoch_goes_on_where_it_stopped(self, like):
        whole = list(like.epoch_batches(2, Streams(0)))
        torch.rand(7)
        resumed = TranslationTask(corpus=multi30k_like(600, 40, 40), min_count=2).epoch_batches(2, Streams(0))
        for _ in range(5):
            next(resumed)
        assert same(whole[5:], list(resumed))

    def test_buckets_pad_less(self):
        corpus = multi30k_like(2000, 20, 20)
        shares = []
        for settings in ({}, {"pool": 4}, {"bucketed": False}):
            task = TranslationTask(corpus=corpus, **settings)
            masks = [batch.source_mask for batch in task.epoch_batches(0, Streams(0))]
            shares.append(1 - sum(m.sum().item() for m in masks) / sum(m.numel() for m in masks))
        assert all(one < other for one, other in pairwise(shares))


class TestLoss:
    def batch(self, task: TranslationTask) -> TranslationBatch:
        return task.train.batch(np.array([6, 0, 4]))  # 2, 5 and 5 target positions

    def test_by_sentence_and_by_token(self, task):
        torch.manual_seed(0)
        model, batch = TinyTranslator(task.sizes), self.batch(task)
        nll = F.cross_entropy(model(batch), batch.target_output, reduction="none")
        by_sentence = (nll[:2].mean() + nll[2:7].mean() + nll[7:].mean()) / 3
        for kind, expected in (("sentence", by_sentence), ("token", nll.mean())):
            loss = make(loss=kind).loss(model, batch)
            torch.testing.assert_close(loss.total, expected)
            torch.testing.assert_close(loss.parts["token_nll"], nll.mean().detach())
            assert (loss.examples, loss.tokens) == (3, 12)
            assert not loss.parts["token_nll"].requires_grad
            gradient = torch.autograd.grad(loss.total, model.output.weight)
            torch.testing.assert_close(gradient, torch.autograd.grad(expected, model.output.weight, retain_graph=True))

    def test_label_smoothing(self, task):
        torch.manual_seed(0)
        model, batch = TinyTranslator(task.sizes), self.batch(task)
        loss = make(loss="token", label_smoothing=0.1).loss(model, batch)
        scores = model(batch)
        torch.testing.assert_close(loss.total, F.cross_entropy(scores, batch.target_output, label_smoothing=0.1))
        torch.testing.assert_close(loss.parts["token_nll"], F.cross_entropy(scores, batch.target_output).detach())

    def test_padding_has_no_part_in_it(self, task):
        torch.manual_seed(0)
        model = TinyTranslator(task.sizes)
        alone = [task.loss(model, task.train.batch(np.array([pair]))).total for pair in (6, 0)]
        together = task.loss(model, task.train.batch(np.array([6, 0]))).total
        torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)

    @pytest.mark.parametrize("kind", ["sentence", "token"])
    def test_on_the_meta_device(self, kind):
        task = make(loss=kind, label_smoothing=0.1)
        batch = task.train.batch(np.array([0, 3])).to(torch.device("meta"))
        model = TinyTranslator(task.sizes).to("meta")
        loss = task.loss(model, batch)
        loss.total.backward()
        assert loss.total.is_meta
        assert loss.examples == 2
        assert model.output.weight.grad is not None


class TestEvaluate:
    def test_an_oracle_is_always_right(self, task):
        metrics = task.evaluate(Oracle(task), "test")
        right = {"sentence_accuracy": 1, "token_accuracy": 1, "loss": 0, "perplexity": 1, "chrf": 100, "ter": 0}
        assert {name: metrics[name] for name in right} == pytest.approx(right)
        assert metrics.keys() == {*right, "bleu", "meteor"}
        assert task.evaluate(Oracle(task), "valid").keys() == set(right) - {"chrf", "ter"}

    def test_accuracies_by_hand(self, task):
        # The first of the 5, 3 and 3 tokens is wrong.
        metrics = task.evaluate(Oracle(task, wrong=True), "test")
        assert metrics["sentence_accuracy"] == pytest.approx((4 / 5 + 2 / 3 + 2 / 3) / 3)
        assert metrics["token_accuracy"] == pytest.approx(8 / 11)
        assert metrics["loss"] == pytest.approx(100 * (1 / 5 + 1 / 3 + 1 / 3) / 3)
        assert metrics["perplexity"] == pytest.approx(math.exp(300 / 11))

    def test_unknown_is_a_target_like_any_other(self, task):
        # "eine Katze läuft ." has two unknown tokens at first: saying UNK there is right.
        metrics = task.evaluate(Oracle(task, wrong=True), "valid")
        assert metrics["sentence_accuracy"] == pytest.approx((2 / 3 + 1) / 2)

    def test_numbers_do_not_depend_on_the_batches(self, like):
        torch.manual_seed(0)
        model = TinyTranslator(like.sizes)
        one = like.evaluate(model, "test")
        other = TranslationTask(corpus=multi30k_like(600, 40, 40), min_count=2, evaluate_batch_size=7)
        assert other.evaluate(model, "test") == pytest.approx(one, rel=1e-5)

    def test_translations_are_compared_with_their_own_references(self, like):
        metrics = like.evaluate(Oracle(like), "test")
        unknown = (like.encoded.test.target.tokens == UNK).sum()
        assert unknown > 0
        assert 80 < metrics["bleu"] < 100

    def test_what_a_model_is_asked(self):
        task = make(beam=3, length_penalty=0.25, evaluate_batch_size=2)
        oracle = Oracle(task)
        task.evaluate(oracle, "test")
        assert oracle.asked == [
            {"shape": (2, 4), "beam": 3, "longest": 7, "length_penalty": 0.25},
            {"shape": (1, 6), "beam": 3, "longest": 7, "length_penalty": 0.25},
        ]

    def test_without_translation(self):
        task = make(translate=False)
        oracle = Oracle(task)
        assert "bleu" not in task.evaluate(oracle, "test")
        assert oracle.asked == []
        assert task.notes().keys() == {"tokenizer"}

    def test_tokenised_scores(self):
        task = make(detokenise=False)
        assert task.evaluate(Oracle(task), "test")["ter"] == 0
        assert "tok:none" in task.notes()["bleu"]
        references = tuple(f"{line} etwas anderes" for line in small_corpus().references)
        odd = small_corpus().__class__(**{**small_corpus().__dict__, "references": references})
        assert make(corpus=odd, detokenise=False).evaluate(Oracle(task), "test")["ter"] == 0
        assert make(corpus=odd).evaluate(Oracle(task), "test")["ter"] > 0

    def test_notes_have_the_signatures(self, task):
        notes = task.notes()
        assert notes.keys() == {"tokenizer", "bleu", "chrf", "ter", "meteor"}
        assert notes["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")

    def test_an_unknown_split_is_named(self, task):
        with pytest.raises(ConfigError, match=r"Unknown split 'train'.*Valid choices: test, valid"):
            task.evaluate(Oracle(task), "train")

    def test_evaluation_keeps_no_graph(self, task):
        model, seen = TinyTranslator(task.sizes), []
        model.register_forward_hook(lambda module, given, scores: seen.append(scores))
        task.evaluate(model, "valid")
        assert not any(scores.requires_grad for scores in seen)

    def test_a_small_model_learns(self, like):
        torch.manual_seed(0)
        model = TinyTranslator(like.sizes, width=16)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        before = like.evaluate(model.eval(), "test")
        model.train()
        for epoch in range(6):
            for batch in like.epoch_batches(epoch, Streams(0)):
                optimizer.zero_grad()
                like.loss(model, batch).total.backward()
                optimizer.step()
        after = like.evaluate(model.eval(), "test")
        assert after["sentence_accuracy"] > 0.25 > before["sentence_accuracy"]
        assert after["perplexity"] < 40 < before["perplexity"]
        assert after["chrf"] > before["chrf"]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"evaluate_batch_size": 0},
        {"beam": 0},
        {"pool": 0},
        {"loss": "sentences"},
        {"label_smoothing": 1.0},
        {"min_count": 0},
        {"tokenizer": "spaces"},
    ],
)
def test_settings_outside_their_range_are_named(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(**settings)


def test_signatures_are_in_the_result(toy_config):
    config = toy_config(
        model={"label": "tiny", "_target_": "tests.tasks.tiny_translator.TinyTranslator", "_partial_": True},
        dataset={
            "label": "tiny",
            "_target_": "sparse_bench.tasks.translation.TranslationTask",
            "_partial_": True,
            "corpus": {"_target_": "tests.tasks.tiny_translator.small_corpus"},
            "tokenizer": "tokenised",
        },
    )
    result = run(config)
    assert result is not None
    assert result.status == "finished", result.error
    assert {"test/bleu", "test/meteor", "valid/sentence_accuracy"} <= set(result.metrics)
    assert result.notes["bleu"].startswith("nrefs:1|")
    (written,) = Path(config.output).rglob("result.json")
    assert json.loads(written.read_text())["notes"] == result.notes


def test_multi30k_as_the_report_read_it(shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    task = TranslationTask(corpus=multi30k_brouns, tokenizer="tokenised", min_count=5)
    assert (task.sizes.source_vocabulary, task.sizes.target_vocabulary) == (3369, 3665)
    assert (len(task.train), task.epoch_steps(0, Streams(0))) == (29_000, 454)
    # Padding of both grids together, at batches of 64.
    lengths = np.concatenate([task.train.source.lengths, task.train.target_lengths])
    for epoch in range(2):
        pairs = task._epoch_pairs(epoch, Streams(epoch))
        both = [numbers + side * 29_000 for numbers in pairs for side in (0, 1)]
        assert padding_share(lengths, both) < 0.02
    # Translations may be as long as the longest sentence of all, and no reference reaches that.
    assert task.encoded.test.target_lengths.max() < task.sizes.longest == 47


def test_frequencies_are_those_of_the_training_tokens(like: TranslationTask) -> None:
    batch = like.train.batch(np.arange(len(like.train)))
    for side, tokens in (("source", batch.source[batch.source_mask]), ("target", batch.target_input)):
        counts = torch.bincount(tokens.flatten(), minlength=getattr(like.sizes, f"{side}_vocabulary"))
        found = list(getattr(like.sizes, f"{side}_frequencies"))
        assert found[PAD] == 0
        assert found[4:] == counts[4:].tolist()
        assert found[BOS] == found[EOS] == len(like.train)
