"""Byte-pair encoding: lossless, learned once, the same every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.data.multi30k_like import multi30k_like
from sparse_bench.data.subwords import Subwords, train_subwords
from sparse_bench.errors import ConfigError

SENTENCES = [line.split() for line in multi30k_like(400, 20, 20).train.target]


@pytest.fixture(scope="module")
def subwords(tmp_path_factory) -> Subwords:
    return train_subwords(SENTENCES, 200, tmp_path_factory.mktemp("bpe"))


def test_training_sentences_round_trip(subwords):
    pieces = subwords.split(SENTENCES)
    assert [subwords.join(sentence) for sentence in pieces] == SENTENCES
    assert sum(map(len, pieces)) > sum(map(len, SENTENCES))
    assert len({piece for sentence in pieces for piece in sentence}) <= len(subwords) == 200


@given(st.lists(st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="▁"), min_size=1), min_size=1))
def test_any_words_round_trip(subwords, words):
    words = [word for word in words if word.split() == [word]]
    assert subwords.join(subwords.split([words])[0]) == words


def test_no_pieces_are_no_words(subwords):
    assert subwords.join([]) == []


def test_what_was_learned_is_kept_and_learned_again_alike(tmp_path):
    first = train_subwords(SENTENCES, 150, tmp_path / "one")
    (model,) = (tmp_path / "one").iterdir()
    content, time = model.read_bytes(), model.stat().st_mtime_ns
    assert train_subwords(SENTENCES, 150, tmp_path / "one").split(SENTENCES) == first.split(SENTENCES)
    assert model.stat().st_mtime_ns == time  # read, not learned again
    train_subwords(SENTENCES, 150, tmp_path / "two")
    assert (tmp_path / "two" / model.name).read_bytes() == content


def test_other_sentences_or_sizes_are_other_models(tmp_path):
    for sentences, size in ((SENTENCES, 150), (SENTENCES, 160), (SENTENCES[1:], 150)):
        train_subwords(sentences, size, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_default_place_is_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    train_subwords(SENTENCES, 150)
    assert len(list((tmp_path / "derived").glob("bpe-*.model"))) == 1


def test_the_longest_sentence_is_learned_from_too(tmp_path):
    """Sentencepiece alone would leave out what has more than 4,192 bytes, without a word."""
    long = ["zürich"] * 2000
    assert train_subwords([*SENTENCES, long], 200, tmp_path).split([long])[0] == ["▁zürich"] * 2000


def test_what_sentencepiece_leaves_out_is_said(tmp_path, caplog):
    train_subwords([*SENTENCES, ["a", "▅"]], 150, tmp_path)
    assert "without 1 of 401 training sentences, which contain U+2585" in caplog.text
    caplog.clear()
    train_subwords(SENTENCES, 150, tmp_path)
    assert not caplog.text


@pytest.mark.parametrize("size", [10, 100_000])
def test_sizes_that_do_not_fit(size, tmp_path):
    with pytest.raises(ConfigError, match=f"bpe={size} does not fit"):
        train_subwords(SENTENCES, size, tmp_path)
    assert not list(tmp_path.iterdir())
