import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.batch.language import IGNORED
from sparse_bench.data.text import NumberedText
from sparse_bench.tasks.text_batches import (
    Chunk,
    Sentences,
    columnise,
    evaluation_batches,
    training_batches,
    training_chunks,
    variable_length,
)


def test_streams_stand_side_by_side_and_the_remainder_is_dropped() -> None:
    columns = columnise(np.arange(11), 3)
    assert columns.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert columns.dtype == torch.int64


def test_chunk_lengths_are_distributed_as_the_recipe_says() -> None:
    draw = np.random.default_rng(0)
    lengths = np.array([variable_length(70, 110, draw) for _ in range(40000)])
    assert lengths.min() >= 5
    assert lengths.max() <= 110
    short = lengths < 52
    assert 0.045 < short.mean() < 0.055
    # int() rounds down, so the means are half a token below 70 and 35.
    assert lengths[~short].mean() == pytest.approx(69.5, abs=0.1)
    assert lengths[short].mean() == pytest.approx(34.5, abs=0.5)
    assert lengths[~short].std() == pytest.approx(5.0, abs=0.1)


def test_bounds_of_chunk_lengths() -> None:
    draw = np.random.default_rng(0)
    assert {variable_length(2, 8, draw) for _ in range(500)} == {5, 6, 7, 8}


def test_chunks_of_a_fixed_length() -> None:
    # 11 tokens: 10 targets, of which the last chunk has what is left.
    assert training_chunks(11, 4, 110, None) == [Chunk(0, 4, 4), Chunk(4, 4, 4), Chunk(8, 4, 2)]
    # A single target that would be left is dropped, as in the authors' code.
    assert training_chunks(10, 4, 110, None) == [Chunk(0, 4, 4), Chunk(4, 4, 4)]


@given(rows=st.integers(3, 400), seed=st.integers(0, 99))
def test_chunks_cover_the_streams_without_gaps(rows: int, seed: int) -> None:
    chunks = training_chunks(rows, 20, 60, np.random.default_rng(seed))
    position = 0
    for chunk in chunks:
        assert chunk.start == position
        assert 1 <= chunk.length <= chunk.drawn
        position += chunk.drawn
    assert all(chunk.length == chunk.drawn for chunk in chunks[:-1])
    assert chunks[-1].start + chunks[-1].length in (rows - 1, rows - 2)


def test_batches_of_chunks() -> None:
    columns = columnise(np.arange(12), 2)
    first, second = training_batches(columns, [Chunk(0, 3, 3), Chunk(3, 6, 2)], base=4)
    assert first.inputs.tolist() == [[0, 6], [1, 7], [2, 8]]
    assert first.targets.tolist() == [[1, 7], [2, 8], [3, 9]]
    assert second.inputs.tolist() == [[3, 9], [4, 10]]
    assert (first.starts, second.starts) == (True, False)
    assert (first.tokens, second.tokens) == (6, 4)
    # The rate follows the length that was drawn, also where less was left.
    assert (first.learning_rate_factor, second.learning_rate_factor) == (0.75, 1.5)
    assert (first.weight, second.weight) == (1.2, 0.8)


def test_evaluation_predicts_every_token_but_each_streams_first() -> None:
    batches = evaluation_batches(columnise(np.arange(12), 2), 3)
    assert [batch.inputs.tolist() for batch in batches] == [[[0, 6], [1, 7], [2, 8]], [[3, 9], [4, 10]]]
    assert batches[1].targets.tolist() == [[4, 10], [5, 11]]
    assert [batch.starts for batch in batches] == [True, False]


#: Lines of 3, 1, 2 and 4 tokens.
TEXT = NumberedText(tokens=np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), lengths=np.array([3, 1, 2, 4]))


def test_sentences_are_padded_and_start_anew() -> None:
    sentences = Sentences(TEXT)
    numbers = sentences.ordered(2)
    (short, long) = sentences.batches(numbers)
    assert short.inputs.tolist() == [[5, 1], [5, 2]]
    assert short.targets.tolist() == [[6, 2], [IGNORED, 3]]
    assert long.inputs.tolist() == [[7], [8], [9]]
    assert long.targets.tolist() == [[8], [9], [10]]
    assert (short.tokens, long.tokens) == (3, 3)
    assert short.starts
    assert long.starts


def test_every_sentence_is_seen_once_an_epoch() -> None:
    text = NumberedText(tokens=np.arange(600), lengths=np.tile([2, 3, 4, 5, 6], 30))
    sentences = Sentences(text)
    first = sentences.shuffled(8, np.random.default_rng(0))
    assert sorted(np.concatenate(first).tolist()) == list(range(150))
    assert len(first) == len(sentences.ordered(8)) == 19
    other = sentences.shuffled(8, np.random.default_rng(1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    weights = [batch.weight for batch in sentences.batches(first)]
    assert sum(weights) / len(weights) == pytest.approx(1.0)
