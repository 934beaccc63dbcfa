"""What counting alone reaches on the reduced texts: a model that does no better has learned no more than counts.

Unigrams are the words' frequencies, bigrams those of pairs, interpolated (Witten and Bell), as NLTK makes them.

    python scripts/ngram_reference.py --output results/sparselang/ngram_reference.md --without-eos
    python scripts/ngram_reference.py --output results/demeester/ngram_reference.md
"""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from interleaved import parse, table_of, write
from nltk.lm import WittenBellInterpolated
from nltk.util import everygrams

from sparse_bench.data.ptb import ptb

#: Share of the training lines and word types: the reduced scales, and the whole text.
SIZES = ((0.05, 2000), (0.25, 5000), (1.0, 10_000))


def perplexity(model: WittenBellInterpolated, text: list[str], order: int) -> float:
    """Of all tokens of a running text but the first."""
    followed = Counter(pairwise(text))
    nats = 0.0
    for (before, word), times in followed.items():
        nats -= times * math.log(model.score(word, [before] if order == 2 else None))
    return math.exp(nats / (len(text) - 1))


def fitted(train: list[str], order: int) -> WittenBellInterpolated:
    """The model of a training text.

    A word that training lacks would have probability 0; there is none, as the vocabulary is counted there.
    """
    model = WittenBellInterpolated(order)
    model.fit([everygrams(train, max_len=order)], vocabulary_text=train)
    return model


def references(eos: bool) -> Iterator[dict[str, str]]:
    """A row for unigrams and one for bigrams, of each scale."""
    for fraction, vocabulary in SIZES:
        corpus = ptb(fraction, vocabulary, eos)
        train, *held_out = ([str(n) for n in part.tokens] for part in (corpus.train, corpus.valid, corpus.test))
        for order, kind in enumerate(("unigrams", "bigrams"), start=1):
            model = fitted(train, order)
            valid, test = (f"{perplexity(model, text, order):.1f}" for text in held_out)
            sizes = {"training lines": f"{fraction:.0%}", "word types": f"{vocabulary:,}"}
            yield {**sizes, "counts": kind, "perplexity (valid)": valid, "perplexity (test)": test}


def main() -> None:
    """Count, print and write."""
    given = parse(__doc__ or "", without_eos=(False, "drop line ends, as SparseLang does"))
    text = (
        "Perplexities of word frequencies (unigrams) and of interpolated pairs (bigrams, Witten and Bell) on the Penn "
        f"Treebank, whole and reduced, {'without' if given.without_eos else 'with'} line ends. A model that does no "
        "better than unigrams has learned nothing of the order of words."
    )
    rows = list(references(not given.without_eos))
    write(f"# What counting alone reaches\n\n{text}\n\n{table_of(rows)}", given.output)


if __name__ == "__main__":
    main()
