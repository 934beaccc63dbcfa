"""Words of translation corpora: sentence → words → sentence, with the Moses rules.

The library is sacremoses, a pure-Python port of the Moses scripts with which Multi30k itself was prepared. It knows the
abbreviations of each language, has an inverse, and needs no download. sacrebleu's tokenizers have no inverse (they
exist to score text), and spaCy needs a model of each language. With ``-a`` (hyphens between words become ``@-@``) and
without escaping it turns the raw training sentences of Multi30k into the file of the SET-Transformer report, all
29,000 pairs of it, to the character.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Protocol

from sacremoses import MosesDetokenizer, MosesTokenizer

from sparse_bench.errors import ConfigError, unknown_choice


class Words(Protocol):
    """How the lines of a corpus are cut into words, and words put together to a sentence again."""

    def split(self, line: str) -> list[str]:
        """The words of a line; at least one for a line that is not blank."""

    def join(self, words: Sequence[str]) -> str:
        """The sentence that people would write."""

    def describe(self) -> str:
        """Method and version of the library, for results."""


class MosesWords:
    """Raw text ↔ words.

    Args:
        language: code of the language, for its abbreviations and its rules of joining.
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
    """Text that Moses tokenised already ↔ words: lines are split on single spaces, nothing else."""

    def split(self, line: str) -> list[str]:
        return line.split(" ")

    def describe(self) -> str:
        return f"split on single spaces; joined by Moses (sacremoses {version('sacremoses')}); case kept"


TOKENIZERS: dict[str, type[MosesWords]] = {"moses": MosesWords, "tokenised": TokenisedWords}


@cache
def words_of(kind: str, language: str) -> Words:
    """The tokenizer of that kind for a language.

    Raises:
        ConfigError: there is no such kind; names the valid ones.
    """
    if kind not in TOKENIZERS:
        raise ConfigError(unknown_choice("tokenizer", kind, TOKENIZERS))
    return TOKENIZERS[kind](language)
