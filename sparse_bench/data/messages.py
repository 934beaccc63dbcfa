"""Messages with an intent and entities: what an NLU corpus is once it has been read."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entity:
    """A span of a message's text: characters [start, end)."""

    start: int
    end: int
    type: str
    #: What the span stands for; differs from the text where a synonym or an annotation says so.
    value: str


@dataclass(frozen=True)
class Message:
    """A user's utterance (entity markup removed), its intent, and the entities in it, in order of their start."""

    text: str
    intent: str
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True)
class NluCorpus:
    """Training examples of an assistant, and its pattern features.

    Attributes:
        messages: all examples, in file order.
        synonyms: surface form → value.
        regexes: name → regular expressions.
        lookups: name → phrases.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    messages: tuple[Message, ...]
    synonyms: dict[str, str] = field(default_factory=dict)
    regexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lookups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
