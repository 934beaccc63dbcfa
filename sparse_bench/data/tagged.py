"""Sentences with a tag for every word: what a tagging corpus is once it has been read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sparse_bench.data.text_files import lines_of
from sparse_bench.errors import DataError, shortened

#: Words and their tags, as many of one as of the other.
Sentence = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class TaggedCorpus:
    """A corpus for tagging.

    Attributes:
        train: what is learned.
        valid: what choices are made by.
        test: what is reported.
        tags: every tag, in the order of their numbers.
        null_tag: tag of null elements, which stand for no spoken word; None if the corpus has none.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    train: tuple[Sentence, ...]
    valid: tuple[Sentence, ...]
    test: tuple[Sentence, ...]
    tags: tuple[str, ...]
    null_tag: str | None = None
    checksums: dict[str, str] = field(default_factory=dict)


def sentence(tokens: Iterable[Sequence[str]]) -> Sentence:
    """The sentence of some (word, tag) pairs."""
    words, tags = zip(*tokens, strict=True)
    return words, tags


def read_columns(text: str, source: str) -> tuple[Sentence, ...]:
    """Sentences from lines ``word TAB tag``; empty lines stand between sentences.

    Raises:
        DataError: a line is no word and tag; names ``source`` and the line's number.
    """
    sentences: list[Sentence] = []
    tokens: list[tuple[str, str]] = []
    for number, line in enumerate([*lines_of(text), ""], start=1):
        word, tab, tag = (part.strip() for part in line.partition("\t"))
        if word and tag and "\t" not in tag:
            tokens.append((word, tag))
        elif word or tag or tab:
            raise DataError(f"{source}, line {number}: {shortened(line)} is not a word, a tab and a tag.")
        elif tokens:
            sentences.append(sentence(tokens))
            tokens = []
    return tuple(sentences)
