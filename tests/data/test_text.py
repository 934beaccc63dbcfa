import numpy as np
import pytest

from sparse_bench.data.ptb_like import ptb_like
from sparse_bench.data.text import first_lines, numbered_corpus, read_lines
from sparse_bench.errors import ConfigError, DataError

TRAIN = read_lines("b a a\n\nc <unk> a b\n")
VALID = read_lines("a d\n")
TEST = read_lines("b\n")


def test_words_are_numbered_by_frequency_and_then_by_the_alphabet() -> None:
    corpus = numbered_corpus(TRAIN, VALID, TEST)
    assert corpus.words == ("<unk>", "<eos>", "a", "b", "c")
    assert corpus.frequencies == (1, 2, 3, 2, 1)
    assert corpus.train.tokens.tolist() == [3, 2, 2, 1, 4, 0, 2, 3, 1]
    assert corpus.train.lengths.tolist() == [4, 5]
    assert corpus.valid.tokens.tolist() == [2, 0, 1]  # d is in no training line
    assert corpus.train.tokens.dtype == np.int64


def test_without_line_ends() -> None:
    corpus = numbered_corpus(TRAIN, VALID, TEST, eos=False)
    assert corpus.words == ("<unk>", "a", "b", "c")
    assert corpus.train.tokens.tolist() == [2, 1, 1, 3, 0, 1, 2]
    assert corpus.train.lengths.tolist() == [3, 4]
    assert corpus.frequencies == (1, 3, 2, 1)


def test_the_rarest_words_fall_out_of_a_smaller_vocabulary() -> None:
    corpus = numbered_corpus(TRAIN, VALID, TEST, vocabulary=3)
    assert corpus.words == ("<unk>", "<eos>", "a")
    assert corpus.train.tokens.tolist() == [0, 2, 2, 1, 0, 0, 2, 0, 1]
    assert corpus.frequencies == (4, 2, 3)


def test_lines_that_have_their_end_already_get_no_second_one() -> None:
    """Mikolov's files hold no <eos>; where a text does, it is the same word, at the end of a line or within."""
    lines = [["a", "<eos>"], ["b"], ["<eos>"], ["b", "<eos>", "a"]]
    corpus = numbered_corpus(lines, lines[:1], lines[1:2])
    assert corpus.words == ("<unk>", "<eos>", "a", "b")
    assert corpus.train.tokens.tolist() == [2, 1, 3, 1, 1, 3, 1, 2, 1]
    assert corpus.train.lengths.tolist() == [2, 2, 1, 4]
    assert (corpus.valid.tokens.tolist(), corpus.test.tokens.tolist()) == ([2, 1], [3, 1])
    assert corpus.frequencies == (0, 5, 2, 2)


def test_without_line_ends_their_spelling_is_a_word_like_any_other() -> None:
    corpus = numbered_corpus([["a", "<eos>"], ["<eos>"]], VALID, TEST, eos=False)
    assert corpus.words == ("<unk>", "<eos>", "a")
    assert corpus.train.tokens.tolist() == [2, 1, 1]


def test_line_ends_of_unicode_end_no_line() -> None:
    assert read_lines("a\x85b c\u2028d\r\ne\n") == [["a", "b", "c", "d"], ["e"]]


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 10), (0.1, 1), (0.3, 3), (0.25, 2), (0.7, 7)])
def test_the_first_lines_are_kept(fraction: float, kept: int) -> None:
    lines = [[str(number)] for number in range(10)]
    assert first_lines(lines, fraction) == lines[:kept]


def test_bad_settings_name_what_is_valid() -> None:
    for fraction in (0.0, 1.1, -0.5):
        with pytest.raises(ConfigError, match=r"'fraction' = .* (more than 0|at most 1)"):
            first_lines(TRAIN, fraction)
    with pytest.raises(DataError, match="leaves none"):
        first_lines(TRAIN, 0.1)
    with pytest.raises(ConfigError, match="<unk>, <eos>"):
        numbered_corpus(TRAIN, VALID, TEST, vocabulary=2)
    with pytest.raises(DataError, match="test lines hold no word"):
        numbered_corpus(TRAIN, VALID, [])
    with pytest.raises(ConfigError, match="more classes"):
        ptb_like(types=3, classes=4)


def test_generated_text_is_a_function_of_its_settings() -> None:
    first, again, other = ptb_like(sentences=50), ptb_like(sentences=50), ptb_like(sentences=50, seed=1)
    assert first.checksums == again.checksums != other.checksums
    assert np.array_equal(first.train.tokens, again.train.tokens)
    assert len(first.train.lengths) == 50
    assert len(first.valid.lengths) == len(first.test.lengths) == 5
    assert ptb_like(sentences=50, fraction=0.5).train.lengths.tolist() == first.train.lengths[:25].tolist()


def test_generated_text_can_be_learned() -> None:
    """A few words are frequent, and the word before says something about the next one."""
    size = 1200
    corpus = ptb_like(sentences=4000, vocabulary=size)
    assert len(corpus.words) == size
    counts = np.bincount(corpus.train.tokens, minlength=size) + 1.0
    unigram = counts / counts.sum()
    assert np.sort(unigram)[-100:].sum() > 0.4
    pairs = np.full((size, size), 1e-3)
    np.add.at(pairs, (corpus.train.tokens[:-1], corpus.train.tokens[1:]), 1)
    bigram = pairs / pairs.sum(axis=1, keepdims=True)
    before, after = corpus.valid.tokens[:-1], corpus.valid.tokens[1:]
    nats = -np.log(unigram[after]).mean()
    assert -np.log(0.5 * bigram[before, after] + 0.5 * unigram[after]).mean() < nats - 0.3
