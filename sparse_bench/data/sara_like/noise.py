"""Noise of typed messages: capitals, punctuation, missing apostrophes and typing errors.

The functions change the text of segments and keep their entity types, so entity spans follow from the changed text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sparse_bench.data.sara_like.grammar import Segment, pick

#: First words of a question, also after an opening phrase.
QUESTION = re.compile(
    r"(?:.*, )?(what|whats|wat|how|why|where|when|which|who|whom|any"
    r"|can|could|do|does|did|is|are|am|will|would|should|may)\b",
    re.IGNORECASE,
)
#: Rows of letters on a keyboard.
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class NoiseRates:
    """Probabilities per message.

    Attributes:
        typo: one word of plain text is misspelt.
        second_typo: if so, a second word is misspelt as well.
        entity_typo: a word inside an entity is misspelt.
        sentence_case: the first letter is a capital.
        upper_case: the whole message is in capitals.
        question_mark: a question ends in one.
        full_stop: any other message ends in one.
        exclamation: any other message ends in one or more of them.
        no_apostrophe: apostrophes are left out.
        stretched: a message of one or two words ends in a repeated letter (``heyyy``).
        unmarked: the annotator missed the entities.
    """

    typo: float = 0.035
    second_typo: float = 0.1
    entity_typo: float = 0.02
    sentence_case: float = 0.31
    upper_case: float = 0.015
    question_mark: float = 0.75
    full_stop: float = 0.03
    exclamation: float = 0.03
    no_apostrophe: float = 0.2
    stretched: float = 0.01
    unmarked: float = 0.02


def typed(segments: list[Segment], random: Random, rates: NoiseRates) -> list[Segment]:
    """Apply noise to the segments of a message."""
    if random.random() < rates.typo:
        segments = _misspelt(segments, random, entity=False)
        if random.random() < rates.second_typo:
            segments = _misspelt(segments, random, entity=False)
    if random.random() < rates.entity_typo:
        segments = _misspelt(segments, random, entity=True)
    if random.random() < rates.no_apostrophe:
        segments = _each(segments, lambda text: text.replace("'", ""))
    segments = _punctuated(segments, random, rates)
    case = random.random()
    if case < rates.upper_case:
        segments = _each(segments, str.upper)
    elif case < rates.upper_case + rates.sentence_case:
        first = segments[0]
        segments = [Segment(first.text[:1].upper() + first.text[1:], first.entity), *segments[1:]]
        if random.random() < 0.5:
            segments = _each(segments, lambda text: re.sub(r"\bi\b", "I", text))
    if random.random() < rates.unmarked:
        segments = [Segment("".join(segment.text for segment in segments))]
    return segments


def _each(segments: list[Segment], change: Callable[[str], str]) -> list[Segment]:
    return [Segment(change(segment.text), segment.entity) for segment in segments]


def _punctuated(segments: list[Segment], random: Random, rates: NoiseRates) -> list[Segment]:
    text = "".join(segment.text for segment in segments)
    point = random.random()
    if QUESTION.match(text) and " " in text:
        if point >= rates.question_mark:
            return segments
        mark = " ?" if point < 0.08 * rates.question_mark else "?"
    elif point < rates.full_stop:
        mark = "."
    elif point < rates.full_stop + rates.exclamation:
        mark = "!" * (1 + pick(random, 3))
    elif len(text) <= 12 and text[-1:].isalpha() and point > 1 - rates.stretched:
        mark = text[-1] * (1 + pick(random, 3))
    else:
        return segments
    last = segments[-1]
    if last.entity is None:
        return [*segments[:-1], Segment(last.text + mark)]
    return [*segments, Segment(mark)]


def _misspelt(segments: list[Segment], random: Random, entity: bool) -> list[Segment]:
    """Misspell one word of at least four letters, inside an entity or outside of all, if there is one."""
    places = [
        (number, match)
        for number, segment in enumerate(segments)
        if (segment.entity is not None) == entity
        for match in WORD.finditer(segment.text)
    ]
    if not places:
        return segments
    number, match = places[pick(random, len(places))]
    text = segments[number].text
    changed = text[: match.start()] + misspell(match.group(), random) + text[match.end() :]
    return [*segments[:number], Segment(changed, segments[number].entity), *segments[number + 1 :]]


def misspell(word: str, random: Random) -> str:
    """Misspell a word of at least two letters: swap two letters, drop one, double one, or hit a neighbouring key.

    The word stays the same if the swapped letters are equal, or if the key is at the end of its row.
    """
    kind = random.random()
    place = pick(random, len(word) - 1)
    if kind < 0.3:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind < 0.6:
        return word[: place + 1] + word[place + 2 :]
    if kind < 0.75:
        return word[:place] + word[place] + word[place:]
    row = next((row for row in KEYBOARD if word[place] in row), None)
    if row is None:
        return word[:place] + word[place + 1 :]
    beside = row.index(word[place]) + (1 if random.random() < 0.5 else -1)
    return word[:place] + row[min(max(beside, 0), len(row) - 1)] + word[place + 1 :]
