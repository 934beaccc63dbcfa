"""Words by the Moses rules, and back."""

import pytest

from sparse_bench.data.moses import words_of
from sparse_bench.errors import ConfigError

SENTENCES = [
    (
        "de",
        "Ein Mann mit T-Shirt, der „Hallo“ sagt.",
        ["Ein", "Mann", "mit", "T", "@-@", "Shirt", ",", "der", "„", "Hallo", "“", "sagt", "."],
    ),
    ("de", "Es ist 3.5 Meter lang & rot.", ["Es", "ist", "3.5", "Meter", "lang", "&", "rot", "."]),
    ("en", "A woman's hat (red) isn't old.", ["A", "woman", "'s", "hat", "(", "red", ")", "isn", "'t", "old", "."]),
]


@pytest.mark.parametrize(("language", "sentence", "words"), SENTENCES)
def test_words_and_back(language, sentence, words):
    moses = words_of("moses", language)
    assert moses.split(sentence) == words
    assert moses.join(words) == sentence


def test_tokenised_text_is_split_on_single_spaces_and_joined_alike():
    tokenised = words_of("tokenised", "de")
    assert tokenised.split("T @-@ Shirt ,  rot.") == ["T", "@-@", "Shirt", ",", "", "rot."]
    assert tokenised.join(["ein", "T", "@-@", "Shirt", "."]) == "ein T-Shirt."


def test_no_words():
    assert words_of("moses", "de").join([]) == ""
    assert words_of("moses", "de").split("") == []


def test_descriptions_name_the_library():
    assert "sacremoses" in words_of("moses", "en").describe()
    assert "single spaces" in words_of("tokenised", "en").describe()


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"Unknown tokenizer 'mose'. Did you mean 'moses'\?"):
        words_of("mose", "de")
