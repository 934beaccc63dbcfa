"""Vocabularies of translation: torchtext's, with the special tokens where every translation model expects them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from torchtext.vocab import Vocab

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK
from sparse_bench.errors import DataError
from sparse_bench.limits import Count, checked

#: In order of their numbers. torchtext takes the spelling ``<unk>`` to mean what it says.
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
assert tuple(range(len(SPECIALS))) == (PAD, UNK, BOS, EOS)
#: What an unknown token is written as in a translation: one sign that no sentence of a reference has.
UNKNOWN_SIGN = "⁇"


@checked
def build_vocabulary(sentences: Iterable[Sequence[str]], min_count: Count) -> Vocab:
    """All tokens that occur at least ``min_count`` times, behind the special ones.

    Numbers go by falling count, and by code point where counts are equal.

    Raises:
        ConfigError: ``min_count`` is below 1.
        DataError: a special token's spelling occurs in the text.
    """
    counts = Counter(chain.from_iterable(sentences))
    if taken := [token for token in SPECIALS if token in counts]:
        raise DataError(f"The corpus contains the spelling of special tokens: {', '.join(taken)}.")
    return Vocab(counts, min_freq=min_count, specials=list(SPECIALS))


def encode(sentences: Iterable[Sequence[str]], vocabulary: Vocab) -> list[np.ndarray]:
    """Token numbers of each sentence [its tokens], int32, without BOS and EOS; unknown tokens are UNK.

    A special token's spelling is unknown like any other token that is not in the training text, which never has it.
    """
    known = {token: number for token, number in vocabulary.stoi.items() if number >= len(SPECIALS)}
    return [
        np.fromiter((known.get(token, UNK) for token in tokens), np.int32, count=len(tokens)) for tokens in sentences
    ]


def decode(numbers: Sequence[int] | np.ndarray, vocabulary: Vocab) -> list[str]:
    """The tokens of a translation up to its EOS or end; PAD and BOS are left out, UNK is :data:`UNKNOWN_SIGN`."""
    tokens: list[str] = []
    for number in map(int, numbers):
        if number == EOS:
            break
        if number not in (PAD, BOS):
            tokens.append(UNKNOWN_SIGN if number == UNK else vocabulary.itos[number])
    return tokens
