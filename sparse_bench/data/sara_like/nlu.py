"""Sara-like: an NLU corpus generated from phrase templates.

It replaces the training data of the assistant Sara, which may not be distributed. It is an original corpus about an
invented product, with similar statistics: intents and their sizes, entity types and their counts, lengths, vocabulary,
overlap between intents, and typing errors. ``results/rasa/sara_like_calibration.md`` compares the two.
"""

import hashlib
import json
from functools import cache
from importlib.resources import files
from itertools import accumulate
from random import Random

from sparse_bench.data.messages import Entity, Message, NluCorpus
from sparse_bench.data.sara_like.generators import GENERATORS
from sparse_bench.data.sara_like.grammar import Call, Grammar, Segment, Speaker, Template, Text, parse_grammar, pick
from sparse_bench.data.sara_like.noise import NoiseRates, typed
from sparse_bench.errors import ConfigError
from sparse_bench.limits import Many, Seed, checked
from sparse_bench.streams import Streams

#: Number of examples of each intent at full size. The sorted sizes are those of Sara.
SIZES = {
    "chitchat": 820,
    "faq": 771,
    "enter_data": 726,
    "out_of_scope": 411,
    "get_started": 335,
    "affirm": 225,
    "technical_question": 220,
    "book_sales_call": 159,
    "greet": 147,
    "newsletter": 141,
    "ask_meetups": 107,
    "deny": 100,
    "install_help": 97,
    "talk_to_human": 69,
    "praise": 62,
    "extraction_info": 62,
    "migrate": 54,
    "how_to_contribute": 53,
    "complain": 47,
    "why_foliary": 45,
    "where_to_ask": 43,
    "goodbye": 42,
    "need_help": 41,
    "thanks": 39,
    "source_code": 34,
    "give_up": 26,
    "why_contribute": 21,
    "model_recommendation": 19,
    "explain": 16,
    "next_step": 15,
    "annotation_tool": 14,
    "restart": 10,
}
FULL_SIZE = sum(SIZES.values())
#: Least number of examples of an intent, at any size.
FEWEST = 3
#: Longest message, in whitespace tokens.
LONGEST = 24

#: Overlap between intents: intent → other intent → share of the first one's examples made from the other's templates.
BORROWED: dict[str, dict[str, float]] = {
    "out_of_scope": {
        "technical_question": 0.01,
        "chitchat": 0.005,
        "get_started": 0.005,
        "faq": 0.005,
        "complain": 0.005,
    },
    "technical_question": {"install_help": 0.005, "get_started": 0.01, "faq": 0.01},
    "get_started": {"technical_question": 0.006, "faq": 0.006, "install_help": 0.003},
    "chitchat": {"out_of_scope": 0.005},
    "faq": {"technical_question": 0.003},
    "need_help": {"technical_question": 0.03},
    "install_help": {"get_started": 0.02},
    "affirm": {"praise": 0.01, "next_step": 0.005},
    "deny": {"complain": 0.01},
    "praise": {"affirm": 0.02},
    "complain": {"deny": 0.02},
    "give_up": {"complain": 0.04},
}

#: Share of an intent's examples with a few words before or after the phrase itself.
WRAPPED = {
    "faq": 0.2,
    "chitchat": 0.2,
    "get_started": 0.1,
    "enter_data": 0.15,
    "out_of_scope": 0.25,
    "need_help": 0.2,
    "give_up": 0.3,
    "where_to_ask": 0.25,
    "ask_meetups": 0.25,
    "talk_to_human": 0.25,
    "how_to_contribute": 0.2,
    "newsletter": 0.1,
    "book_sales_call": 0.1,
}

SYNONYMS = {
    "READER": "reader",
    "Reader": "reader",
    "readr": "reader",
    "foliary reader": "reader",
    "Foliary Reader": "reader",
    "DESK": "desk",
    "Desk": "desk",
    "foliary desk": "desk",
    "Foliary Desk": "desk",
    "foliarydesk": "desk",
    "foliary open edition": "open edition",
    "the open edition": "open edition",
    "both of them": "both",
    "English": "english",
    "eng": "english",
    "German": "german",
    "French": "french",
    "Spanish": "spanish",
    "mandarin": "chinese",
    "portugese": "portuguese",
    "page miner": "pageminer",
    "PageMiner": "pageminer",
    "Scanwise": "scanwise",
    "scanwise.ai": "scanwise",
    "scan wise": "scanwise",
    "Doculark": "doculark",
    "OCR": "ocr",
    "tables": "table extraction",
    "table recognition": "table extraction",
    "page sorting": "page classification",
    "Page Classification": "page classification",
    "layouts": "layout detection",
    "totals": "amounts",
    "how much it was": "amounts",
    "due dates": "dates",
}
LOOKUPS = {
    "place": (
        "lisbon",
        "oslo",
        "toronto",
        "denver",
        "porto",
        "new york",
        "kyoto",
        "nairobi",
        "london",
        "berlin",
        "texas",
    ),
    "product": ("reader", "desk", "foliary reader", "foliary desk", "open edition", "enterprise edition"),
}
REGEXES = {"greet": (r"h(e|a)+y+\w*",), "amount": (r"\d+ ?(k|euros|dollars|usd|eur)\b",)}


@cache
def grammar() -> Grammar:
    """The phrases of all intents, read from the package's text files."""
    folder = files(__package__) / "phrases"
    names = ("lexicon.txt", "everyday.txt", "product.txt", "open_ended.txt")
    texts = ((folder / name).read_text("utf-8") for name in names)
    return parse_grammar((line for text in texts for line in text.splitlines()), GENERATORS)


def sizes(examples: int) -> dict[str, int]:
    """Number of examples of each intent for ``examples`` in total: proportional, but at least :data:`FEWEST`.

    Raises:
        ConfigError: too few examples for all intents.
    """
    least = FEWEST * len(SIZES)
    if examples < least:
        raise ConfigError(f"Sara-like needs at least {least} examples ({FEWEST} per intent), not {examples}.")
    shares = {intent: size * examples / FULL_SIZE for intent, size in SIZES.items()}
    counts = {intent: max(FEWEST, int(share)) for intent, share in shares.items()}
    # Correct the difference due to rounding and the minimum one by one, at the intents furthest from their share.
    while (difference := examples - sum(counts.values())) != 0:
        step = 1 if difference > 0 else -1
        movable = [intent for intent in counts if counts[intent] + step >= FEWEST]
        furthest = max(movable, key=lambda intent: step * (shares[intent] - counts[intent]))
        counts[furthest] += step
    return counts


def spread(random: Random, templates: tuple[Template, ...], count: int) -> list[Template]:
    """``count`` templates in proportion to their weights, as evenly as whole numbers allow (systematic sampling)."""
    borders = list(accumulate(template.weight for template in templates))
    start = random.random()
    chosen, number = [], 0
    for draw in range(count):
        while number < len(borders) - 1 and borders[number] <= (draw + start) / count * borders[-1]:
            number += 1
        chosen.append(templates[number])
    return chosen


def message(segments: list[Segment], intent: str) -> Message:
    """Make a message from segments: their text, and the entities with their positions in it."""
    entities, position = [], 0
    for segment in segments:
        end = position + len(segment.text)
        if segment.entity is not None:
            entities.append(Entity(position, end, segment.entity, SYNONYMS.get(segment.text, segment.text)))
        position = end
    return Message("".join(segment.text for segment in segments), intent, tuple(entities))


class _Crowd:
    """The simulated authors of the examples: one random stream, the decks of words, and all texts written so far."""

    #: Attempts to write a new message before a duplicate is accepted.
    ATTEMPTS = 40
    #: Share of messages for which a duplicate is accepted at once, since the real corpus has a few.
    CARELESS = 0.004

    def __init__(self, seed: int, rates: NoiseRates) -> None:
        self._random = Random(Streams(seed).derive("data", "sara_like"))
        self._speaker = Speaker(grammar(), self._random, GENERATORS)
        self._rates = rates
        self._exact: set[tuple[str, str]] = set()

    def write(self, intent: str, count: int) -> list[Message]:
        """Write ``count`` examples of an intent."""
        phrases = grammar().intents
        lent = {source: round(share * count) for source, share in BORROWED.get(intent, {}).items()}
        templates = spread(self._random, phrases[intent], count - sum(lent.values()))
        for source, number in lent.items():
            templates += spread(self._random, phrases[source], number)
        return [self._new(template, intent) for template in templates]

    def _phrase(self, template: Template, intent: str) -> list[Segment]:
        if self._random.random() >= WRAPPED.get(intent, 0.0):
            return self._speaker.say(template)
        wrapping = "opening" if self._random.random() < 0.5 else "closing"
        around = (Call(wrapping), Text(" "))
        nodes = (*around, *template.nodes) if wrapping == "opening" else (*template.nodes, *reversed(around))
        return self._speaker.say(Template(nodes))

    def _new(self, template: Template, intent: str) -> Message:
        for attempt in range(self.ATTEMPTS):
            written = message(typed(self._phrase(template, intent), self._random, self._rates), intent)
            fresh = (written.text, intent) not in self._exact
            careless = self._random.random() < self.CARELESS
            if (fresh or careless) and len(written.text.split()) <= LONGEST:
                break
            if attempt % 8 == 7:
                others = grammar().intents[intent]
                template = others[pick(self._random, len(others))]
        self._exact.add((written.text, intent))
        return written


@checked
def sara_like(seed: Seed = 0, examples: Many = FULL_SIZE) -> NluCorpus:
    """Generate the Sara-like corpus, with 32 intents and 10 entity types.

    Args:
        seed: seed of the generator. Other seeds give other corpora with similar statistics.
        examples: number of messages. Below the full size all intents shrink in proportion; above it small intents get
            duplicates.

    Returns:
        Messages grouped by intent, with synonyms, regexes and lookups. ``checksums["sara_like"]`` is the SHA-256 of the
        messages. The same arguments give the same corpus on every machine and in every Python version.

    Raises:
        ConfigError: fewer than three examples for each intent.
    """
    crowd = _Crowd(seed, NoiseRates())
    messages = tuple(written for intent, count in sizes(examples).items() for written in crowd.write(intent, count))
    return NluCorpus(messages, dict(SYNONYMS), dict(REGEXES), dict(LOOKUPS), {"sara_like": checksum(messages)})


def checksum(messages: tuple[Message, ...]) -> str:
    """SHA-256 of the messages, with one line of JSON each: ``[text, intent, [[start, end, type, value], ...]]``."""
    digest = hashlib.sha256()
    for one in messages:
        entities = [[entity.start, entity.end, entity.type, entity.value] for entity in one.entities]
        digest.update(json.dumps([one.text, one.intent, entities]).encode() + b"\n")
    return digest.hexdigest()
