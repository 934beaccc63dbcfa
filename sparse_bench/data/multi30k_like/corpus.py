"""Multi30k-like: a parallel corpus generated from a small English-German grammar.

In tests and quick sweeps it replaces Multi30k, which may not be distributed. The sentences are captions about people,
their actions and places. They contain many difficulties of German: gender and case of articles and adjectives, weak
nouns, dative plurals, contracted prepositions (``im``, ``am``), verb-second main clauses, verb-final subordinate
clauses, and separable verbs. The corpus is far easier than the real one: its vocabulary is small, and each source
sentence has one correct translation.
"""

import hashlib
from functools import cache
from random import Random
from typing import TypeVar

from sparse_bench.data.multi30k_like import grammar, lexicon
from sparse_bench.data.multi30k_like.grammar import Pair, Subject
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Many, Seed, checked
from sparse_bench.streams import Streams

#: Draws per requested sentence, after which the grammar is taken to have too few different sentences.
_PATIENCE = 50

Choice = TypeVar("Choice")


@checked
def multi30k_like(train: Many = 5000, valid: Many = 250, test: Many = 250, seed: Seed = 0) -> ParallelCorpus:
    """Generate captions, all different, English to German.

    Args:
        train, valid, test: number of pairs of each split.
        seed: seed of the generator. A seed gives the same sentences on every machine.

    Raises:
        ConfigError: a split without sentences, or more sentences than the grammar can produce.
    """
    return _corpus(train, valid, test, seed)


@cache
def _corpus(train: int, valid: int, test: int, seed: int) -> ParallelCorpus:
    wanted = train + valid + test
    random = Random(Streams(seed).derive("multi30k_like"))
    found: dict[str, str] = {}
    for _ in range(wanted * _PATIENCE):
        pair = caption(random)
        found.setdefault(pair.english, pair.german)
        if len(found) == wanted:
            break
    else:
        raise ConfigError(f"The grammar gave only {len(found)} different captions; {wanted} were requested.")
    source, target = tuple(found), tuple(found.values())
    cuts = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, wanted)}
    splits = {name: ParallelText(source[start:end], target[start:end]) for name, (start, end) in cuts.items()}
    text = "\n".join(f"{english}\t{german}" for english, german in found.items())
    return ParallelCorpus(
        languages=("en", "de"),
        references=splits["test"].target,
        checksums={"multi30k_like": hashlib.sha256(text.encode()).hexdigest()},
        **splits,
    )


def caption(random: Random) -> Pair:
    """One caption, with a capital at its start and a full stop. It calls only ``random.random()``."""
    doer, counts = _described(random), random.random()
    if counts < 0.12:
        doer = grammar.both(doer, _people(random))
    verb, middle = _action(random)
    place = None if verb.objects and random.random() < 0.5 else _place(random)
    if place is not None and random.random() < 0.2:
        pair = grammar.main_clause(doer, verb, middle, first=place)
    else:
        pair = grammar.main_clause(doer, verb, middle + place if place else middle)
    if random.random() < 0.15:
        other, (second, rest) = _people(random), _action(random)
        clause = grammar.while_clause(other, second, rest)
        pair = Pair(f"{pair.english} {clause.english}", f"{pair.german}, {clause.german}")
    return Pair(_sentence(pair.english), _sentence(pair.german))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pick(random: Random, items: tuple[Choice, ...]) -> Choice:
    """One item, earlier ones with higher probability, so that some words are rare as in real captions."""
    return items[int(random.random() ** 2 * len(items))]


def _count(random: Random) -> int:
    return 1 if random.random() < 0.75 else _pick(random, tuple(grammar.NUMBERS))


def _people(random: Random) -> Subject:
    adjective = _pick(random, lexicon.OF_PEOPLE) if random.random() < 0.35 else None
    return grammar.subject(_pick(random, lexicon.PEOPLE), _count(random), adjective)


def _described(random: Random) -> Subject:
    """People, often with clothes or other features."""
    doer, kind = _people(random), random.random()
    if kind < 0.15:
        return grammar.relative_clause(doer, lexicon.WEARING, _object(random, "clothes"))
    if kind < 0.35:
        clothes = _pick(random, lexicon.OBJECTS["clothes"])
        worn = grammar.noun_phrase(clothes, "dative", adjective=_pick(random, lexicon.OF_CLOTHES))
        return Subject(doer.phrase + Pair("in", "in") + worn, doer.plural, doer.pronoun)
    if kind < 0.45:
        feature = grammar.noun_phrase(_pick(random, lexicon.FEATURES), "dative")
        return Subject(doer.phrase + Pair("with", "mit") + feature, doer.plural, doer.pronoun)
    return doer


def _object(random: Random, kind: str) -> Pair:
    adjectives = lexicon.ADJECTIVES.get(kind, lexicon.OF_THINGS)
    adjective = _pick(random, adjectives) if random.random() < 0.5 else None
    count = 1 if random.random() < 0.85 else _pick(random, tuple(grammar.NUMBERS))
    return grammar.noun_phrase(_pick(random, lexicon.OBJECTS[kind]), "accusative", count, adjective)


def _action(random: Random) -> tuple[lexicon.Verb, Pair]:
    """A verb and its object, if it takes one."""
    verb = _pick(random, lexicon.TRANSITIVE if random.random() < 0.55 else lexicon.INTRANSITIVE)
    return verb, _object(random, verb.objects) if verb.objects else Pair("", "")


def _place(random: Random) -> Pair:
    place = _pick(random, lexicon.PLACES)
    return grammar.place_phrase(place, definite=random.random() < 0.6)
