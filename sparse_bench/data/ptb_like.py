"""PTB-like: generated running text for language models, which needs no download.

The text is a Markov chain over word classes, each with its own words. The transitions are far from uniform, so the
previous words predict the next one better than word frequencies alone. Within a class, word probabilities follow Zipf's
law: a few words are frequent and many are rare.
"""

import numpy as np

from sparse_bench.data.text import TextCorpus, first_lines, numbered_corpus, text_checksum
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Count, Few, Fraction, Many, Seed, checked
from sparse_bench.streams import Streams

#: Mean number of words in a line of the Penn Treebank.
_MEAN_LENGTH = 21
_SHORTEST, _LONGEST = 3, 80
#: Dirichlet concentration of the transitions: the smaller it is, the fewer classes are likely to follow a class.
_CONCENTRATION = 0.1
#: Number of validation lines, and of test lines, per training line.
_HELD_OUT = 0.1


@checked
def ptb_like(
    sentences: Many = 4000,
    types: Many = 1500,
    classes: Few = 24,
    seed: Seed = 0,
    fraction: Fraction = 1.0,
    vocabulary: Count | None = None,
    eos: bool = True,
) -> TextCorpus:
    """Generate a corpus. Validation and test each have a tenth as many lines as training, but at least one.

    Args:
        sentences: number of training lines before ``fraction`` is applied.
        types: number of word types of the generator, divided evenly among the classes.
        classes: number of word classes.
        seed: seed of the generator.
        fraction: share of the training lines to use, from the first.
        vocabulary: number of word types kept, ``<unk>`` and ``<eos>`` included; None: all that occur in training.
        eos: end every line with ``<eos>``.

    Raises:
        ConfigError: a setting outside its range.
    """
    if classes > types:
        raise ConfigError(f"There are more classes ({classes}) than types ({types}).")
    held_out = max(1, round(sentences * _HELD_OUT))
    lines = _generate(sentences + 2 * held_out, types, classes, Streams(seed).numpy("ptb_like"))
    train, valid, test = lines[:sentences], lines[sentences : sentences + held_out], lines[sentences + held_out :]
    return numbered_corpus(
        first_lines(train, fraction),
        valid,
        test,
        vocabulary=vocabulary,
        eos=eos,
        checksums={"ptb_like": text_checksum(lines)},
    )


def _generate(sentences: int, types: int, classes: int, draw: np.random.Generator) -> list[list[str]]:
    """Generate all sentences in parallel, one word of each at a time."""
    following = draw.dirichlet(np.full(classes, _CONCENTRATION), size=classes)
    # Every class can follow every other, at least rarely, so that no class is unreachable.
    bounds = np.cumsum(0.95 * following + 0.05 / classes, axis=1)
    # Class c has the words c, c + classes, c + 2·classes, …
    ranks = [np.arange(1, len(range(c, types, classes)) + 1) for c in range(classes)]
    within = [np.cumsum(1.0 / rank) / np.sum(1.0 / rank) for rank in ranks]

    lengths = np.clip(draw.poisson(draw.gamma(4.0, _MEAN_LENGTH / 4.0, size=sentences)), _SHORTEST, _LONGEST)
    state = draw.integers(classes, size=sentences)
    words = np.zeros((sentences, int(lengths.max())), dtype=np.int64)
    for position in range(words.shape[1]):
        which = draw.random(sentences)
        for number, bound in enumerate(within):
            mine = state == number
            words[mine, position] = number + classes * np.searchsorted(bound[:-1], which[mine], side="right")
        state = (draw.random(sentences)[:, None] > bounds[state, :-1]).sum(axis=1)
    return [[f"w{word}" for word in row[:length]] for row, length in zip(words.tolist(), lengths.tolist(), strict=True)]
