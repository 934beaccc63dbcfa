"""METEOR as NLTK computes it, in the form and with the parameters of Banerjee & Lavie (2005), without synonyms.

Words of translation and reference are lower-cased and aligned one to one: first equal words, then words with the same
stem by NLTK's Snowball stemmer of the language. Let m be the number of aligned words, c the number of chunks (runs that
are adjacent and in order on both sides), P the precision and R the recall. A sentence scores

    F = P · R / (0.9 · P + 0.1 · R),    METEOR = F · (1 − 0.5 · (c / m)³),

or 0 if no word is aligned. The score of a corpus is the mean over its sentences, times 100.

The scores are not comparable with those of METEOR 1.5 (Denkowski & Lavie 2014), which

- weights kinds of matches, discounts function words, and has a table of paraphrases;
- tunes its parameters for each language, and normalises punctuation in its own way;
- finds the alignment with the fewest chunks, while NLTK takes the last word that fits, from the back;
- sums matches and chunks over the corpus before it computes one score.

NLTK's WordNet synonyms cover only English and need a download, so it gets an empty table of synonyms here.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version

from nltk.stem.snowball import SnowballStemmer
from nltk.translate.meteor_score import single_meteor_score

from sparse_bench.errors import ConfigError, unknown_choice

#: NLTK's Snowball stemmers, by the code of their language.
STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
}


class _NoSynonyms:
    """A synonym table in which no word has any."""

    def synsets(self, word: str) -> tuple[()]:
        return ()


class _CachedStemmer:
    """A stemmer that computes the stem of each word once; captions have few different words."""

    def __init__(self, language: str) -> None:
        self.stem = lru_cache(maxsize=None)(SnowballStemmer(STEMMERS[language]).stem)


class Meteor:
    """METEOR of one language.

    Raises:
        ConfigError: the language is not in :data:`STEMMERS`.
    """

    def __init__(self, language: str) -> None:
        if language not in STEMMERS:
            raise ConfigError(unknown_choice("language of METEOR", language, STEMMERS))
        self.language = language
        self._stemmer = _CachedStemmer(language)

    def sentence_score(self, translation: Sequence[str], reference: Sequence[str]) -> float:
        """Score from 0 to 1 of a translation's words against those of its reference."""
        score: float = single_meteor_score(reference, translation, stemmer=self._stemmer, wordnet=_NoSynonyms())
        return score

    def corpus_score(self, translations: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
        """Mean score of the sentences, from 0 to 100."""
        scores = [self.sentence_score(*pair) for pair in zip(translations, references, strict=True)]
        return 100 * sum(scores) / len(scores)

    def signature(self) -> str:
        """What the score depends on, in the style of sacrebleu's signatures, and what it is not comparable with."""
        return (
            f"nrefs:1|case:lc|stem:snowball-{STEMMERS[self.language]}|synonyms:none|paraphrases:none"
            f"|alpha:0.9|beta:3|gamma:0.5|mean:sentences|nltk:{version('nltk')}; METEOR of Banerjee and Lavie 2005 "
            "(P R / (0.9 P + 0.1 R) · (1 − 0.5 (chunks / matches)³)), not comparable with METEOR 1.5, which weights "
            "kinds of matches and function words, has paraphrases, and scores the corpus as a whole"
        )
