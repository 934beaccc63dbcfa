"""Running text for language models, as numbered words."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torchtext.vocab import Vocab

from sparse_bench.data.text_files import lines_of
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.limits import Fraction, checked

#: Replaces every word outside the vocabulary. Mikolov's files of the Penn Treebank already contain it.
UNK = "<unk>"
#: Ends every line, if enabled. A text may already contain it.
EOS = "<eos>"

Line = Sequence[str]


@dataclass(frozen=True)
class NumberedText:
    """The lines of a split as numbers, one line after the other.

    Attributes:
        tokens: word numbers [N], int64.
        lengths: tokens of each line [S], int64, summing to N.
    """

    tokens: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class TextCorpus:
    """A corpus for language modelling.

    Attributes:
        words: the vocabulary, in the order of the words' numbers.
        frequencies: occurrences of each word in ``train``, in the same order.
        train: training text.
        valid: validation text.
        test: test text.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    words: tuple[str, ...]
    frequencies: tuple[int, ...]
    train: NumberedText
    valid: NumberedText
    test: NumberedText
    checksums: dict[str, str] = field(default_factory=dict)


def read_lines(text: str) -> list[list[str]]:
    """The words of every line that is not blank."""
    return [words for line in lines_of(text) if (words := line.split())]


@checked
def first_lines(lines: Sequence[Line], fraction: Fraction) -> Sequence[Line]:
    """The first ``fraction`` of ``lines``, rounded down.

    Raises:
        ConfigError: ``fraction`` is not above 0 and at most 1.
        DataError: no line is left.
    """
    kept = lines[: int(len(lines) * fraction + 1e-9)]  # tolerance, so that a tenth of ten lines is one line
    if not kept:
        raise DataError(f"fraction = {fraction} of {len(lines)} training lines leaves none.")
    return kept


def numbered_corpus(
    train: Sequence[Line],
    valid: Sequence[Line],
    test: Sequence[Line],
    *,
    vocabulary: int | None = None,
    least_count: int = 1,
    eos: bool = True,
    checksums: Mapping[str, str] | None = None,
) -> TextCorpus:
    """Number the words of a corpus.

    ``<unk>`` is word 0 and ``<eos>``, if enabled, word 1. The other words of the training lines follow, the most
    frequent first, equally frequent ones in alphabetical order (torchtext's :class:`Vocab`). In every split, words
    outside the vocabulary become ``<unk>``.

    Args:
        train: training lines, from which the vocabulary is made.
        valid: validation lines.
        test: test lines.
        vocabulary: number of word types, special words included; None: all types of the training lines.
        least_count: words that occur less often in the training lines become ``<unk>``.
        eos: end every line with exactly one ``<eos>``, even if the line already has it. Otherwise lines are simply
            joined, and ``<eos>`` is an ordinary word.
        checksums: SHA-256 of the sources of the lines, by name.

    Raises:
        ConfigError: a vocabulary that has no room for more than its special words.
        DataError: a split without words.
    """
    specials = [UNK, EOS] if eos else [UNK]
    if vocabulary is not None and vocabulary <= len(specials):
        raise ConfigError(f"vocabulary = {vocabulary} has to be more than the special words {', '.join(specials)}.")
    for name, lines in (("training", train), ("validation", valid), ("test", test)):
        if not any(lines):
            raise DataError(f"The {name} lines hold no word.")
    kept = None if vocabulary is None else vocabulary - len(specials)
    vocab = Vocab(
        Counter(word for line in train for word in line), max_size=kept, min_freq=least_count, specials=specials
    )
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
    """SHA-256 of generated lines."""
    return hashlib.sha256("\n".join(" ".join(line) for line in lines).encode()).hexdigest()
