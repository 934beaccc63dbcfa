"""Multi30k-like: the same for everybody, and German as it has to be."""

from collections import Counter
from random import Random

import pytest

from sparse_bench.data.multi30k_like import grammar, lexicon, multi30k_like
from sparse_bench.data.multi30k_like.corpus import caption
from sparse_bench.data.multi30k_like.grammar import NUMBERS, Pair
from sparse_bench.errors import ConfigError

#: Pinned: a change of any word or rate changes it, and every result on the corpus with it.
SHA256 = "269e336d46b9a1415d95424e975e1fd5cdec30e5d8f4c8b0f2a3eddc69cd8391"

MAN, WOMAN, BOY, GIRL = lexicon.PEOPLE[:4]
CHILD = lexicon.PEOPLE[4]
OLD = lexicon.Adjective("old", "alt")
NOTHING = Pair("", "")


def verb(english: str) -> lexicon.Verb:
    return next(v for v in (*lexicon.TRANSITIVE, *lexicon.INTRANSITIVE) if v.english == english)


@pytest.mark.parametrize(
    ("noun", "case", "count", "english", "german"),
    [
        (MAN, "nominative", 1, "an old man", "ein alter Mann"),
        (MAN, "accusative", 1, "an old man", "einen alten Mann"),
        (MAN, "dative", 1, "an old man", "einem alten Mann"),
        (WOMAN, "nominative", 1, "an old woman", "eine alte Frau"),
        (WOMAN, "accusative", 1, "an old woman", "eine alte Frau"),
        (WOMAN, "dative", 1, "an old woman", "einer alten Frau"),
        (GIRL, "nominative", 1, "an old girl", "ein altes Mädchen"),
        (GIRL, "accusative", 1, "an old girl", "ein altes Mädchen"),
        (GIRL, "dative", 1, "an old girl", "einem alten Mädchen"),
        (BOY, "nominative", 1, "an old boy", "ein alter Junge"),
        (BOY, "accusative", 1, "an old boy", "einen alten Jungen"),
        (CHILD, "nominative", 2, "two old children", "zwei alte Kinder"),
        (CHILD, "accusative", 3, "three old children", "drei alte Kinder"),
        (CHILD, "dative", 2, "two old children", "zwei alten Kindern"),
        (WOMAN, "dative", 2, "two old women", "zwei alten Frauen"),
    ],
)
def test_articles_adjectives_and_nouns_agree(noun, case, count, english, german):
    assert grammar.noun_phrase(noun, case, count, OLD) == Pair(english, german)


def test_places():
    park, _, beach, lawn = lexicon.PLACES[:4]
    assert grammar.place_phrase(park, True) == Pair("in the park", "im Park")
    assert grammar.place_phrase(beach, True) == Pair("at the beach", "am Strand")
    assert grammar.place_phrase(lawn, True) == Pair("on the lawn", "auf der Wiese")
    assert grammar.place_phrase(park, False) == Pair("in a park", "in einem Park")
    between = next(place for place in lexicon.PLACES if place.english == "between")
    assert grammar.place_phrase(between, True) == Pair("between two walls", "zwischen zwei Mauern")


def test_the_verb_stands_where_german_has_it():
    woman, bag = grammar.subject(WOMAN, 1, None), Pair("a bag", "eine Tasche")
    up, park = verb("holding up"), Pair("in the park", "im Park")
    assert grammar.main_clause(woman, up, bag) == Pair("a woman is holding up a bag", "eine Frau hält eine Tasche hoch")
    assert grammar.main_clause(woman, up, bag, first=park) == Pair(
        "in the park, a woman is holding up a bag", "im Park hält eine Frau eine Tasche hoch"
    )
    assert grammar.while_clause(woman, up, bag) == Pair(
        "while a woman is holding up a bag", "während eine Frau eine Tasche hochhält"
    )
    assert grammar.while_clause(woman, verb("sitting"), NOTHING).german == "während eine Frau sitzt"


def test_the_verb_agrees_with_its_subject():
    two, man = grammar.subject(BOY, 2, None), grammar.subject(MAN, 1, None)
    assert grammar.main_clause(two, verb("running"), NOTHING) == Pair("two boys are running", "zwei Jungen laufen")
    together = grammar.both(man, grammar.subject(WOMAN, 1, None))
    assert grammar.main_clause(together, verb("running"), NOTHING).german == "ein Mann und eine Frau laufen"
    hat = grammar.noun_phrase(lexicon.OBJECTS["clothes"][2], "accusative")
    wearing = grammar.relative_clause(man, lexicon.WEARING, hat)
    assert wearing.phrase == Pair("a man wearing a hat", "ein Mann, der einen Hut trägt,")
    assert grammar.relative_clause(two, lexicon.WEARING, hat).phrase.german == "zwei Jungen, die einen Hut tragen,"


def test_the_corpus_is_the_same_for_everybody():
    corpus = multi30k_like()
    assert corpus.checksums == {"multi30k_like": SHA256}
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (5000, 250, 250)
    assert corpus.references == corpus.test.target
    assert multi30k_like(seed=1).train != corpus.train


def test_no_sentence_occurs_twice():
    corpus = multi30k_like()
    everything = [*corpus.train.source, *corpus.valid.source, *corpus.test.source]
    assert len(set(everything)) == len(everything)


def test_captions_are_sentences_of_fair_length():
    drawn = [caption(Random(seed)) for seed in range(2000)]
    for pair in drawn:
        for text in (pair.english, pair.german):
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert " ," not in text
    lengths = [len(pair.english.split()) for pair in drawn]
    assert 8 < sum(lengths) / len(lengths) < 14
    assert max(lengths) <= 35


def test_every_word_of_the_lexicon_is_drawn_and_some_are_rare():
    corpus = multi30k_like()
    counts = Counter(word.strip(".,") for line in corpus.train.target for word in line.split())
    for noun in (*lexicon.PEOPLE, *lexicon.FEATURES, *(n for nouns in lexicon.OBJECTS.values() for n in nouns)):
        assert noun.german in counts or noun.oblique in counts, noun
    assert all(german in counts for _, german in NUMBERS.values())
    assert counts["Mann"] > 5 * counts["Akrobat"] > 0
    assert min(counts.values()) < 5


def test_too_few_or_too_many():
    with pytest.raises(ConfigError, match="at least 1"):
        multi30k_like(valid=0)
