"""Messages with an intent and entities: the common form of all NLU corpora."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entity:
    """A span of a message's text: characters [start, end)."""

    start: int
    end: int
    type: str
    #: The value of the entity. It differs from the span's text if a synonym or an annotation gives another one.
    value: str


@dataclass(frozen=True)
class Message:
    """A user's message without entity markup, its intent, and its entities in the order of their starts."""

    text: str
    intent: str
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True)
class NluCorpus:
    """Training examples of an assistant, and its patterns.

    Attributes:
        messages: all examples, in file order; if there are test messages, only those for training.
        test: messages for the test, if the corpus comes with a split.
        synonyms: text of an entity → value.
        regexes: name → regular expressions.
        lookups: name → phrases.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    messages: tuple[Message, ...]
    synonyms: dict[str, str] = field(default_factory=dict)
    regexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lookups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    test: tuple[Message, ...] = ()
