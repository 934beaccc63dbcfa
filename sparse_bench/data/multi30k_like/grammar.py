"""The phrases of captions, with agreement in German and articles in English."""

from dataclasses import dataclass
from typing import Literal

from sparse_bench.data.multi30k_like.lexicon import Adjective, Noun, Place, Verb

Case = Literal["nominative", "accusative", "dative"]

_EIN = {
    "nominative": {"m": "ein", "f": "eine", "n": "ein"},
    "accusative": {"m": "einen", "f": "eine", "n": "ein"},
    "dative": {"m": "einem", "f": "einer", "n": "einem"},
}
#: Endings of an adjective after ``ein`` in the singular.
_MIXED = {
    "nominative": {"m": "er", "f": "e", "n": "es"},
    "accusative": {"m": "en", "f": "e", "n": "es"},
    "dative": {"m": "en", "f": "en", "n": "en"},
}
#: Endings of an adjective after a number in the plural.
_PLURAL = {"nominative": "e", "accusative": "e", "dative": "en"}
_DER = {"m": "dem", "f": "der", "n": "dem"}
_CONTRACTED = {"in dem": "im", "an dem": "am"}
_RELATIVE = {"m": "der", "f": "die", "n": "das"}

#: Count in a noun phrase → English and German word. A count of one is an article instead.
NUMBERS = {2: ("two", "zwei"), 3: ("three", "drei"), 4: ("four", "vier")}


@dataclass(frozen=True)
class Pair:
    """The same phrase in English and in German."""

    english: str
    german: str

    def __add__(self, other: "Pair") -> "Pair":
        return Pair(f"{self.english} {other.english}".strip(), f"{self.german} {other.german}".strip())


def noun_phrase(noun: Noun, case: Case, count: int = 1, adjective: Adjective | None = None) -> Pair:
    """``a young man`` ↔ ``einen jungen Mann``; with a count of two, ``two young men`` ↔ ``zwei junge Männer``."""
    english, german = (adjective.english, adjective.german) if adjective else ("", "")
    if count == 1:
        english = f"{english} {noun.english}".strip()
        english = f"{'an' if english[0] in 'aeiou' else 'a'} {english}"
        described = german and german + _MIXED[case][noun.gender]
        words = [_EIN[case][noun.gender], described, noun.german if case == "nominative" else noun.oblique]
    else:
        english = " ".join(word for word in (NUMBERS[count][0], english, noun.english_plural) if word)
        plural = noun.german_plural
        if case == "dative" and plural[-1] not in "ns":
            plural += "n"
        words = [NUMBERS[count][1], german and german + _PLURAL[case], plural]
    return Pair(english, " ".join(word for word in words if word))


def place_phrase(place: Place, definite: bool) -> Pair:
    """A place: ``in the park`` ↔ ``im Park``, ``on a bench`` ↔ ``auf einer Bank``. ``between`` takes a count of two."""
    if place.english == "between":
        return Pair(place.english, place.german) + noun_phrase(place.noun, "dative", 2)
    if not definite:
        return Pair(place.english, place.german) + noun_phrase(place.noun, "dative")
    preposition = f"{place.german} {_DER[place.noun.gender]}"
    return Pair(
        f"{place.english} the {place.noun.english}",
        f"{_CONTRACTED.get(preposition, preposition)} {place.noun.oblique}",
    )


@dataclass(frozen=True)
class Subject:
    """The subject: its phrase in the nominative, and the properties with which the rest of the sentence agrees."""

    phrase: Pair
    plural: bool
    #: Relative pronoun in the nominative.
    pronoun: str


def subject(noun: Noun, count: int, adjective: Adjective | None) -> Subject:
    """Make a subject from a noun for people."""
    return Subject(
        noun_phrase(noun, "nominative", count, adjective), count > 1, "die" if count > 1 else _RELATIVE[noun.gender]
    )


def both(first: Subject, second: Subject) -> Subject:
    """Join two subjects to a plural one, ``A and B``."""
    return Subject(first.phrase + Pair("and", "und") + second.phrase, True, "die")


def main_clause(doer: Subject, verb: Verb, middle: Pair, first: Pair | None = None) -> Pair:
    """A main clause. The German finite verb is second, after ``first`` if that is given; its prefix comes last."""
    finite = verb.plural if doer.plural else verb.singular
    english = f"{doer.phrase.english} {'are' if doer.plural else 'is'} {verb.english} {middle.english}"
    order = [doer.phrase.german, finite] if first is None else [first.german, finite, doer.phrase.german]
    german = " ".join(part for part in (*order, middle.german, verb.prefix) if part)
    return Pair((f"{first.english}, " if first else "") + english.strip(), german)


def relative_clause(doer: Subject, verb: Verb, middle: Pair) -> Subject:
    """``a man wearing a hat`` ↔ ``ein Mann, der einen Hut trägt,``. The German verb is last, with its prefix."""
    finite = verb.prefix + (verb.plural if doer.plural else verb.singular)
    phrase = Pair(
        f"{doer.phrase.english} {verb.english} {middle.english}",
        f"{doer.phrase.german}, {doer.pronoun} {middle.german} {finite},",
    )
    return Subject(phrase, doer.plural, doer.pronoun)


def while_clause(doer: Subject, verb: Verb, middle: Pair) -> Pair:
    """``while a woman is reading a book`` ↔ ``während eine Frau ein Buch liest``. The German verb is last."""
    finite = verb.prefix + (verb.plural if doer.plural else verb.singular)
    copula = "are" if doer.plural else "is"
    return Pair(
        f"while {doer.phrase.english} {copula} {verb.english} {middle.english}".strip(),
        " ".join(part for part in ("während", doer.phrase.german, middle.german, finite) if part),
    )
