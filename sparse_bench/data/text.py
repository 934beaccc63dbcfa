"""Running text for language models: lines of words become numbers."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torchtext.vocab import Vocab

from sparse_bench.data.text_files import lines_of
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.limits import Fraction, checked

#: Stands for every word that is not in the vocabulary; Mikolov's files of the Penn Treebank hold it as a word.
UNK = "<unk>"
#: Ends every line, where wanted. Where a text holds it, it is that same end.
EOS = "<eos>"

Line = Sequence[str]


@dataclass(frozen=True)
class NumberedText:
    """The lines of a split, one after another.

    Attributes:
        tokens: word numbers [N], int64.
        lengths: tokens of each line [S], int64; they add up to N.
    """

    tokens: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class TextCorpus:
    """A corpus for language modelling.

    Attributes:
        words: the vocabulary, in the order of the words' numbers.
        frequencies: occurrences of each word in ``train``, in the same order.
        train: what is learned.
        valid: what choices are made by.
        test: what is reported.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    words: tuple[str, ...]
    frequencies: tuple[int, ...]
    train: NumberedText
    valid: NumberedText
    test: NumberedText
    checksums: dict[str, str] = field(default_factory=dict)


def read_lines(text: str) -> list[list[str]]:
    """The words of every line that has any."""
    return [words for line in lines_of(text) if (words := line.split())]


@checked
def first_lines(lines: Sequence[Line], fraction: Fraction) -> Sequence[Line]:
    """The first ``fraction`` of ``lines``, rounded down.

    Raises:
        ConfigError: unless 0 < ``fraction`` ≤ 1.
        DataError: nothing is left.
    """
    kept = lines[: int(len(lines) * fraction + 1e-9)]  # a tenth of ten lines is one line, whatever 0.1 is in binary
    if not kept:
        raise DataError(f"fraction = {fraction} of {len(lines)} training lines leaves none.")
    return kept


def numbered_corpus(
    train: Sequence[Line],
    valid: Sequence[Line],
    test: Sequence[Line],
    *,
    vocabulary: int | None = None,
    eos: bool = True,
    checksums: Mapping[str, str] | None = None,
) -> TextCorpus:
    """Number the words of a corpus.

    ``<unk>`` is word 0 and ``<eos>``, where wanted, word 1; then come the other words of the training lines, the most
    frequent first and equally frequent ones in alphabetical order (torchtext's :class:`Vocab`). A word outside the
    vocabulary becomes ``<unk>``, in every split.

    Args:
        train: training lines; the vocabulary is theirs.
        valid: validation lines.
        test: test lines.
        vocabulary: number of word types, special ones included; None: all of the training lines.
        eos: end every line with one ``<eos>``, those that have it already included; otherwise the lines simply follow
            each other, and ``<eos>`` is a word like any other.
        checksums: of what the lines were made from.

    Raises:
        ConfigError: a vocabulary that cannot hold more than its special words.
        DataError: a split without words.
    """
    specials = [UNK, EOS] if eos else [UNK]
    if vocabulary is not None and vocabulary <= len(specials):
        raise ConfigError(f"vocabulary = {vocabulary} has to be more than the special words {', '.join(specials)}.")
    for name, lines in (("training", train), ("validation", valid), ("test", test)):
        if not any(lines):
            raise DataError(f"The {name} lines hold no word.")
    kept = None if vocabulary is None else vocabulary - len(specials)
    vocab = Vocab(Counter(word for line in train for word in line), max_size=kept, specials=specials)
    numbers: dict[str, int] = dict(vocab.stoi)
    numbered = _numbered(train, numbers, eos)
    return TextCorpus(
        words=tuple(vocab.itos),
        frequencies=tuple(np.bincount(numbered.tokens, minlength=len(vocab.itos)).tolist()),
        train=numbered,
        valid=_numbered(valid, numbers, eos),
        test=_numbered(test, numbers, eos),
        checksums=dict(checksums or {}),
    )


def _numbered(lines: Sequence[Line], numbers: Mapping[str, int], eos: bool) -> NumberedText:
    unknown = numbers[UNK]
    ended = [[*line, EOS] if eos and (not line or line[-1] != EOS) else line for line in lines]
    tokens = [numbers.get(word, unknown) for line in ended for word in line]
    return NumberedText(
        tokens=np.asarray(tokens, dtype=np.int64),
        lengths=np.asarray([len(line) for line in ended], dtype=np.int64),
    )


def text_checksum(lines: Iterable[Line]) -> str:
    """SHA-256 of lines that come from no file."""
    return hashlib.sha256("\n".join(" ".join(line) for line in lines).encode()).hexdigest()
