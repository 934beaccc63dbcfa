"""The vocabulary rule, and the numbers of the special tokens."""

import pytest

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK
from sparse_bench.data.translation_vocabulary import SPECIALS, UNKNOWN_SIGN, build_vocabulary, decode, encode
from sparse_bench.errors import ConfigError, DataError

SENTENCES = [["b", "a", "a"], ["a", "c", "B"], ["b", "d"]]


def test_special_tokens_have_their_numbers():
    vocabulary = build_vocabulary(SENTENCES, 1)
    numbers = {"<pad>": PAD, "<unk>": UNK, "<s>": BOS, "</s>": EOS}
    assert {token: vocabulary.stoi[token] for token in SPECIALS} == numbers
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)


def test_numbers_go_by_count_and_then_by_code_point():
    assert build_vocabulary(SENTENCES, 1).itos[4:] == ["a", "b", "B", "c", "d"]


@pytest.mark.parametrize(("min_count", "known"), [(1, 5), (2, 2), (3, 1), (4, 0)])
def test_tokens_are_known_from_the_count_on(min_count, known):
    assert len(build_vocabulary(SENTENCES, min_count)) == 4 + known


def test_encoding():
    vocabulary = build_vocabulary(SENTENCES, 2)
    encoded = encode([["a", "x", "b"], ["<s>", ""]], vocabulary)
    assert [numbers.tolist() for numbers in encoded] == [[4, UNK, 5], [UNK, UNK]]
    # A special token stands where the task puts it, whatever a held-out sentence spells.
    assert encode([list(SPECIALS)], vocabulary)[0].tolist() == [UNK] * 4
    assert len(vocabulary) == 6
    assert "x" not in vocabulary.stoi  # a look-up adds nothing


def test_decoding_stops_at_the_end():
    vocabulary = build_vocabulary(SENTENCES, 2)
    assert decode([BOS, 5, UNK, PAD, 4, EOS, 5], vocabulary) == ["b", UNKNOWN_SIGN, "a"]
    assert decode([4, 4], vocabulary) == ["a", "a"]
    assert decode([EOS], vocabulary) == []


def test_errors():
    with pytest.raises(ConfigError, match="'min_count' = 0"):
        build_vocabulary(SENTENCES, 0)
    with pytest.raises(DataError, match="special tokens: </s>"):
        build_vocabulary([["a", "</s>"]], 1)
