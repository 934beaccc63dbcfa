"""METEOR by hand."""

import pytest

from sparse_bench.errors import ConfigError
from sparse_bench.tasks.meteor import Meteor


@pytest.fixture(scope="module")
def german() -> Meteor:
    return Meteor("de")


@pytest.mark.parametrize(
    ("translation", "reference", "score"),
    [
        # m = 4 in one chunk: F = 1, penalty 0.5 · (1/4)³
        ("der Hund läuft schnell", "der Hund läuft schnell", 1 - 0.5 / 64),
        # m = 3 of 4 and 4, chunks "der hund" and "schnell": F = 3/4, penalty 0.5 · (2/3)³ = 4/27
        ("der Hund rennt schnell", "der Hund läuft schnell", 3 / 4 * 23 / 27),
        # case does not matter
        ("Der hund", "der Hund", 1 - 0.5 / 8),
        # stems do not either: hunde, hunden → hund
        ("zwei Hunde", "zwei Hunden", 1 - 0.5 / 8),
        # m = 2, P = 1, R = 1/2: F = (1/2) / (0.9 + 0.05), one chunk
        ("ein Mann", "ein Mann sitzt hier", 0.5 / 0.95 * (1 - 0.5 / 8)),
        # the other way round: P = 1/2, R = 1: F = (1/2) / (0.45 + 0.1)
        ("ein Mann sitzt hier", "ein Mann", 0.5 / 0.55 * (1 - 0.5 / 8)),
        # every word, every one a chunk of its own: penalty 0.5
        ("b a", "a b", 0.5),
        # synonyms are unknown
        ("Auto", "Wagen", 0.0),
        ("", "Wagen", 0.0),
    ],
)
def test_sentences(german, translation, reference, score):
    assert german.sentence_score(translation.split(), reference.split()) == pytest.approx(score)


def test_a_corpus_is_the_mean_of_its_sentences(german):
    translations = [["ein", "Mann"], ["b", "a"], ["x"]]
    references = [["ein", "Mann"], ["a", "b"], ["y"]]
    assert german.corpus_score(translations, references) == pytest.approx(100 * (0.9375 + 0.5 + 0) / 3)


def test_the_signature_names_what_the_score_depends_on(german):
    signature = german.signature()
    for part in ("case:lc", "stem:snowball-german", "synonyms:none", "nltk:", "not comparable with METEOR 1.5"):
        assert part in signature


def test_the_language_has_a_stemmer():
    assert Meteor("en").sentence_score(["dogs"], ["dog"]) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match=r"'xx'.*de, en"):
        Meteor("xx")
