"""A small corpus whose intents and entities can be told from single words."""

from sparse_bench.data.messages import Entity, Message, NluCorpus

CITIES = ("Rome", "Bonn", "New York", "The Hague")
DRINKS = ("tea", "coffee", "water")


def _message(text: str, intent: str, *entities: tuple[str, str]) -> Message:
    found = [(text.index(surface), surface, kind) for surface, kind in entities]
    return Message(
        text, intent, tuple(Entity(start, start + len(word), kind, word) for start, word, kind in sorted(found))
    )


def small_corpus() -> NluCorpus:
    """61 messages, two of them copies: 20 greet, 25 travel, 12 order and 4 faq (of two sub-intents)."""
    greet = [_message(f"hello {name}", "greet") for name in "abcdefghijklmnopqrs"]
    travel = [
        _message(f"{verb} to {city}{end}", "travel", (city, "city"))
        for verb in ("go", "fly", "a train")
        for city in CITIES
        for end in ("", " today!")
    ]
    order = [
        _message(f"a {drink} for {name}", "order", (drink, "drink"))
        for drink in DRINKS
        for name in ("me", "two", "10 people", "Ann")
    ]
    faq = [
        _message("who made you?", "faq/maker"),
        _message("who built you?", "faq/maker"),
        _message("what do you cost?", "faq/price"),
        _message("what is the price?", "faq/price"),
    ]
    return NluCorpus(
        messages=(*greet, greet[0], *travel, travel[0], *order, *faq),
        regexes={"number": ("[0-9]+",)},
        lookups={"city": CITIES},
        checksums={"small": "0" * 64},
    )
