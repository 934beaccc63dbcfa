"""Sentences with a tag for every word: the common form of all tagging corpora."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sparse_bench.data.text_files import lines_of
from sparse_bench.errors import DataError, shortened

#: Words and their tags, one tag for each word.
Sentence = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class TaggedCorpus:
    """A corpus for tagging.

    Attributes:
        train: training sentences.
        valid: validation sentences.
        test: test sentences.
        tags: every tag, in the order of their numbers.
        null_tag: tag of null elements, which are not spoken words; None if the corpus has none.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    train: tuple[Sentence, ...]
    valid: tuple[Sentence, ...]
    test: tuple[Sentence, ...]
    tags: tuple[str, ...]
    null_tag: str | None = None
    checksums: dict[str, str] = field(default_factory=dict)


def sentence(tokens: Iterable[Sequence[str]]) -> Sentence:
    """Make a sentence from (word, tag) pairs, of which there is at least one."""
    words, tags = zip(*tokens, strict=True)
    return words, tags


def read_columns(text: str, source: str) -> tuple[Sentence, ...]:
    """Read sentences from lines ``word TAB tag``. Empty lines separate sentences.

    Raises:
        DataError: a line is not a word and a tag. The message names ``source`` and the line's number.
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
