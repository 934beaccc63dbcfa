"""A generated tagging corpus: a small grammar over a Zipfian vocabulary. It needs no download.

It has the main difficulties of tagging: rare words, words with several parts of speech, tags that depend on the words
before and after, null elements, and words that only the test has.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from sparse_bench.data.tagged import Sentence, TaggedCorpus, sentence
from sparse_bench.limits import Many, Seed, checked

NULL_TAG = "-NONE-"
#: Closed classes: few and frequent words.
_CLOSED = {
    "DT": ("the", "a", "this", "every", "no"),
    "IN": ("of", "in", "on", "with", "from", "that"),
    "CC": ("and", "or", "but"),
    "PRP": ("it", "they", "she", "we"),
    "TO": ("to",),
    ".": (".", "?"),
    ",": (",",),
    NULL_TAG: ("*",),
}
#: Share of each open class in the vocabulary.
_OPEN = {"NN": 0.35, "NNS": 0.2, "JJ": 0.2, "VB": 0.1, "VBD": 0.1, "RB": 0.05}
#: Ambiguous classes: a share of the words of the first class is taken from the second.
_AMBIGUOUS = {"VB": "NN", "VBD": "JJ", "RB": "JJ"}
_AMBIGUOUS_SHARE = 0.5
_ONSETS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class _Lexicon:
    """Words of each tag and the probability of each, most frequent first."""

    words: dict[str, tuple[str, ...]]
    probabilities: dict[str, np.ndarray]

    def draw(self, tag: str, random: np.random.Generator) -> tuple[str, str]:
        words = self.words[tag]
        return words[random.choice(len(words), p=self.probabilities[tag])], tag


@checked
def pos_like(
    sentences: Annotated[Many, Field(ge=10)] = 5000, vocabulary: Annotated[Many, Field(ge=100)] = 5000, seed: Seed = 0
) -> TaggedCorpus:
    """Generate a tagging corpus, with a tenth of the sentences each for validation and test.

    Args:
        sentences: number of all sentences, at least 10.
        vocabulary: number of word types of the open classes, at least 100. Not all of them occur.
        seed: seed of the generator.

    Raises:
        ConfigError: too few sentences or words.
    """
    random = np.random.default_rng(seed)
    lexicon = _lexicon(vocabulary, random)
    made = tuple(_sentence(lexicon, random) for _ in range(sentences))
    tenth = sentences // 10
    text = "\n".join(" ".join(f"{word}/{tag}" for word, tag in zip(*one, strict=True)) for one in made)
    return TaggedCorpus(
        train=made[2 * tenth :],
        valid=made[:tenth],
        test=made[tenth : 2 * tenth],
        tags=tuple(sorted((*_CLOSED, *_OPEN))),
        null_tag=NULL_TAG,
        checksums={"pos_like": hashlib.sha256(text.encode()).hexdigest()},
    )


def _word(number: int) -> str:
    """A pronounceable word, a different one for every number."""
    syllables = []
    number += len(_ONSETS) * len(_VOWELS)  # at least two syllables
    while number:
        number, syllable = divmod(number, len(_ONSETS) * len(_VOWELS))
        syllables.append(_ONSETS[syllable // len(_VOWELS)] + _VOWELS[syllable % len(_VOWELS)])
    return "".join(reversed(syllables))


def _lexicon(vocabulary: int, random: np.random.Generator) -> _Lexicon:
    names = [_word(number) for number in random.permutation(vocabulary)]
    words, begin = dict(_CLOSED), 0
    for tag, share in _OPEN.items():
        end = begin + round(share * vocabulary)
        words[tag] = tuple(names[begin:end])
        begin = end
    for tag, other in _AMBIGUOUS.items():
        own, foreign = words[tag], words[other]
        shared = random.random(len(own)) < _AMBIGUOUS_SHARE
        # A shared word has a similar rank in both classes: it is frequent in both, or rare in both.
        words[tag] = tuple(
            foreign[place * len(foreign) // len(own)] if borrowed else word
            for place, (word, borrowed) in enumerate(zip(own, shared, strict=True))
        )
    zipf = {tag: 1 / (np.arange(len(found)) + 2.7) for tag, found in words.items()}
    return _Lexicon(words, {tag: weights / weights.sum() for tag, weights in zipf.items()})


def _sentence(lexicon: _Lexicon, random: np.random.Generator) -> Sentence:
    tags = [*_noun_phrase(random), *_verb_phrase(random)]
    if random.random() < 0.25:
        tags += [",", "CC", *_noun_phrase(random), *_verb_phrase(random)]
    return sentence(lexicon.draw(tag, random) for tag in [*tags, "."])


def _noun_phrase(random: np.random.Generator, depth: int = 0) -> list[str]:
    if random.random() < 0.15:
        return ["PRP"]
    tags = ["DT"] if random.random() < 0.7 else []
    while random.random() < 0.35:
        tags.append("JJ")
    tags.append("NN" if tags[:1] == ["DT"] or random.random() < 0.3 else "NNS")
    if depth < 2 and random.random() < 0.3:
        tags += ["IN", *_noun_phrase(random, depth + 1)]
    return tags


def _verb_phrase(random: np.random.Generator) -> list[str]:
    tags = ["VBD"]
    if random.random() < 0.3:  # "wanted * to see": the null element is the subject of "see"
        tags += [NULL_TAG, "TO", "VB"]
    if random.random() < 0.3:
        tags.append("RB")
    return tags + (_noun_phrase(random) if random.random() < 0.8 else [])
