import tracemalloc

import numpy as np
import pytest

from sparse_bench.data.featurizers import (
    CombinedFeaturizer,
    CountFeaturizer,
    LexicalFeaturizer,
    RegexFeaturizer,
)
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import DataError


def texts(*several):
    return [tokenize(text) for text in several]


def columns(featurizer):
    """Vocabulary of a count featurizer, in the order of its columns."""
    return featurizer._counts.get_feature_names_out().tolist()


class TestRegex:
    featurizer = RegexFeaturizer(
        regexes={"zip": ["[0-9]{5}"], "greet": ["hey[^\\s]*", "hi"]},
        lookups={"city": ["New York", "Rome (old)", "Bonn"]},
    )

    def test_tokens_that_a_match_overlaps(self):
        features = self.featurizer.transform(texts("heyho 12345 New York", "this is Bonnie", "new york"))
        assert features.tokens.toarray().tolist() == [
            [0, 1, 0, 0],  # heyho
            [1, 0, 0, 0],  # 12345
            [0, 0, 0, 1],  # New, half of a phrase
            [0, 0, 0, 1],  # York
            [0, 0, 1, 0],  # "hi" inside "this": a regex knows no word borders
            [0, 0, 0, 0],
            [0, 0, 0, 0],  # a lookup does
            [0, 0, 0, 0],  # case matters
            [0, 0, 0, 0],
        ]
        assert features.sentences.toarray().tolist() == [[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]

    def test_a_match_between_tokens_alone_counts_nowhere(self):
        features = RegexFeaturizer({"gap": [r"\?"]}, {}).transform(texts("what? now"))
        assert features.tokens.nnz == features.sentences.nnz == 0

    def test_two_matches_are_one(self):
        features = RegexFeaturizer({"a": ["a"]}, {}).transform(texts("aa a"))
        assert features.tokens.toarray().tolist() == [[1], [1]]
        assert features.sentences.toarray().tolist() == [[1]]

    def test_a_table_without_phrases_is_no_pattern(self):
        assert RegexFeaturizer({}, {"empty": []}).patterns == []

    def test_word_borders_know_no_marks_as_in_rasa(self):
        features = RegexFeaturizer({}, {"word": ["हाल", "क्या"]}).transform(texts("हाल क्या"))
        assert features.tokens.toarray().tolist() == [[1], [0]]  # a vowel sign stands at the end of the second

    def test_a_broken_expression_is_named(self):
        with pytest.raises(DataError, match=r"'zip'.*unterminated"):
            RegexFeaturizer({"zip": ["[0-9"]}, {})


class TestLexical:
    def test_window_by_hand(self):
        featurizer = LexicalFeaturizer()
        features = featurizer.fit_transform(texts("Hi BOB 7"))
        names = featurizer._one_hot.get_feature_names_out().tolist()
        described = [{names[column] for column in row.nonzero()[0]} for row in features.tokens.toarray()]
        assert described[0] == {
            *("BOS=True", "EOS=False", "digit=False", "low=False", "title=True", "upper=False"),
            *("next low=False", "next title=False", "next upper=True"),
        }
        assert described[1] == {
            *("BOS=False", "EOS=False", "digit=False", "low=False", "title=False", "upper=True"),
            *("previous low=False", "previous title=True", "previous upper=False"),
            *("next low=False", "next title=False", "next upper=False"),
        }
        assert described[2] == {
            *("BOS=False", "EOS=True", "digit=True", "low=False", "title=False", "upper=False"),
            *("previous low=False", "previous title=False", "previous upper=True"),
        }

    def test_no_sentence_features(self):
        assert LexicalFeaturizer().fit_transform(texts("one", "two words")).sentences.shape == (2, 0)

    def test_values_not_seen_in_training_have_no_column(self):
        featurizer = LexicalFeaturizer()
        width = featurizer.fit_transform(texts("low case")).tokens.shape[1]
        unseen = featurizer.transform(texts("UP")).tokens
        assert unseen.shape == (1, width)
        # Seen: BOS=True, EOS=True, digit=False, title=False. Not seen: low=False, upper=True.
        assert unseen.sum() == 4


class TestCounts:
    def test_words(self):
        featurizer = CountFeaturizer()
        features = featurizer.fit_transform(texts("Go go 12 99", "a e-mail"))
        assert columns(featurizer) == ["__number__", "a", "e", "go", "mail"]
        assert features.tokens.toarray().tolist() == [
            [0, 0, 0, 1, 0],
            [0, 0, 0, 1, 0],
            [1, 0, 0, 0, 0],
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],  # words of one letter count
            [0, 0, 1, 0, 1],
        ]
        assert features.sentences.toarray().tolist() == [[2, 0, 0, 2, 0], [0, 1, 1, 0, 1]]
        assert features.tokens.dtype == features.sentences.dtype == np.float32

    def test_digits_within_a_word_are_no_number(self):
        featurizer = CountFeaturizer().fit(texts("ab12d 3.14"))
        assert columns(featurizer) == ["__number__", "ab12d"]

    def test_characters_stay_within_words(self):
        featurizer = CountFeaturizer("char_wb", (1, 2))
        features = featurizer.fit_transform(texts("ab A"))
        assert columns(featurizer) == [" ", " a", "a", "a ", "ab", "b", "b "]
        assert features.tokens.toarray().tolist() == [[2, 1, 1, 0, 1, 1, 1], [2, 1, 1, 1, 0, 0, 0]]
        assert features.sentences.toarray().tolist() == [[4, 2, 2, 1, 1, 1, 1]]  # no "b a" across words

    def test_sentences_count_over_their_tokens_not_over_the_raw_text(self):
        featurizer = CountFeaturizer("char_wb", (1, 1)).fit(texts("ok!!"))
        assert columns(featurizer) == [" ", "k", "o"]

    def test_unknown_words_are_left_out(self):
        features = CountFeaturizer().fit(texts("known words")).transform(texts("unknown words"))
        assert features.tokens.toarray().tolist() == [[0, 0], [0, 1]]
        assert features.sentences.toarray().tolist() == [[0, 1]]

    def test_unknown_words_count_as_the_oov_token_if_training_holds_it(self):
        featurizer = CountFeaturizer(oov_token="OOV")
        train = featurizer.fit_transform(texts("oov e-mail"))
        assert columns(featurizer) == ["e", "mail", "oov"]
        # In training nothing is unknown; afterwards a token is a word as a whole.
        assert train.sentences.toarray().tolist() == [[1, 1, 1]]
        test = featurizer.transform(texts("new mail e-mail"))
        assert test.tokens.toarray().tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 1]]
        assert test.sentences.toarray().tolist() == [[0, 1, 2]]

    def test_an_oov_token_outside_training_changes_nothing(self):
        features = CountFeaturizer(oov_token="oov").fit(texts("known")).transform(texts("unknown"))
        assert features.sentences.nnz == 0

    def test_words_are_runs_of_letters_without_marks_as_rasa_counts_them(self):
        featurizer = CountFeaturizer().fit(texts("क्या"))
        assert columns(featurizer) == ["क", "य"]
        pieces = CountFeaturizer("char_wb", (6, 6))
        assert pieces.fit_transform(texts("क्या")).tokens.toarray().tolist() == [[1]]
        assert columns(pieces) == [" क्या "]  # n-grams are of whole tokens

    def test_a_long_token_costs_its_own_length_only(self):
        """In an array of texts every word takes as much memory as the longest: 4 bytes x 20,000 x 3,000 = 240 MB."""
        some = texts(*(f"w{number} x{number} y{number}" for number in range(1000)), "z" * 20_000)
        for featurizer in (CountFeaturizer(), CountFeaturizer("char_wb", (1, 2))):
            tracemalloc.start()
            features = featurizer.fit_transform(some)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert features.tokens.shape[0] == 3001
            assert peak < 40e6

    def test_characters_know_no_oov_token(self):
        featurizer = CountFeaturizer("char_wb", (1, 1), oov_token="o").fit(texts("o a"))
        assert featurizer.transform(texts("a")).tokens.toarray().tolist() == [[2, 1, 0]]


def test_parts_stand_side_by_side():
    parts = [RegexFeaturizer({"a": ["a"]}, {}), LexicalFeaturizer(), CountFeaturizer()]
    train = texts("a b", "c")
    features = CombinedFeaturizer(parts).fit_transform(train)
    alone = [part.fit_transform(train) for part in parts]
    assert (features.tokens.toarray() == np.hstack([part.tokens.toarray() for part in alone])).all()
    assert (features.sentences.toarray() == np.hstack([part.sentences.toarray() for part in alone])).all()
    assert features.tokens.shape[0] == 3
    assert features.sentences.shape[0] == 2


def test_only_training_texts_make_columns():
    featurizer = CombinedFeaturizer([LexicalFeaturizer(), CountFeaturizer(), CountFeaturizer("char_wb", (1, 4))])
    train = featurizer.fit_transform(texts("plain words here"))
    test = featurizer.transform(texts("QUITE different 1"))
    assert train.tokens.shape[1] == test.tokens.shape[1]
    assert train.sentences.shape[1] == test.sentences.shape[1]
