"""Whitespace tokenizer of the Rasa 2.6 assistants: words with their character offsets.

As in the released tokenizer, word characters are those of ``\\w`` in the ``regex`` package. They include combining
marks, so that "क्या" is one word. The standard library's ``\\w`` excludes them.
"""

import re
from dataclasses import dataclass

import regex

from sparse_bench.errors import DataError

# Characters that are kept at the border of a word.
_KEPT_AT_BORDER = r"\w#@&"
# Characters that are kept inside a word: also those of URLs and e-mail addresses.
_KEPT_INSIDE = r"\w._~:/?#\[\]()@!$&*+,;=-"
_SEPARATOR = regex.compile(
    rf"""
      (?<![^{_KEPT_AT_BORDER}])                        # only from its first character, so that a long run is read once
      [^{_KEPT_AT_BORDER}]+ (?=\s|$)                   # after a word
    | (?:\s|^) [^{_KEPT_AT_BORDER}]+ (?=[^0-9\s])      # before a word; stays before a number ("$5", "-3")
    | (?<=[^0-9\s]) [^{_KEPT_INSIDE}]+ (?=[^0-9\s])    # within a word; stays beside a digit ("10'000")
    """,
    regex.VERBOSE,
)
#: As in the released tokenizer, whitespace is that of the standard library.
_WORD = re.compile(r"\S+")
# A word of only these characters is dropped. The released system calls them emoji, but the wide range from U+24C2 also
# holds CJK scripts. So Chinese words survive only if a message has no other words (see `tokenize`).
_SYMBOLS = re.compile(
    "["
    "\U0001f600-\U0001f64f"  # emoticons
    "\U0001f300-\U0001f5ff"  # pictographs
    "\U0001f680-\U0001f6ff"  # transport, maps
    "\U0001f1e0-\U0001f1ff"  # flags
    "\u2702-\u27b0"  # dingbats
    "\u24c2-\U0001f251"
    "\u200c\u200d"  # zero-width (non-)joiner
    "]+"
)


@dataclass(frozen=True)
class Token:
    """A word of a text: ``text[start:end]``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class TokenizedText:
    """A text and its tokens: at least one, in order, not overlapping."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens in lower case, for uses where case, blanks and punctuation do not matter."""
        return tuple(token.text.lower() for token in self.tokens)


def tokenize(text: str) -> TokenizedText:
    """Split ``text`` at whitespace and strip punctuation, except ``# @ &`` and the punctuation of URLs and numbers.

    If nothing would be left, as for ``":)"``, the whole text is the only token.

    Raises:
        DataError: the text is blank.
    """
    if not text.strip():
        raise DataError(f"Cannot tokenize the blank text {text!r}: every message needs at least one character.")
    tokens: list[Token] = []
    piece = 0
    # Words are matched in the text itself, between separators, so that their offsets are exact.
    for border in [*(match.span() for match in _SEPARATOR.finditer(text)), (len(text), len(text))]:
        words = _WORD.finditer(text, piece, border[0])
        tokens += [Token(word[0], word.start(), word.end()) for word in words if not _SYMBOLS.fullmatch(word[0])]
        piece = border[1]
    return TokenizedText(text, tuple(tokens) or (Token(text, 0, len(text)),))
