"""Vocabularies for translation: torchtext's, with the special tokens at the numbers that translation models expect."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from torchtext.vocab import Vocab

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK
from sparse_bench.errors import DataError
from sparse_bench.limits import Count, checked

#: Special tokens, in the order of their numbers. torchtext recognises ``<unk>`` by its spelling.
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
assert tuple(range(len(SPECIALS))) == (PAD, UNK, BOS, EOS)
#: Text of an unknown token in a translation: a character that no reference contains.
UNKNOWN_SIGN = "⁇"


@checked
def build_vocabulary(sentences: Iterable[Sequence[str]], min_count: Count) -> Vocab:
    """A vocabulary of the special tokens, then all tokens that occur at least ``min_count`` times.

    The tokens are numbered by decreasing count; those with equal counts by code point.

    Raises:
        ConfigError: ``min_count`` is below 1.
        DataError: the text contains the spelling of a special token.
    """
    counts = Counter(chain.from_iterable(sentences))
    if taken := [token for token in SPECIALS if token in counts]:
        raise DataError(f"The corpus contains the spelling of special tokens: {', '.join(taken)}.")
    return Vocab(counts, min_freq=min_count, specials=list(SPECIALS))


def encode(sentences: Iterable[Sequence[str]], vocabulary: Vocab) -> list[np.ndarray]:
    """Token numbers of each sentence [tokens], int32, without BOS and EOS. Unknown tokens become UNK.

    The spelling of a special token is unknown too, because no training text contains it.
    """
    known = {token: number for token, number in vocabulary.stoi.items() if number >= len(SPECIALS)}
    return [
        np.fromiter((known.get(token, UNK) for token in tokens), np.int32, count=len(tokens)) for tokens in sentences
    ]


def decode(numbers: Sequence[int] | np.ndarray, vocabulary: Vocab) -> list[str]:
    """The tokens of a translation up to EOS or its end. PAD and BOS are left out; UNK becomes :data:`UNKNOWN_SIGN`."""
    tokens: list[str] = []
    for number in map(int, numbers):
        if number == EOS:
            break
        if number not in (PAD, BOS):
            tokens.append(UNKNOWN_SIGN if number == UNK else vocabulary.itos[number])
    return tokens
