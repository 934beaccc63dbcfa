"""Words of translation corpora: sentence → words → sentence, with the Moses rules.

The library is sacremoses, a pure-Python port of the Moses scripts with which Multi30k itself was prepared. It has lists
of abbreviations for each language and an inverse, and needs no download. sacrebleu's tokenizers, made for scoring, have
no inverse, and spaCy needs a model for each language. With ``-a`` (hyphens between words become ``@-@``) and without
escaping, it turns the 29,000 raw training pairs of Multi30k into exactly the file of the SET-Transformer report.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Protocol

from sacremoses import MosesDetokenizer, MosesTokenizer

from sparse_bench.errors import ConfigError, unknown_choice


class Words(Protocol):
    """Splits lines of a corpus into words, and joins words to sentences."""

    def split(self, line: str) -> list[str]:
        """The words of a line; at least one if the line is not blank."""

    def join(self, words: Sequence[str]) -> str:
        """The words as a normally written sentence."""

    def describe(self) -> str:
        """Method and library version, for results."""


class MosesWords:
    """Raw text ↔ words.

    Args:
        language: code of the language, for its abbreviations and its rules for joining words.
    """

    def __init__(self, language: str) -> None:
        self._tokenizer = MosesTokenizer(lang=language)
        self._detokenizer = MosesDetokenizer(lang=language)

    def split(self, line: str) -> list[str]:
        words: list[str] = self._tokenizer.tokenize(line, aggressive_dash_splits=True, escape=False)
        return words

    def join(self, words: Sequence[str]) -> str:
        sentence: str = self._detokenizer.detokenize(list(words), unescape=False)
        return sentence

    def describe(self) -> str:
        return f"Moses (sacremoses {version('sacremoses')}), aggressive dash splits, unescaped, case kept"


class TokenisedWords(MosesWords):
    """Text already tokenised by Moses ↔ words. Lines are only split on single spaces."""

    def split(self, line: str) -> list[str]:
        return line.split(" ")

    def describe(self) -> str:
        return f"split on single spaces; joined by Moses (sacremoses {version('sacremoses')}); case kept"


TOKENIZERS: dict[str, type[MosesWords]] = {"moses": MosesWords, "tokenised": TokenisedWords}


@cache
def words_of(kind: str, language: str) -> Words:
    """The tokenizer of this kind for a language.

    Raises:
        ConfigError: the kind is unknown; the message lists the valid kinds.
    """
    if kind not in TOKENIZERS:
        raise ConfigError(unknown_choice("tokenizer", kind, TOKENIZERS))
    return TOKENIZERS[kind](language)
