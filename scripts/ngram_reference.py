"""What counting alone reaches on the reduced texts: a model that does no better has learned no more than counts.

Unigrams are the words' frequencies, bigrams those of pairs, interpolated (Witten and Bell), as NLTK makes them.

    python scripts/ngram_reference.py --output results/sparselang/ngram_reference.md --without-eos
    python scripts/ngram_reference.py --output results/demeester/ngram_reference.md
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from interleaved import write
from nltk.lm import WittenBellInterpolated
from nltk.util import everygrams

from sparse_bench.data.ptb import ptb

#: Share of the training lines and word types: the reduced scales, and the whole text.
SIZES = ((0.05, 2000), (0.25, 5000), (1.0, 10_000))


@dataclass(frozen=True)
class Reference:
    """Perplexities of one kind of counts."""

    fraction: float
    vocabulary: int
    order: int
    valid: float
    test: float


def perplexity(model: WittenBellInterpolated, text: list[str], order: int) -> float:
    """Of all tokens of a running text but the first."""
    followed = Counter(pairwise(text))
    nats = 0.0
    for (before, word), times in followed.items():
        nats -= times * math.log(model.score(word, [before] if order == 2 else None))
    return math.exp(nats / (len(text) - 1))


def references(fraction: float, vocabulary: int, eos: bool) -> list[Reference]:
    """Unigrams and bigrams of one reduced scale."""
    corpus = ptb(fraction, vocabulary, eos)
    train, valid, test = (
        [str(number) for number in numbered.tokens] for numbered in (corpus.train, corpus.valid, corpus.test)
    )
    found = []
    for order in (1, 2):
        model = WittenBellInterpolated(order)
        # A word of the vocabulary that training lacks would have probability 0; there is none, as it is counted there.
        model.fit([everygrams(train, max_len=order)], vocabulary_text=train)
        found.append(
            Reference(fraction, vocabulary, order, perplexity(model, valid, order), perplexity(model, test, order))
        )
    return found


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-eos", action="store_true", help="drop line ends, as SparseLang does")
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    ends = "without" if arguments.without_eos else "with"
    lines = [
        "# What counting alone reaches",
        "",
        "Perplexities of word frequencies (unigrams) and of interpolated pairs (bigrams, Witten and Bell) on the "
        f"Penn Treebank, whole and reduced, {ends} line ends. A model that does no better than "
        "unigrams has learned nothing of the order of words.",
        "",
        "| training lines | word types | | perplexity (valid) | perplexity (test) |",
        "|:--|--:|:--|--:|--:|",
    ]
    for fraction, vocabulary in SIZES:
        for one in references(fraction, vocabulary, eos=not arguments.without_eos):
            kind = "unigrams" if one.order == 1 else "bigrams"
            lines.append(f"| {fraction:.0%} | {vocabulary:,} | {kind} | {one.valid:.1f} | {one.test:.1f} |")
    write("\n".join(lines) + "\n", arguments.output)


if __name__ == "__main__":
    main()
