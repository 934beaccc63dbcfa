import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.data.tokenizer import Token, tokenize
from sparse_bench.errors import DataError


def words(text):
    return [token.text for token in tokenize(text).tokens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("how are you?", ["how", "are", "you"]),
        ("Hi. My name is rasa", ["Hi", "My", "name", "is", "rasa"]),
        ('"quoted", (twice)...', ["quoted", "twice"]),
        ("don't you", ["don", "t", "you"]),  # a sign between letters that no URL holds
        ("it’s", ["it", "s"]),
        ("semi-final e-mail", ["semi-final", "e-mail"]),  # URL characters stay inside a word
        ("visit https://rasa.com/docs/?q=a&b=1#top now!", ["visit", "https://rasa.com/docs/?q=a&b=1#top", "now"]),
        ("mail me@rasa.com, please", ["mail", "me@rasa.com", "please"]),
        ("#hashtag @user R&D C#", ["#hashtag", "@user", "R&D", "C#"]),  # kept at the border of a word
        ("10'000.00 is $5 or -3 or .5", ["10'000.00", "is", "$5", "or", "-3", "or", ".5"]),  # belongs to a number
        ("50% of 3", ["50", "of", "3"]),
        ("$five", ["five"]),
        (":)", [":)"]),  # nothing would be left
        ("ok :)", ["ok"]),
        ("\U0001f600", ["\U0001f600"]),
        ("ok \U0001f600\u200d\U0001f600 then", ["ok", "then"]),
        ("a\U0001f600b", ["a", "b"]),
        ("你好", ["你好"]),
        ("hi 你好", ["hi"]),  # the released system's emoji range holds CJK scripts
        ("  spread\tout\n", ["spread", "out"]),
        # Combining marks are part of their word, wherever they stand in it.
        ("क्या हाल है?", ["क्या", "हाल", "है"]),
        ("to\u0302i muo\u0302\u0301n a\u0323n", ["to\u0302i", "muo\u0302\u0301n", "a\u0323n"]),
        ("மொழி, தமிழ்!", ["மொழி", "தமிழ்"]),
        ("שָׁלוֹם מַה", ["שָׁלוֹם", "מַה"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # a non-joiner within a word
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_offsets():
    assert tokenize("Hello,  Hello 'lo!").tokens == (Token("Hello", 0, 5), Token("Hello", 8, 13), Token("lo", 15, 17))


@pytest.mark.parametrize("text", ["", " \t\n"])
def test_a_blank_text_is_an_error(text):
    with pytest.raises(DataError, match="blank"):
        tokenize(text)


@pytest.mark.parametrize(
    "text", ["a" + "=" * 20_000 + "b", "a" + "." * 20_000 + "1", " =" * 10_000 + "1", "é=" * 10_000]
)
def test_long_words_take_no_longer_than_they_are(text):
    """A search that looks back from every sign of a word of 20,000 takes half a minute."""
    begun = time.process_time()
    tokenize(text)
    assert time.process_time() - begun < 2


@given(st.text(alphabet="ab 1.,'@#$&:)-_é好\U0001f600\n\u0301\u093e\x85\u200c", min_size=1).filter(str.strip))
def test_tokens_are_pieces_of_the_text_in_order(text):
    tokens = tokenize(text).tokens
    assert tokens
    assert all(text[token.start : token.end] == token.text for token in tokens)
    assert all(before.end <= after.start for before, after in pairwise(tokens))
    assert len(tokens) == 1 or not any(character.isspace() for token in tokens for character in token.text)
    assert {c for c in text if c.isascii() and c.isalnum()} <= set("".join(token.text for token in tokens))
